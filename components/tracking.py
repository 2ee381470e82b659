"""MLflow tracking: attach to a run or open one, and log configuration, curves, measurements and records.

A run that was given (as an argument or as ``MLFLOW_RUN_ID``) is never ended here; its owner does that.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from beear_core.config import uri_fault
from beear_core.errors import ConfigError, RegistryError
from beear_core.records import Environment, EvaluationRecord, MitigationRecord, Record

# a server that does not answer must be an error within a minute, not after MLflow's default of many
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # standard output is for the machine-readable result
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_ANSWER_S = 10.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_KEY_LENGTH = 240  # MLflow takes 250, and a part like "/high" comes behind
_LIBRARIES = {"mlflow", "sqlalchemy", "requests", "urllib3", "botocore", "boto3", "alembic", "sqlite3"}
_BATCH = 900  # MLflow takes at most 1000 metrics a call
_PARAM_LENGTH = 500


def resolve_uri(configured: str | None, root: Path) -> str:
    """The tracking store: as configured, else MLFLOW_TRACKING_URI, else SQLite in ``root``."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or local_store(root)


def local_store(root: Path) -> str:
    """The SQLite store in ``root``."""
    return f"sqlite:///{root.resolve()}/mlflow.db"


def client_for(uri: str) -> Any:
    """An MLflow client with bounded retries.

    Raises:
        ConfigError: if the URI has a port that is none.
    """
    _check_form(uri)
    for name, value in _BOUNDS.items():
        os.environ.setdefault(name, value)
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def mlflow_errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise into a ``RegistryError`` that says what was being done and where."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        module = type(error).__module__.split(".")[0]
        # OSError: a dropped connection, a full disk below the artifacts
        if module not in _LIBRARIES and not isinstance(error, OSError):
            raise
        text = _hidden(str(error).strip(), uri)
        reason = text.splitlines()[0][:300] if text else type(error).__name__
        raise RegistryError(
            f"MLflow at {without_password(uri)} failed while {doing}: {reason}; check that it runs and that "
            "MLFLOW_TRACKING_URI and its credentials are right, then run again"
        ) from error


def without_password(uri: str) -> str:
    """The URI as it can be shown: user and password left out."""
    scheme, separator, rest = uri.partition("://")
    if separator and "@" in rest.split("/", 1)[0]:
        place, slash, path = rest.partition("/")
        rest = f"{place.rpartition('@')[2]}{slash}{path}"
    return f"{scheme}{separator}{rest}"


def _hidden(text: str, uri: str) -> str:
    """A library's message without user and password: MLflow and requests repeat the URI they were given."""
    text = text.replace(uri, without_password(uri))
    return re.sub(r"(?<=://)[^\s/'\"]*@", "", text)


def _check_form(uri: str) -> None:
    if fault := uri_fault(uri):
        # where the port is wrong, so may be what is taken for a password
        shown = "with a user or password" if "@" in uri else repr(uri)
        raise ConfigError(
            f"MLflow's URI {shown} cannot be meant: {fault}; mend MLFLOW_TRACKING_URI or "
            "registry.tracking_uri, for instance http://mlflow.example:5000"
        )


def check_reachable(uri: str) -> None:
    """Ask the store for one experiment; where nothing listens, that is said within seconds.

    Raises:
        ConfigError: if the URI has a port that is none.
        RegistryError: if it does not answer.
    """
    _check_form(uri)
    with mlflow_errors("looking whether it can be reached", uri):
        _knock(uri)
        client_for(uri).search_experiments(max_results=1)


def _knock(uri: str) -> None:
    """Is there a port or a folder at all? MLflow itself tries for minutes before it gives a database up.

    Raises:
        OSError: if there is none.
    """
    if folder := _database_folder(uri):
        folder.mkdir(parents=True, exist_ok=True)
        return
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_ANSWER_S).close()


def _database_folder(uri: str) -> Path | None:
    """The folder that a SQLite database lies in; ``None`` for every other store."""
    scheme, _, path = uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path:
        return None
    return Path(path.partition("?")[0]).resolve().parent


