"""MLflow tracking: attach to a run or open one, and log configuration, curves, measurements and records.

A run that was given (as an argument or as ``MLFLOW_RUN_ID``) is never ended here; its owner does that.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from beear_core.errors import RegistryError
from beear_core.records import Environment, EvaluationRecord, MitigationRecord, Record
from components.mlflow_store.client import client_for, database_folder, mlflow_errors

_KEY_LENGTH = 240  # MLflow takes 250, and a part like "/high" comes behind
_BATCH = 900  # MLflow takes at most 1000 metrics a call
_PARAM_LENGTH = 500
_TAG_LENGTH = 7900  # a run's; MLflow takes 8000
RECORDS_FOLDER = "records"
"""Where a run keeps its records."""


class Tracker:
    """Logs to one run."""

    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self.client, self.run_id, self.uri = client, run_id, uri

    def log_config(self, values: Mapping[str, Any]) -> None:
        """Log nested values as parameters ``section.key``."""
        from mlflow.entities import Param

        flat = {k: str(v)[:_PARAM_LENGTH] for k, v in _flattened(values) if v is not None}
        known = self.client.get_run(self.run_id).data.params
        # a parameter can be written once; logging again after a restart must not fail
        fresh = [Param(k, v) for k, v in flat.items() if k not in known]
        for start in range(0, len(fresh), 100):
            self.client.log_batch(self.run_id, params=fresh[start : start + 100])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run; values are shortened to what MLflow takes."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(k, v[:_TAG_LENGTH]) for k, v in tags.items()])

    def log_environment(self, environment: Environment) -> None:
        """Log where the step ran, as tags ``system.*``."""
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
        """Log the training curve step by step (``train/inner_loss``, ``train/outer_loss``), the measures by round."""
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
        """Log each metric as ``before/...`` or ``after/...`` with ``/low``, ``/high``, ``/n``, ``/unscored``.

        Categories and triggers go below it, as ``/category/...`` and ``/trigger/...``.
        """
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
        """Log a record as the artifact ``records/<name>.json``."""
        self.client.log_text(self.run_id, record.to_json().decode(), f"{RECORDS_FOLDER}/{name}.json")

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def _log(self, points: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(k), v, now, step) for k, v, step in points if math.isfinite(v)]
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])


def _key(name: str) -> str:
    """Replace what MLflow does not take in a metric name: it takes letters, digits, ``_-. /``, at most 250 of them."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


def key_part(text: str) -> str:
    """Turn any text, such as a user's category, into one part of an MLflow name; a short digest stands for what is cut."""
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


def open_run(
    uri: str,
    experiment: str,
    run_name: str | None = None,
    artifacts: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> Tracker:
    """Open a run that the caller is to end with ``end_run``.

    Args:
        uri: the tracking store.
        experiment: made when it is not there.
        run_name: shown in the list of runs.
        artifacts: where a new experiment keeps its files, for a SQLite store; by default beside the database, so that
            they live as long as it does. A server has its own place.
        tags: that it has from the start.

    Raises:
        RegistryError: if MLflow cannot be reached or refuses.
    """
    with mlflow_errors("opening a run", uri):
        client = client_for(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            beside = database_folder(uri)
            place = (artifacts or beside / "mlartifacts").resolve().as_uri() if beside else None
            identifier = client.create_experiment(experiment, artifact_location=place)
        else:
            identifier = found.experiment_id
        run = client.create_run(identifier, run_name=run_name, tags=dict(tags or {}))
        return Tracker(client, run.info.run_id, uri)


def end_run(tracker: Tracker, *, failed: bool) -> None:
    """End a run that ``open_run`` opened."""
    with mlflow_errors("ending the run", tracker.uri):
        tracker.client.set_terminated(tracker.run_id, "FAILED" if failed else "FINISHED")


@contextmanager
def attach(uri: str, experiment: str, run_id: str = "", artifacts: Path | None = None) -> Iterator[Tracker]:
    """Attach to the run with this id, or of MLFLOW_RUN_ID, and leave it open; else open a new one and end it here.

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
