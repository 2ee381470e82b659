"""One MLflow server: where it is, a client with bounded patience, its failures as errors a user can act on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beear_core.errors import RegistryError

# a server that does not answer must be an error within a minute, not after MLflow's default of many
_TIMEOUT = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
_BOUNDS = dict(
    [
        _TIMEOUT,
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
        # logging a model would look for its card and licence on the hub
        ("HF_HUB_OFFLINE", "1"),
    ]
)
_TRANSFER_TIMEOUT_S = "3600"
_GLOBALS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_FOREIGN = {"mlflow", "sqlalchemy", "requests", "urllib3", "botocore", "boto3", "s3transfer", "alembic", "sqlite3"}
_HOST = re.compile(r"[^/:@]*(:\d+)?")
_USER_INFO = re.compile(r"://[^\s/@]*@")


def resolve_uri(configured: str | None, root: Path) -> str:
    """The tracking store: as configured, else MLFLOW_TRACKING_URI, else SQLite in ``root``."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def client_for(uri: str) -> Any:
    """An MLflow client with bounded retries; MLflow's global state stays as it is."""
    for name, value in _BOUNDS.items():
        os.environ.setdefault(name, value)
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def pointed_at(uri: str) -> Iterator[None]:
    """Have MLflow's fluent functions use this store, with time for files of many gigabytes; undone at the end.

    MLflow exports the URI, password and all, to the environment; left there it would become everybody's default.
    """
    import mlflow

    before = {name: os.environ.get(name) for name in (*_GLOBALS, _TIMEOUT[0])}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    # a server that takes a shard answers only when it has stored it; a timeout that the user set stays
    if before[_TIMEOUT[0]] in (None, _TIMEOUT[1]):
        os.environ[_TIMEOUT[0]] = _TRANSFER_TIMEOUT_S
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def mlflow_errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what MLflow, its transports and the disk raise into a ``RegistryError`` that says what was done and where."""
    try:
        yield
    except Exception as error:
        module = type(error).__module__.split(".")[0]
        if module not in _FOREIGN and not isinstance(error, OSError):
            raise
        raise RegistryError(
            f"MLflow at {without_password(uri)} failed while {doing}: {_reason(error, uri)}; check that it runs and that "
            "MLFLOW_TRACKING_URI and its credentials are right, then run again"
        ) from error


def _reason(error: Exception, uri: str) -> str:
    """One line without secrets; of a long one both ends, because transports put the cause last."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = _USER_INFO.sub("://", text.replace(uri, without_password(uri)))
    return text if len(text) <= 400 else f"{text[:180]} ... {text[-220:]}"


def without_password(uri: str) -> str:
    """The URI as it can be shown: user, password and query left out."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    rest = rest.partition("?")[0]
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        rest = authority.rpartition("@")[2] + slash + path
    elif not _HOST.fullmatch(authority):  # the slash may be part of a password
        rest = rest.rpartition("@")[2]
    return f"{scheme}{separator}{rest}"


def check_reachable(uri: str) -> None:
    """Ask the store for one experiment.

    Raises:
        RegistryError: if it does not answer.
    """
    with mlflow_errors("looking whether it can be reached", uri):
        client_for(uri).search_experiments(max_results=1)
