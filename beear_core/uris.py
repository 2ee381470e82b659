"""URIs and messages as they may be shown: where secrets stand in them, and whether a URI can be meant at all.

What may be a secret counts as one: a token can stand as the user's name, and whoever forgets to encode a password leaves
slashes, question marks and more of ``@`` in it. So everything before the last ``@`` is user and password.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

HIDDEN = "***"
NOTIFY = "BEEAR_NOTIFY"
"""Environment variable: where messages go; any part of such a URL can be a secret."""

_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|sig|auth|jwt|^user(name)?$|^uid$", re.IGNORECASE)
_NESTED = re.compile(r"(pass\w*|pwd|secret|token|key|uid)\s*=", re.IGNORECASE)
_VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|APIKEY|COOKIES?|_KEY|_PASS|_PWD|ACCESS_KEY_ID)$", re.IGNORECASE
)
_PLACE_VARIABLE = re.compile(r"(URI|URL|ENDPOINT|PROXY)$|ENDPOINT_URL", re.IGNORECASE)
_SWITCH = frozenset({"true", "false", "none", "null"})
_SEPARATOR = re.compile(r"([?&;#])")
_URI = re.compile(r"[A-Za-z][\w+.-]{0,40}://[^\s'\"<>]+")
_PARAMETER = re.compile(r"([?&;#])([^\s=&;#'\"?]+)=([^\s&;#'\"\\]+)")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*(/|$)")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^:/\[\]]*)(:\d{0,5})?(/|$)")
_WITHOUT_SCHEME = re.compile(r"(?!models:/|hub:)[^/@\s]*:[^@]*@")
_ANY = "surrogateescape"  # a variable need not be UTF-8
_LEAST = 4  # shorter ones are hidden where they stand in a URI, and not wherever their letters are
_SHORT = 8  # shorter ones are hidden as whole words: a password that is an ordinary word must not tear others apart


@dataclass(frozen=True, slots=True)
class _Parts:
    """A URI divided: ``start`` is the scheme with ``://``; ``rest`` what is hidden because nothing tells what it is."""

    start: str
    user: str
    place: str
    rest: str
    parameters: str


def uri_fault(uri: str) -> str | None:
    """Tell why nothing can be reached by a URI, or ``None``; nothing of the URI is repeated."""
    try:
        _ = urlsplit(uri).port
    except ValueError:
        if "@" in uri:
            # a password with a slash in it looks like a port
            return "user or password hold characters that have to be percent-encoded"
        return "its host or port is not valid; a port is a number from 0 to 65535"
    return None


def without_secrets(uri: str) -> str:
    """Hide a URI's secrets, so that it can be shown: no user and password, ``***`` for values of secret parameters."""
    parts = _divided(uri)
    shown = "".join(f"{mark}{name}{HIDDEN if secret else value}" for mark, name, value, secret in _parameters(parts))
    return f"{parts.start}{parts.place}{HIDDEN if parts.rest else ''}{shown}"


def has_secret(uri: str) -> bool:
    """Tell whether a user, a password or a secret parameter stands in a URI; a token can stand as the user's name."""
    parts = _divided(uri)
    return bool(parts.user) or any(secret for *_, secret in _parameters(parts))


def is_secret_name(name: str) -> bool:
    """Tell whether what is called so is to be hidden, such as ``password`` or ``api_token``."""
    return _SECRET.search(name) is not None


def hide_secrets(text: str, *uris: str) -> str:
    """Hide in a message what must not be shown.

    That is the secrets of ``uris`` and of the environment, which libraries repeat whole, in parts, and encoded anew; and
    what stands at the places of secrets in other URIs.
    """
    known = [*uris, *_environment_uris()]
    for uri in sorted(known, key=len, reverse=True):
        for form in _written(uri):
            text = text.replace(form, without_secrets(uri))
    for url in sorted(notification_urls(), key=len, reverse=True):
        text = text.replace(url, f"{url.partition('://')[0]}://{HIDDEN}")
    secrets = {form for secret in {*_environment_secrets(), *_secrets(known)} for form in _forms(secret)}
    for form in sorted(secrets, key=len, reverse=True):
        if len(form) >= _SHORT:
            text = text.replace(form, HIDDEN)
        elif form in text:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
    text = _URI.sub(_shown_in_text, text)
    return _PARAMETER.sub(lambda m: f"{m[1]}{m[2]}={HIDDEN}" if is_secret_name(m[2]) else m[0], text)


