"""MLflow tracking: attach to a run or open one, and log configuration, curves, measurements and records.

A run that was given (as an argument or as ``MLFLOW_RUN_ID``) is never ended here; its owner does that.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beear_core.errors import RegistryError
from beear_core.records import Environment, Estimate, EvaluationRecord, MitigationRecord, Record
from components.mlflow_access import (
    check_reachable,
    client_for,
    mlflow_errors,
    pointed_at,
    resolve_uri,
    without_password,
)

__all__ = [
    "Tracker",
    "attach",
    "check_reachable",
    "client_for",
    "end_run",
    "mlflow_errors",
    "open_run",
    "pointed_at",
    "resolve_uri",
    "without_password",
]

_BATCH = 900  # MLflow takes at most 1000 metrics a call
_SMALL_BATCH = 100  # and at most 100 parameters or tags
_PARAM_LENGTH = 500
_TAG_LENGTH = 4900
_MEASURED = (
    "delta_norm",
    "attack_under_delta",
    "attack_after",
    "attack_under_delta_after",
    "refusal_ordinary_after",
    "nll_ratio_after",
    "seconds",
)


class Tracker:
    """Logs to one run; every method raises ``RegistryError`` if MLflow fails."""

    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self.client, self.run_id, self.uri = client, run_id, uri

    def log_config(self, values: Mapping[str, Any]) -> None:
        """Nested values as parameters ``section.key``; passwords in URIs are left out."""
        from mlflow.entities import Param

        flat = {k: _shown(v)[:_PARAM_LENGTH] for k, v in _flattened(values) if v is not None}
        with mlflow_errors("logging parameters", self.uri):
            known = self.client.get_run(self.run_id).data.params
            # a parameter can be written once; logging again after a restart must not fail
            fresh = [Param(k, v) for k, v in flat.items() if k not in known]
            for start in range(0, len(fresh), _SMALL_BATCH):
                self.client.log_batch(self.run_id, params=fresh[start : start + _SMALL_BATCH])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, shortened to what MLflow takes."""
        from mlflow.entities import RunTag

        entries = [RunTag(k, v[:_TAG_LENGTH]) for k, v in tags.items()]
        with mlflow_errors("logging tags", self.uri):
            for start in range(0, len(entries), _SMALL_BATCH):
                self.client.log_batch(self.run_id, tags=entries[start : start + _SMALL_BATCH])

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
        inner = [loss for round_ in record.rounds for loss in round_.inner_loss]
        outer = [loss for round_ in record.rounds for loss in round_.outer_loss]
        points = [("train/inner_loss", loss, step) for step, loss in enumerate(inner)]
        points += [("train/outer_loss", loss, step) for step, loss in enumerate(outer)]
        for round_ in record.rounds:
            measured = {name: getattr(round_, name) for name in _MEASURED}
            points += [(f"round/{name}", value, round_.round) for name, value in measured.items() if value is not None]
        points.append(("mitigation/seconds", record.seconds, 0))
        points.append(("mitigation/peak_memory_bytes", float(record.peak_memory_bytes), 0))
        self._log(points)
        self.log_tags({"mitigation.outcome": record.outcome, "mitigation.reason": record.reason})

    def log_evaluation(self, record: EvaluationRecord) -> None:
        """Each metric as ``before/...`` or ``after/...``, categories below it.

        Beside a figure stand ``/low`` and ``/high`` of its interval, ``/n``, ``/unscored`` and, for a rate, ``/count``.
        """
        figures = {f"{record.label}/seconds": record.seconds}
        for name, metric in record.metrics.items():
            figures |= _figures(f"{record.label}/{name}", metric.overall)
            for category, estimate in metric.by_category.items():
                figures |= _figures(f"{record.label}/{name}/category/{category}", estimate)
        self._log([(key, value, 0) for key, value in figures.items()])

    def log_record(self, record: Record, name: str) -> None:
        """A record as the artifact ``records/<name>.json``."""
        with mlflow_errors(f"logging the record {name}", self.uri):
            self.client.log_text(self.run_id, record.to_json().decode(), f"records/{name}.json")

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A file as an artifact."""
        with mlflow_errors(f"logging {path.name}", self.uri):
            self.client.log_artifact(self.run_id, str(path), folder)

    def _log(self, points: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(k), v, now, step) for k, v, step in points if math.isfinite(v)]
        with mlflow_errors("logging metrics", self.uri):
            for start in range(0, len(metrics), _BATCH):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])


def _figures(key: str, estimate: Estimate) -> dict[str, float]:
    parts = {
        key: estimate.value,
        f"{key}/low": estimate.low,
        f"{key}/high": estimate.high,
        f"{key}/n": estimate.n,
        f"{key}/count": estimate.count,
        f"{key}/unscored": estimate.unscored,
    }
    return {name: float(value) for name, value in parts.items() if value is not None}


def _shown(value: Any) -> str:
    return without_password(value) if isinstance(value, str) else str(value)


def _key(name: str) -> str:
    """MLflow takes letters, digits, ``_-. /`` in metric names."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


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
        artifacts: where a new experiment keeps its files, for a store without a server; a server has its own place.

    Raises:
        RegistryError: if MLflow cannot be reached or refuses.
    """
    with mlflow_errors("opening a run", uri):
        client = client_for(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            place = artifacts.resolve().as_uri() if artifacts and uri.startswith("sqlite:") else None
            identifier = client.create_experiment(experiment, artifact_location=place)
        else:
            identifier = found.experiment_id
        run = client.create_run(identifier, run_name=run_name)
        return Tracker(client, run.info.run_id, uri)


def end_run(tracker: Tracker, *, failed: bool) -> None:
    """End a run that ``open_run`` opened.

    Raises:
        RegistryError: if MLflow fails; after a failure it is only printed, because the first error must be the one shown.
    """
    try:
        with mlflow_errors("ending the run", tracker.uri):
            tracker.client.set_terminated(tracker.run_id, "FAILED" if failed else "FINISHED")
    except RegistryError as error:
        if not failed:
            raise
        print(f"the run could not be marked as failed: {error}", file=sys.stderr)  # noqa: T201


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
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        end_run(tracker, failed=failed)
