"""Kubeflow Pipelines as every verb reaches it: where it is, who asks, for which namespace."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.errors import ConfigError, KubeflowError
from beear_core.uris import has_secret, uri_fault, without_secrets
from pipelines.kubeflow.answers import bound

ENDPOINT = "KF_PIPELINES_ENDPOINT"
UI_ENDPOINT = "KF_PIPELINES_UI_ENDPOINT"
TOKEN = "BEEAR_KFP_TOKEN"
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"
COOKIES = "BEEAR_KFP_COOKIES"
IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_MOUNTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAGE = 100


@dataclass(frozen=True, slots=True)
class Connection:
    """A client of one Kubeflow Pipelines.

    Attributes:
        client: ``kfp.Client``; call it through ``ask``.
        host: its address.
        namespace: of the user, ``None`` where it serves one user only.
    """

    client: Any
    host: str
    namespace: str | None = None

    def ask(self, call: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
        """Call the client; what it prints is left out, because standard output is for results.

        Raises:
            KubeflowError: it cannot be reached, refuses, or answers with what is not understood.
        """
        from kfp_server_api import OpenApiException

        try:
            with redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return call(*arguments, **given)
        except (OpenApiException, ValueError, TypeError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise KubeflowError(
                f"Kubeflow Pipelines at {without_secrets(self.host)} answered with what KFP's client does not understand "
                f"({reason}); check that --host names its API, of release 2.0 or later"
            ) from error

    def named(self, call: Callable[..., Any], field: str, name: str) -> list[Any]:
        """List everything of one name, page by page."""
        predicate = {"operation": 1, "key": "display_name", "stringValue": name}  # 1: equals
        given = {"filter": json.dumps({"predicates": [predicate]}), "namespace": self.namespace}
        found: list[Any] = []
        token = ""
        while True:
            page = self.ask(call, page_token=token, page_size=PAGE, **given)
            found += getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return [one for one in found if one.display_name == name]

    def experiment(self, name: str) -> str:
        """Find the experiment of a name, or make it; returns its id."""
        return str(self.ask(self.client.create_experiment, name, namespace=self.namespace).experiment_id)

    def known_experiment(self, name: str) -> str:
        """Find the experiment of a name; returns its id.

        Raises:
            ConfigError: there is none.
        """
        for found in self.named(self.client.list_experiments, "experiments", name):
            return str(found.experiment_id)
        raise ConfigError(f"no experiment is called {name!r} at {self.host}; check --experiment and --namespace")

    def run_url(self, run_id: str) -> str:
        """Tell where people see a run."""
        return f"{os.environ.get(UI_ENDPOINT) or self.host}/#/runs/details/{run_id}"


def connect(host: str | None, namespace: str | None) -> Connection:
    """Open a connection and ask for a sign of life.

    Args:
        host: the API's address; by default KF_PIPELINES_ENDPOINT, else in a pod that of Kubeflow's own installation.
        namespace: of the user, where there are many; by default that of the pod.

    Raises:
        ConfigError: no address is known, or address, credentials or namespace cannot be meant.
        KubeflowError: it cannot be reached or refuses.
    """
    import kfp
    import kfp_server_api

    class Client(kfp.Client):  # type: ignore[misc]
        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            # the client's own way tries for minutes without a limit, and writes into the user's home: asked below
            return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)

    place = _place(host)
    given, said = _credentials()
    unbound = Connection(None, place)
    client = unbound.ask(
        Client,
        host=place,
        namespace=namespace or "kubeflow",
        cookies=_header(COOKIES),
        ssl_ca_cert=os.environ.get("SSL_CERT_FILE") or None,
        **given,
    )
    bound(client._run_api.api_client, place, said)
    connection = Connection(client, place)
    many = bool(connection.ask(client._healthz_api.healthz_service_get_healthz).multi_user)
    return Connection(client, place, _namespace(many, namespace or client.get_user_namespace() or None))


def _place(host: str | None) -> str:
    place = host or os.environ.get(ENDPOINT) or (IN_CLUSTER if "KUBERNETES_SERVICE_HOST" in os.environ else "")
    place = place.rstrip("/")
    remedy = f"give --host or set {ENDPOINT}, for instance https://kubeflow.example/pipeline"
    if not place:
        raise ConfigError(f"no Kubeflow Pipelines is named; {remedy}")
    if has_secret(place):
        raise ConfigError(
            f"the address of Kubeflow Pipelines, {without_secrets(place)!r}, was given with a user, a password or a token; "
            f"leave it out and set {TOKEN} or {COOKIES}"
        )
    if not place.startswith(("http://", "https://")) or uri_fault(place):
        why = uri_fault(place) or "it does not begin with http:// or https://"
        raise ConfigError(
            f"the address of Kubeflow Pipelines, {without_secrets(place)!r}, cannot be meant: {why}; {remedy}"
        )
    return place


def _credentials() -> tuple[dict[str, Any], str]:
    """Choose the token; returns what the client is given, and that in words."""
    from kfp.client import ServiceAccountTokenVolumeCredentials

    cookies = f"the cookies of {COOKIES}" if os.environ.get(COOKIES) else "no credentials"
    if token := _header(TOKEN):
        return {"existing_token": token}, f"the token of {TOKEN}"
    named = os.environ.get(TOKEN_FILE)
    path = Path(named) if named else _MOUNTED_TOKEN
    if not named and not path.is_file():
        return {}, cookies
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"no token can be read from {path} ({reason}); mend {TOKEN_FILE}, or set {TOKEN}") from error
    # read again for every request: the cluster replaces it every hour
    return {"credentials": ServiceAccountTokenVolumeCredentials(str(path))}, f"the token in {path}"


def _header(variable: str) -> str | None:
    """Read what is sent in a header; a line break in it would be an error that shows the whole secret."""
    text = os.environ.get(variable, "").strip()
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"{variable} holds a line break or what is no ASCII; set it to the one line that was issued")
    return text or None


def _namespace(many: bool, namespace: str | None) -> str | None:
    if not many:
        if namespace:
            raise ConfigError(
                f"this Kubeflow Pipelines serves one user and has no namespace {namespace!r}; leave --namespace out"
            )
        return None
    if namespace:
        return namespace
    try:
        return _NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError("this Kubeflow Pipelines serves many users; name your namespace with --namespace") from error
