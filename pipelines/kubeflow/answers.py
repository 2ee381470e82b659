"""Every request to Kubeflow Pipelines has a limit of time, and every answer that is none becomes one kind of error."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from beear_core.errors import KubeflowError
from beear_core.uris import HIDDEN, without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS_S = (5.0, 20.0)
"""To connect, and to answer. With one more try of what can be asked twice, an error comes within a minute."""

_CREDENTIALS = (
    "set BEEAR_KFP_TOKEN to a token, KF_PIPELINES_SA_TOKEN_PATH to a file that holds one, or BEEAR_KFP_COOKIES to the "
    "cookies of a log-in"
)
_ADDRESS = "--host is the address below which /apis/v2beta1 lies, for instance https://kubeflow.example/pipeline"
_UNKNOWN = " Whether it was carried out is not known: look with 'beear pipeline runs' before you try again"
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


def bound(api: Any, host: str, credentials: str) -> None:
    """Bound every request of a client of the API, and translate what it raises.

    Args:
        api: ``kfp_server_api.ApiClient``.
        host: its address, for messages.
        credentials: what it was given, in words.
    """
    import urllib3
    from kfp_server_api import ApiException

    rest = api.rest_client
    send = rest.request
    # what changes something is sent once: whoever loses the answer cannot know. A redirect leads to a log-in page
    again = urllib3.Retry(total=1, status=0, redirect=False, allowed_methods=["GET"])
    rest.pool_manager.connection_pool_kw["retries"] = again
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what failed in the end is said once, below

    def request(method: str, url: str, **given: Any) -> Any:
        asked = _Asked(method, url, host, credentials, api.configuration.api_key)
        given["_request_timeout"] = given.get("_request_timeout") or LIMITS_S
        try:
            answer = send(method, url, **given)
        except ApiException as error:
            raise asked.refused(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise asked.unanswered(error) from error
        asked.check(answer.data)
        return answer

    rest.request = request


class _Asked:
    """One request, and what is said when it is not answered as it should be."""

    def __init__(self, method: str, url: str, host: str, credentials: str, keys: Mapping[str, str]) -> None:
        self.what = f"{method} {urlsplit(url).path}"
        self.where = f"Kubeflow Pipelines at {without_secrets(host)}"
        self.credentials, self._keys = credentials, keys
        self.changes = method not in {"GET", "HEAD"}

    def check(self, data: bytes) -> None:
        """Refuse what is no JSON object: KFP's client would read a log-in page as an empty answer."""
        try:
            found = json.loads(data) if data else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._error(f"answered {self.what} with {_shape(data)} instead of JSON: {self._log_in()}; {_ADDRESS}")

    def refused(self, error: Any) -> KubeflowError:
        """Say what an answer with an error's status means."""
        status, told = int(error.status or 0), _told(error.body)
        answered = f"answered {self.what} with {status}"
        if 300 <= status < 400:
            place = without_secrets((error.headers or {}).get("Location", ""))
            return self._error(f"{answered}, a redirect to {place}: {self._log_in()}; {_ADDRESS}")
        if status == 401:
            return self._error(f"{answered}, it takes no such credentials ({self.credentials}){told}; {_CREDENTIALS}")
        if status == 403:
            return self._error(
                f"{answered}, this is not allowed with {self.credentials}{told}; {_CREDENTIALS} of somebody who may, or "
                "name another --namespace"
            )
        if status == 404 and not told:
            return self._error(f"{answered}, its API is not there; {_ADDRESS}")
        if status == 404:
            return self._error(
                f"{answered}, there is no such thing{told}; check names and ids, 'beear pipeline runs' lists"
            )
        if status == 409:
            return self._error(f"{answered}, it is there already or somebody changes it{told}; look at it and run again")
        if status >= 500:
            text = f"{answered}{told}; look at the log of its pod ml-pipeline and run again."
            return self._error(text + (_UNKNOWN if self.changes else ""), passing=True)
        return self._error(f"{answered}{told}; mend what it names and run again")

    def unanswered(self, error: Exception) -> KubeflowError:
        """Say why there was no answer at all."""
        import urllib3

        reason = getattr(error, "reason", None) or error
        text = _first_line(str(reason))
        if isinstance(reason, urllib3.exceptions.SSLError):
            return self._error(
                f"has no certificate that can be trusted, so nothing was sent ({text}); name the certificates of its "
                "authority in SSL_CERT_FILE, or write http:// if it has none"
            )
        if isinstance(reason, urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.NewConnectionError):
            return self._error(
                f"cannot be reached ({text}); check --host, and that the address can be reached from here", passing=True
            )
        late = isinstance(reason, urllib3.exceptions.TimeoutError)
        why = f"did not answer {self.what} within {LIMITS_S[1]:g} s" if late else f"broke off {self.what} ({text})"
        again = _UNKNOWN if self.changes else " Look whether its pod ml-pipeline is well, and run again"
        return self._error(f"{why}.{again}", passing=True)

    def _log_in(self) -> str:
        return f"most likely it asks to log in ({self.credentials}); {_CREDENTIALS}"

    def _error(self, text: str, *, passing: bool = False) -> KubeflowError:
        for key in self._keys.values():
            # read from a file, so that no variable tells that it is a secret
            text = text.replace(key, HIDDEN) if key else text
        return KubeflowError(f"{self.where} {text}", passing=passing)


def _told(body: object) -> str:
    """Give what the API itself says of an error, behind a colon; empty where it is not the API that speaks."""
    try:
        found = json.loads(body) if isinstance(body, str | bytes) else None
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    text = found.get("message") or found.get("error") or ""
    return f": {_first_line(text)}" if isinstance(text, str) and text else ""


def _shape(data: bytes) -> str:
    text = data[:4000].decode(errors="replace")
    if title := _TITLE.search(text):
        return f"a web page ({_first_line(title[1].strip())!r})"
    return "a web page" if text.lstrip().startswith("<") else f"{_first_line(text)!r}"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")[:300]