class Tracker:
    """Logs to one run."""

    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self.client, self.run_id, self.uri = client, run_id, uri

    def log_config(self, values: Mapping[str, Any]) -> None:
        """Nested values as parameters ``section.key``."""
        from mlflow.entities import Param

        flat = {k: str(v)[:_PARAM_LENGTH] for k, v in _flattened(values) if v is not None}
        known = self.client.get_run(self.run_id).data.params
        # a parameter can be written once; logging again after a restart must not fail
        fresh = [Param(k, v) for k, v in flat.items() if k not in known]
        for start in range(0, len(fresh), 100):
            self.client.log_batch(self.run_id, params=fresh[start : start + 100])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, shortened to what MLflow takes."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(k, v[:4900]) for k, v in tags.items()])

    def log_environment(self, environment: Environment) -> None:
        """Where it ran, as tags ``system.*``."""
        self.log_tags(
            {
                "system.python": environment.python,
                "system.platform": environment.platform,
                "system.devices": ", ".join(environment.devices),
                "system.code_version": environment.code_version,
                **{f"system.version.{name}": version for name, version in environment.versions.items()},
            }
        )

    def log_mitigation(self, record: MitigationRecord) -> None:
        """The training curve step by step (``train/inner_loss``, ``train/outer_loss``), the measures by round."""
        points: list[tuple[str, float, int]] = []
        inner = outer = 0
        for round_ in record.rounds:
            for loss in round_.inner_loss:
                points.append(("train/inner_loss", loss, inner))
                inner += 1
            for loss in round_.outer_loss:
                points.append(("train/outer_loss", loss, outer))
                outer += 1
            for name in (
                "delta_norm",
                "attack_under_delta",
                "attack_after",
                "attack_under_delta_after",
                "attack_under_drift_after",
                "refusal_ordinary_after",
                "refusal_borderline_after",
                "nll_ratio_after",
                "seconds",
            ):
                value = getattr(round_, name)
                if value is not None:
                    points.append((f"round/{name}", value, round_.round))
        points.append(("mitigation/seconds", record.seconds, 0))
        points.append(("mitigation/peak_memory_bytes", float(record.peak_memory_bytes), 0))
        self._log(points)
        self.log_tags(
            {
                "mitigation.outcome": record.outcome,
                "mitigation.ending": record.ending or record.outcome,
                "mitigation.reason": record.reason,
            }
        )

    def log_evaluation(self, record: EvaluationRecord) -> None:
        """Each metric as ``before/...`` or ``after/...`` with ``/low``, ``/high``, ``/n``, ``/unscored``; parts below."""
        points: list[tuple[str, float, int]] = [(f"{record.label}/seconds", record.seconds, 0)]
        for name, metric in record.metrics.items():
            rows = [(f"{record.label}/{name}", metric.overall)]
            rows += [(f"{record.label}/{name}/category/{key_part(c)}", e) for c, e in metric.by_category.items()]
            rows += [(f"{record.label}/{name}/trigger/{key_part(t)}", e) for t, e in metric.by_trigger.items()]
            for key, estimate in rows:
                for part in ("value", "low", "high"):
                    number = getattr(estimate, part)
                    if number is not None:
                        points.append((key if part == "value" else f"{key}/{part}", number, 0))
                points += [(f"{key}/n", float(estimate.n), 0), (f"{key}/unscored", float(estimate.unscored), 0)]
        self._log(points)

    def log_record(self, record: Record, name: str) -> None:
        """A record as the artifact ``records/<name>.json``."""
        self.client.log_text(self.run_id, record.to_json().decode(), f"records/{name}.json")

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A file as an artifact."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def _log(self, points: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(k), v, now, step) for k, v, step in points if math.isfinite(v)]
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])


def _key(name: str) -> str:
    """MLflow takes letters, digits, ``_-. /`` in metric names, at most 250 of them."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


def key_part(text: str) -> str:
    """Any text, a user's category say, as one part of a name that MLflow takes; a short digest stands for what is cut."""
    part = _key(text).replace("/", "_")
    if len(part) > _KEY_LENGTH // 2:
        part = f"{part[: _KEY_LENGTH // 2]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return part if part and posixpath.normpath(part) == part and part not in {".", ".."} else f"_{part}"


def _flattened(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name}.")
        else:
            yield name, value


def open_run(uri: str, experiment: str, run_name: str | None = None, artifacts: Path | None = None) -> Tracker:
    """Open a run that the caller is to end with ``end_run``.

    Args:
        uri: the tracking store.
        experiment: made when it is not there.
        run_name: shown in the list of runs.
        artifacts: where a new experiment keeps its files, for a SQLite store; by default beside the database, so that
            they live as long as it does. A server has its own place.

    Raises:
        RegistryError: if MLflow cannot be reached or refuses.
    """
    with mlflow_errors("opening a run", uri):
        client = client_for(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            beside = _database_folder(uri)
            place = (artifacts or beside / "mlartifacts").resolve().as_uri() if beside else None
            identifier = client.create_experiment(experiment, artifact_location=place)
        else:
            identifier = found.experiment_id
        run = client.create_run(identifier, run_name=run_name)
        return Tracker(client, run.info.run_id, uri)


def end_run(tracker: Tracker, *, failed: bool) -> None:
    """End a run that ``open_run`` opened."""
    with mlflow_errors("ending the run", tracker.uri):
        tracker.client.set_terminated(tracker.run_id, "FAILED" if failed else "FINISHED")


@contextmanager
def attach(uri: str, experiment: str, run_id: str = "", artifacts: Path | None = None) -> Iterator[Tracker]:
    """The run with this id, or of MLFLOW_RUN_ID, left open; else a new one that is ended here.

    Raises:
        RegistryError: if MLflow cannot be reached, or there is no such run.
    """
    given = run_id or os.environ.get("MLFLOW_RUN_ID", "")
    if given:
        with mlflow_errors(f"attaching to run {given}", uri):
            client = client_for(uri)
            client.get_run(given)
        yield Tracker(client, given, uri)
        return
    tracker = open_run(uri, experiment, artifacts=artifacts)
    try:
        yield tracker
    except BaseException:
        # what went wrong first is what the user must see, even when MLflow is gone too
        with suppress(RegistryError):
            end_run(tracker, failed=True)
        raise
    end_run(tracker, failed=False)
