"""A run on a cluster: sent, followed to its end, and what the gate said of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from beear_core.config import PromotionConfig, RegistryConfig
from beear_core.errors import ConfigError, KubeflowError, RegistryError
from beear_core.progress import say, warn
from components.mlflow_store.client import check_reachable
from components.mlflow_store.fates import NOT_PROMOTED, UNCLEAR, fates
from pipelines.kubeflow.connection import PAGE, Connection
from pipelines.kubeflow.package import Package

POLL_S = 15.0
PATIENCE_S = 600.0
"""How long a run is asked for again where Kubeflow does not answer."""
SUCCEEDED = "SUCCEEDED"
_ENDED = frozenset({SUCCEEDED, "FAILED", "SKIPPED", "CANCELED"})


@dataclass(frozen=True, slots=True)
class Gate:
    """Where it is written what the gates of runs said: MLflow, and the model's name and aliases there."""

    uri: str
    registry: RegistryConfig
    promotion: PromotionConfig

    def fates(self) -> dict[str, str]:
        """Tell what became of every run that registered a version."""
        return fates(self.uri, self.registry, self.promotion)


def gate_of(registry: RegistryConfig, promotion: PromotionConfig) -> Gate | None:
    """Find the registry as it is reached from here; ``None`` where none is named."""
    # a configuration names it as pods reach it
    uri = os.environ.get("MLFLOW_TRACKING_URI") or registry.tracking_uri
    return Gate(uri, registry, promotion) if uri else None


def gate_to_wait_for(registry: RegistryConfig, promotion: PromotionConfig) -> Gate:
    """Find the registry and make sure that it answers, before a run is begun whose verdict nobody could read.

    Raises:
        ConfigError: none is named.
        RegistryError: it does not answer.
    """
    gate = gate_of(registry, promotion)
    if gate is None:
        raise ConfigError(
            "--wait has no MLflow to read the verdict from, and a run of Kubeflow does not show it; set "
            "MLFLOW_TRACKING_URI, or registry.tracking_uri in the configuration"
        )
    check_reachable(gate.uri)
    return gate


def submit(connection: Connection, sent: Package, experiment: str) -> str:
    """Start a run; returns its id."""
    experiment_id = connection.experiment(experiment)
    name = f"beear-release {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    with sent.file() as path:
        run = connection.ask(
            connection.client.run_pipeline,
            experiment_id,
            name,
            pipeline_package_path=path,
            params=sent.parameters,
            enable_caching=False,
            service_account=sent.service_account,
        )
    if not run.run_id:
        raise KubeflowError(
            f"Kubeflow Pipelines at {connection.host} took the run {name!r} and gave no id; look for it there"
        )
    return str(run.run_id)


def follow(connection: Connection, run_id: str, tasks: Mapping[str, str]) -> Any:
    """Wait for a run's end and show how far it is; what passes is waited for.

    Args:
        connection: to Kubeflow.
        run_id: of the run.
        tasks: names under which tasks may be told of -> the task.

    Raises:
        KubeflowError: it refuses, or does not answer for too long; the run goes on.
    """
    began = heard = time.monotonic()
    shown = ""
    while True:
        try:
            run = connection.ask(connection.client.get_run, run_id)
            heard = time.monotonic()
        except KubeflowError as error:
            if not error.passing or time.monotonic() - heard > PATIENCE_S:
                raise KubeflowError(f"run {run_id} goes on, and is not followed any more: {error}") from error
            warn(f"{error}. Run {run_id} is asked for again")
        else:
            text = f"{_state(run).lower()}: {_counts(run, tasks)}"
            if text != shown:
                minutes, seconds = divmod(int(heard - began), 60)
                say(f"[{minutes}:{seconds:02d}] {text}")
                shown = text
            if _state(run) in _ENDED:
                return run
        time.sleep(POLL_S)


def verdict_of(run: Any, gate: Gate, tasks: Mapping[str, str], url: str) -> str:
    """Tell what the gate said of a run that ended.

    The state alone tells nothing: a refusal is a value and no failure, and a step that failed and was tried again leaves a
    run that succeeded. What counts is the version that carries the run's id.

    Raises:
        KubeflowError: the run did not succeed, or it cannot be told.
    """
    if _state(run) != SUCCEEDED:
        failed = [_failed(task, tasks) for task in _tasks(run) if task.state == "FAILED" and task.display_name in tasks]
        why = "; ".join(failed) or (run.error.message if run.error and run.error.message else "no step says why")
        raise KubeflowError(f"run {run.run_id} ended as {_state(run)}: {why}. {_registered(run, gate)}; see {url}")
    try:
        fate = gate.fates().get(run.run_id)
    except RegistryError as error:
        raise KubeflowError(f"run {run.run_id} succeeded, and what its gate said cannot be told: {error}") from error
    if fate is None or fate in {UNCLEAR, NOT_PROMOTED}:
        found = f"has {fate}" if fate == UNCLEAR else f"says: {fate}" if fate else "has no version"
        raise KubeflowError(
            f"run {run.run_id} succeeded, and what its gate said cannot be told: {gate.registry.model_name} in MLflow "
            f"{found} for this run; look at the report in {url}, and whether MLFLOW_TRACKING_URI names the cluster's MLflow"
        )
    return fate


def _registered(run: Any, gate: Gate) -> str:
    try:
        fate = gate.fates().get(run.run_id)
    except RegistryError as error:
        return f"Whether it registered a version cannot be told ({error})"
    return f"Yet it registered a version: {fate}" if fate else "It registered no version"


def runs(connection: Connection, experiment: str | None, limit: int) -> list[Any]:
    """List runs, newest first.

    Raises:
        ConfigError: there is no such experiment.
        KubeflowError: it cannot be reached or refuses.
    """
    given: dict[str, Any] = {"namespace": connection.namespace}
    if experiment:
        given = {"experiment_id": connection.known_experiment(experiment)}
    listed: list[Any] = []
    token = ""
    while len(listed) < limit:
        size = min(PAGE, limit - len(listed))
        call = connection.client.list_runs
        page = connection.ask(call, page_token=token, page_size=size, sort_by="created_at desc", **given)
        listed += page.runs or []
        token = page.next_page_token or ""
        if not token:
            break
    return listed[:limit]


def _state(run: Any) -> str:
    return str(run.state or "PENDING")


def _tasks(run: Any) -> list[Any]:
    return (run.run_details.task_details or []) if run.run_details else []


def _counts(run: Any, tasks: Mapping[str, str]) -> str:
    """Count tasks by state; what Kubeflow puts around them is left out."""
    states = dict.fromkeys(tasks.values(), "PENDING")
    states |= {tasks[t.display_name]: str(t.state or "PENDING") for t in _tasks(run) if t.display_name in tasks}
    return ", ".join(f"{n} {state.lower()}" for state, n in sorted(Counter(states.values()).items()))


def _failed(task: Any, tasks: Mapping[str, str]) -> str:
    said = task.error.message if task.error and task.error.message else "see its log"
    return f"{tasks[task.display_name]} failed ({said})"
