"""URIs as they may be shown: where user, password and secret parameters stand, and whether a URI can be meant at all."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|sig|auth", re.IGNORECASE)
_USER = re.compile(r"(?<=://)(?!/)[^\s'\"?#]*@")
_PARAMETER = re.compile(r"([?&;][^\s=&;'\"]+)=([^\s&;'\"]+)")
HIDDEN = "***"


def uri_fault(uri: str) -> str | None:
    """Tell why nothing can be reached by a URI, or ``None``; the user and password in it are never repeated."""
    try:
        _ = urlsplit(uri).port
    except ValueError as error:
        # a password with a slash in it looks like a port
        return "user or password hold characters that have to be percent-encoded" if "@" in uri else f"{error}"
    return None


def without_secrets(uri: str) -> str:
    """Hide a URI's secrets, so that it can be shown: no user and password, ``***`` for values of secret parameters."""
    scheme, _, place, parameters = _divided(uri)
    given = parse_qsl(parameters, keep_blank_values=True)
    if any(_SECRET.search(name) for name, _ in given):
        parameters = urlencode([(n, HIDDEN if _SECRET.search(n) else v) for n, v in given], safe="*/")
    return f"{scheme}{place}{'?' if parameters else ''}{parameters}"


def has_secret(uri: str) -> bool:
    """Tell whether a password or a secret parameter stands in a URI; a user's name alone is no secret."""
    _, user, _, parameters = _divided(uri)
    return ":" in user or any(_SECRET.search(name) for name, _ in parse_qsl(parameters))


def hide_secrets(text: str, uri: str) -> str:
    """Hide in a library's message the secrets of ``uri``, which it may repeat whole or in parts, and of other URIs."""
    text = text.replace(uri, without_secrets(uri))
    for secret in _secrets(uri):
        text = text.replace(secret, HIDDEN)
    text = _USER.sub("", text)
    return _PARAMETER.sub(lambda m: f"{m[1]}={HIDDEN}" if _SECRET.search(m[1]) else m[0], text)


def _divided(uri: str) -> tuple[str, str, str, str]:
    """Divide a URI into its scheme with ``://``, user and password, what can be shown, and parameters.

    A token can stand as the user's name, and a password can hold a slash: everything before the last ``@`` of what is not
    a parameter counts as user and password.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "", "", uri, ""
    place, _, parameters = rest.partition("?")
    if place.startswith("/"):  # a path of a file or SQLite, which have no user
        return scheme + separator, "", place, parameters
    if uri_fault(uri):  # then a question mark may belong to the password as well
        place, parameters = rest, ""
    user, _, place = place.rpartition("@")
    return scheme + separator, user, place, parameters


def _secrets(uri: str) -> list[str]:
    """Find what a URI holds that must not be shown, as it stands there and decoded; the longest first."""
    _, user, _, parameters = _divided(uri)
    name, _, password = user.partition(":")
    found = {password or name} - {""}
    found |= {value for key, value in parse_qsl(parameters) if _SECRET.search(key) and value}
    return sorted(found | {unquote(part) for part in found}, key=len, reverse=True)
