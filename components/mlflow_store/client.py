"""MLflow as every part of this project reaches it: one set of time limits, one translator of errors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from typing import Any
from urllib.parse import urlsplit

from beear_core.config import RegistryConfig
from beear_core.errors import ConfigError, RegistryError
from beear_core.uris import hide_secrets, uri_fault, without_secrets

# a server that does not answer must be an error within a minute, not after MLflow's default of many
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # standard output is for the machine-readable result
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


_ITSELF = "it runs and that MLFLOW_TRACKING_URI"
_ANSWER_S = 10.0
STORE_FILE = "mlflow.db"
RUNS = Path("runs")
"""Where runs and their store are kept unless another folder is named."""


_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Codes by which MLflow says that there is no such model, version or alias."""
_LIBRARIES = {"mlflow", "sqlalchemy", "requests", "urllib3", "botocore", "boto3", "alembic", "sqlite3"}


def resolve_uri(configured: str | None, root: Path) -> str:
    """Choose the tracking store: as configured, else MLFLOW_TRACKING_URI, else SQLite in ``root``."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or local_store(root)


def required_uri(configured: str | None) -> str:
    """Choose the tracking store as configured, else MLFLOW_TRACKING_URI.

    Raises:
        ConfigError: neither is given. A store in a step's own output would hold a champion that nobody finds.
    """
    if uri := configured or os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    raise ConfigError(
        "no MLflow is named, and a model would be promoted where nobody looks; set MLFLOW_TRACKING_URI, or "
        "registry.tracking_uri in the configuration"
    )


def with_store(registry: RegistryConfig, root: Path) -> RegistryConfig:
    """Name the store in ``root`` where neither the configuration nor MLFLOW_TRACKING_URI names one.

    What the environment names stays there: it may hold a password, and a configuration is stored.
    """
    if registry.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return registry
    return replace(registry, tracking_uri=local_store(root))


def store_of_run(configured: str | None, folder: Path) -> str:
    """Choose the store that a run's folder belongs to: as ``resolve_uri``, with the folder of runs that it lies in."""
    beside = folder.resolve().parent
    return resolve_uri(configured, beside if (beside / STORE_FILE).is_file() else RUNS)


def local_store(root: Path) -> str:
    """Name the SQLite store in ``root``."""
    return f"sqlite:///{root.resolve()}/{STORE_FILE}"


def set_bounds() -> None:
    """Limit time and retries of all requests that MLflow sends, where the environment does not say otherwise."""
    for name, value in _BOUNDS.items():
        os.environ.setdefault(name, value)


def client_for(uri: str) -> Any:
    """Make an MLflow client with bounded retries; the registry is at MLFLOW_REGISTRY_URI where that is set.

    Raises:
        ConfigError: if the URI has a port that is none.
    """
    _check_form(uri)
    set_bounds()
    import mlflow

    # a registry in a database looks logged models up in the store that is set for the whole process
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


@contextmanager
def mlflow_errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise into a ``RegistryError`` that says what was being done and where."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        # OSError: a dropped connection, a full disk below the artifacts; ImportError: a database without its driver;
        # UnicodeError: a host that no name server could be asked for
        if not _is_library_error(error) and not isinstance(error, OSError | ImportError | UnicodeError):
            raise
        text = hide_secrets(str(error).strip(), uri)
        reason = text.splitlines()[0][:300] if text else type(error).__name__
        at_fault = "the S3 of its artifacts runs and that AWS_ENDPOINT_URL" if _is_of_s3(error) else _ITSELF
        raise RegistryError(
            f"MLflow at {without_secrets(uri)} failed while {doing}: {reason}; check that {at_fault} and its credentials "
            "are right, then run again"
        ) from error


def _is_of_s3(error: BaseException | None) -> bool:
    """Tell whether S3 raised an error, or what it was made from: steps write artifacts there themselves."""
    while error is not None:
        if type(error).__module__.partition(".")[0] in {"botocore", "boto3"}:
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_library_error(error: Exception) -> bool:
    """Tell whether an error is a library's, or was raised there: a driver has a TypeError for options it does not know."""
    places = [type(error).__module__]
    places += [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)][-1:]
    return any(place.split(".")[0] in _LIBRARIES for place in places)


def _check_form(uri: str) -> None:
    if fault := uri_fault(uri):
        # where the port is wrong, what is taken for a password may be wrong too, so such a URI is not shown
        shown = "with a user or password" if "@" in uri else repr(without_secrets(uri))
        raise ConfigError(
            f"MLflow's URI {shown} cannot be meant: {fault}; mend MLFLOW_TRACKING_URI or "
            "registry.tracking_uri, for instance http://mlflow.example:5000"
        )


def check_reachable(uri: str) -> None:
    """Ask the store for one experiment; where nothing listens, fail within seconds.

    Raises:
        ConfigError: if the URI has a port that is none.
        RegistryError: if it does not answer.
    """
    _check_form(uri)
    with mlflow_errors("looking whether it can be reached", uri):
        check_port(uri)
        client_for(uri).search_experiments(max_results=1)


def check_port(uri: str) -> None:
    """Check that there is a port or a folder at all: MLflow itself tries for minutes before it gives a database up.

    Raises:
        OSError: if there is none.
    """
    if folder := database_folder(uri):
        folder.mkdir(parents=True, exist_ok=True)
        return
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_ANSWER_S).close()


def database_folder(uri: str) -> Path | None:
    """Find the folder that a SQLite database lies in; ``None`` for every other store."""
    scheme, _, path = uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path:
        return None
    return Path(path.partition("?")[0]).resolve().parent