def notification_urls() -> list[str]:
    """List the URLs that ``BEEAR_NOTIFY`` holds, separated by commas or blanks."""
    return [url for url in re.split(r"[\s,]+", os.environ.get(NOTIFY, "")) if url]


def _divided(uri: str) -> _Parts:
    start, separator, rest = uri.partition("://")
    if not separator:
        start, rest = "", uri
    user = ""
    if not _is_path(start, rest, uri):
        user, _, rest = rest.rpartition("@")
    place = rest[: min((rest.find(mark) for mark in "?#" if mark in rest), default=len(rest))]
    parameters, unknown = rest[len(place) :], ""
    if separator and start != "file" and not place.startswith("/") and not _AUTHORITY.match(place):
        # no port: perhaps a password whose host was forgotten
        place, _, unknown = rest.partition(":")
        place, parameters = (f"{place}:", "") if unknown else ("", "")
        unknown = unknown or rest
    return _Parts(f"{start}{separator}", user, place, unknown, parameters)


def _is_path(scheme: str, rest: str, uri: str) -> bool:
    """Tell whether no user can stand in front: in a path, behind a bucket's name, and in what is no URI at all."""
    if not scheme:
        return not _WITHOUT_SCHEME.match(uri)
    if scheme == "s3":
        return _BUCKET.match(rest) is not None
    return scheme.partition("+")[0] in {"file", "sqlite"} and rest.startswith(("/", "localhost/"))


def _parameters(parts: _Parts) -> Iterator[tuple[str, str, str, bool]]:
    """Give each parameter as (mark before it, name with ``=``, value, is it secret)."""
    pieces = _SEPARATOR.split(parts.parameters)[1:]
    behind = False
    for mark, piece in zip(pieces[::2], pieces[1::2], strict=True):
        name, equals, value = piece.partition("=")
        if not equals:
            # the rest of a password that holds a mark itself
            yield (mark, "", piece, True) if behind and piece else (mark, piece, "", False)
            continue
        plain = unquote_plus(value)
        secret = bool(value) and (
            is_secret_name(unquote_plus(name))
            or (behind and mark in "?#")
            or _NESTED.search(plain) is not None
            or ("://" in plain and plain != value and has_secret(plain))
        )
        behind = behind or secret
        yield mark, f"{name}=", value, secret


def _secrets(uris: Iterable[str]) -> Iterator[str]:
    """Find what URIs hold that must not be shown, as it stands there."""
    for uri in uris:
        parts = _divided(uri)
        name, _, password = parts.user.partition(":")
        yield from (password or name, parts.rest, *(value for *_, value, secret in _parameters(parts) if secret))


def _forms(secret: str) -> Iterator[str]:
    """Give the forms in which a secret may come back: decoded, encoded anew, in part, as text in another text."""
    for plain in {secret, unquote(secret), secret.strip()}:
        pieces = re.split(r"[/@#?&%:=;+\s'\"\\]", plain)
        forms = {*_written(plain), *pieces, base64.b64encode(plain.encode(errors=_ANY)).decode()}
        forms |= {quote(plain, safe, errors=_ANY) for safe in ("", "/", "!#$%&'()*+,/:;=?@[]~")}
        forms.add(quote_plus(plain, errors=_ANY))
        yield from (form for form in forms if len(form) >= _LEAST and form.lower() not in _SWITCH)


def _written(text: str) -> Iterator[str]:
    """Give a text as itself, in Python, in JSON and in HTML."""
    yield from {text, repr(text)[1:-1], json.dumps(text)[1:-1], html.escape(text)}


def _environment_uris() -> Iterator[str]:
    for name, value in os.environ.items():
        if name == NOTIFY or not ("://" in value or "@" in value):
            continue
        # alone it may hold blanks; where it stands among other words, it ends with the first
        alone = _URI.match(value.strip()) or _PLACE_VARIABLE.search(name)
        yield from filter(has_secret, [value] if alone else _URI.findall(value))


def _environment_secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _VARIABLE.search(name):
            yield value
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if password:
        yield base64.b64encode(f"{user}:{password}".encode(errors=_ANY)).decode()


def _shown_in_text(found: re.Match[str]) -> str:
    uri = found[0].rstrip(":,.;)}!\\")
    return f"{without_secrets(uri)}{found[0][len(uri) :]}"
