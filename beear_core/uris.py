"""URIs as they may be shown: where user, password and secret parameters stand, and whether a URI can be meant at all."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|sig|auth", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^\s'\"?#]*@")
_PARAMETER = re.compile(r"([?&;][^\s=&;'\"]+)=([^\s&;'\"]+)")
HIDDEN = "***"


def uri_fault(uri: str) -> str | None:
    """What makes a URI one that nothing can be reached by, or ``None``; never repeats the user and password in it."""
    try:
        _ = urlsplit(uri).port
    except ValueError as error:
        # a password with a slash in it looks like a port
        return "user or password hold characters that have to be percent-encoded" if "@" in uri else f"{error}"
    return None


def without_secrets(uri: str) -> str:
    """The URI as it can be shown: user and password left out, values of secret parameters as ``***``.

    A token can stand as the user's name, and a password can hold a slash: everything before the last ``@`` of what is not
    a parameter is left out.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    place, mark, parameters = rest.partition("?")
    if uri_fault(uri):  # then a question mark may belong to the password as well
        place, mark, parameters = (rest.rpartition("@")[2], "", "")
    if not place.startswith("/"):  # of a file or SQLite, which have no user
        place = place.rpartition("@")[2]
    given = parse_qsl(parameters, keep_blank_values=True)
    if any(_SECRET.search(name) for name, _ in given):
        parameters = urlencode([(n, HIDDEN if _SECRET.search(n) else v) for n, v in given], safe="*/")
    return f"{scheme}{separator}{place}{mark}{parameters}"


def has_secret(uri: str) -> bool:
    """Whether a password or a secret parameter stands in a URI; a user's name alone is none."""
    if any(_SECRET.search(name) for name, _ in parse_qsl(uri.partition("?")[2])):
        return True
    user, at, _ = uri.partition("://")[2].partition("?")[0].rpartition("@")
    return bool(at) and ":" in user


def hide_secrets(text: str, uri: str) -> str:
    """A library's message without the secrets of ``uri``, which it may repeat whole or in parts, nor those of others."""
    text = text.replace(uri, without_secrets(uri))
    for secret in _secrets(uri):
        text = text.replace(secret, HIDDEN)
    text = _USER.sub("", text)
    return _PARAMETER.sub(lambda m: f"{m[1]}={HIDDEN}" if _SECRET.search(m[1]) else m[0], text)


def _secrets(uri: str) -> list[str]:
    """What a URI holds that must not be shown, as it stands there and decoded; the longest first."""
    user, _, _ = uri.partition("://")[2].partition("?")[0].rpartition("@")
    found = {part for part in user.split(":", 1) if len(part) > 3}
    found |= {value for name, value in parse_qsl(uri.partition("?")[2]) if _SECRET.search(name) and value}
    return sorted(found | {unquote(part) for part in found}, key=len, reverse=True)
