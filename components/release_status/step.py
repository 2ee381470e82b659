"""Leave how a run of the pipeline ended, whether it ended well or not, where people look: in MLflow and with the artifacts.

It runs last and whatever happened, and is told by Kubeflow only whether the rest failed. Which step failed and why is read
from the MLflow run, where each step says how it began and ended: one that began and says nothing more was killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from beear_core.config import ArtifactsConfig, RegistryConfig, parse_json
from beear_core.errors import BeearError, ConfigError, EvidenceError, StorageError
from beear_core.evidence import RECORDS
from beear_core.files import write_atomically
from beear_core.progress import say, warn
from beear_core.records import Record, ReleaseRecord, RunState, StatusRecord, StepStatus
from beear_core.report import render_status
from components.face import ERROR_FILE, left_error
from components.mlflow_store.client import mlflow_errors, required_uri
from components.mlflow_store.steps import (
    LOGS,
    end_pipeline_run,
    files_of,
    find_pipeline_run,
    noted_steps,
    open_pipeline_run,
)
from components.mlflow_store.tracking import RECORDS_FOLDER, Tracker
from components.notifications.tell import tell_run_failed
from components.storage.artifacts import ArtifactStore

REPORT, STATUS, STATUS_PAGE = "report.html", "status.json", "status.html"
_WELL = frozenset({"SUCCEEDED", "COMPLETE", "COMPLETED"})
_CANCELED = frozenset({"CANCELED", "CANCELLED"})
_KILLED = (
    "it began and was ended from outside before it could say why: most often it ran out of memory, or its pod was deleted; "
    "look at its log and events in Kubernetes, or at the end of steps.log"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """What Kubeflow says of all steps but this one: its word for the state, and a message."""

    state: str
    message: str = ""


@dataclass
class _Found:
    """What the run in MLflow holds; empty where it cannot be reached."""

    tracker: Tracker | None = None
    steps: tuple[StepStatus, ...] = ()
    began: str = ""
    records: dict[str, bytes] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    report: bytes | None = None


def run(
    ended: Ended, registry_json: str, artifacts_json: str, page: Path, *, mlflow_run_id: str = "", kfp_run_id: str = ""
) -> StatusRecord:
    """Leave status, report and logs of a run that ended, and tell people where it failed.

    Args:
        ended: what Kubeflow says.
        registry_json: the registry section of the configuration; what cannot be read names no place.
        artifacts_json: the artifacts section, likewise.
        page: file for the page about the run.
        mlflow_run_id: that was given to the pipeline; empty: the run is found by the next.
        kfp_run_id: of the pipeline's run.

    Raises:
        StorageError: nothing could be left anywhere.
    """
    troubles: list[str] = []
    found = _Found()
    registry = _registry(registry_json)
    _attempt(troubles, "MLflow's run was not read", lambda: _look(found, registry, mlflow_run_id, kfp_run_id))
    status = _status(ended, found, kfp_run_id, mlflow_run_id)
    html = render_status(status, _parsed(found.records)).encode()
    write_atomically(page, html)
    say(_line(status))
    files = {STATUS: status.to_json(), STATUS_PAGE: html}
    if found.report is None:
        files[REPORT] = html
    left = []
    if (tracker := found.tracker) is not None and _attempt(
        troubles, "nothing was left in MLflow", lambda: _leave(tracker, files, status)
    ):
        left.append(f"MLflow run {tracker.run_id}")
    place = _place(troubles, artifacts_json)
    if place is not None:
        where = place.run(kfp_run_id, status.mlflow_run_id)
        more = {f"{LOGS}/{name}": log for name, log in found.logs.items()}
        more |= {REPORT: found.report} if found.report is not None else {}
        own = status.mlflow_run_id
        if _attempt(troubles, f"nothing was left in {where}", lambda: place.put_run(kfp_run_id, own, {**files, **more})):
            left.append(where)
    if ERROR_FILE not in os.environ:
        # whoever asked for a step's error in a file, as a local release does, tells of it
        tell_run_failed(status, registry)
    if not left:
        raise StorageError(f"how the run ended could be left nowhere: {'; '.join(troubles) or 'no place is named'}")
    say(f"status, report and logs are in {' and '.join(left)}")
    return status


def _attempt(troubles: list[str], what: str, do: Callable[[], None]) -> bool:
    """Do something that must not keep the rest from being done; what goes wrong is a warning."""
    try:
        do()
    except BeearError as error:
        warn(f"{what}: {error}")
        troubles.append(f"{what}: {error}")
        return False
    return True


def _registry(registry_json: str) -> RegistryConfig:
    try:
        return parse_json(RegistryConfig, registry_json, "registry configuration")
    except ConfigError:
        # the pre-flight said so; MLFLOW_TRACKING_URI may name MLflow all the same
        return RegistryConfig()


def _look(found: _Found, registry: RegistryConfig, mlflow_run_id: str, kfp_run_id: str) -> None:
    uri = required_uri(registry.tracking_uri)
    tracker = find_pipeline_run(uri, registry.experiment, mlflow_run_id, kfp_run_id)
    if tracker is None:
        # the pre-flight did not get so far
        tracker = open_pipeline_run(uri, registry.experiment, mlflow_run_id, kfp_run_id, "release_status")
    found.tracker = tracker
    with mlflow_errors("reading the run", uri):
        started = tracker.client.get_run(tracker.run_id).info.start_time
    found.began = datetime.fromtimestamp(started / 1000, UTC).isoformat(timespec="milliseconds")
    found.steps = noted_steps(tracker)
    found.records = files_of(tracker, RECORDS_FOLDER)
    found.logs = files_of(tracker, LOGS)
    found.report = files_of(tracker).get(REPORT) if _release(found.records) else None


def _status(ended: Ended, found: _Found, kfp_run_id: str, mlflow_run_id: str) -> StatusRecord:
    told = _with_left_error(found.steps)
    state = _state(ended, told)
    # where all is well, what is still open could only not say that it ended
    steps = tuple(_closed(step, well=state == "succeeded") for step in told)
    error = message = name = ""
    if state != "succeeded":
        failed = sorted((s for s in steps if s.state == "failed"), key=lambda s: s.ended)
        for first in (failed or [s for s in steps if s.state == "broken off"])[:1]:
            name, error, message = first.step, first.error, first.message
    if state == "failed" and not message:
        message = f"no step says why; Kubeflow says: {ended.message or ended.state}"
    release = _release(found.records)
    return StatusRecord(
        state=state,
        failed_step=name,
        error=error,
        message=message,
        outcome=release.outcome if release else "",
        decision_digest=release.decision_digest if release else "",
        kfp_run_id=kfp_run_id,
        mlflow_run_id=found.tracker.run_id if found.tracker else mlflow_run_id,
        began=found.began,
        ended=_now(),
        steps=steps,
    )


def _with_left_error(steps: tuple[StepStatus, ...]) -> tuple[StepStatus, ...]:
    """Add what a step left for whoever started the process, where it could not tell MLflow."""
    left = left_error()
    if left is None or any(step.state == "failed" for step in steps):
        return steps
    name = str(left.get("step") or "unknown")
    began = next((step.began for step in steps if step.step == name), "")
    one = StepStatus(
        step=name,
        state="failed",
        began=began or _now(),
        ended=_now(),
        error=str(left.get("error", "")),
        message=str(left.get("message", "")),
        exit_code=int(left.get("exit_code", 1)),
    )
    return (*(step for step in steps if step.step != name), one)


def _closed(step: StepStatus, *, well: bool) -> StepStatus:
    if step.state != "running":
        return step
    return replace(step, state="done") if well else replace(step, state="broken off", message=_KILLED)


def _state(ended: Ended, steps: tuple[StepStatus, ...]) -> RunState:
    """Tell the state; Kubeflow's word for what has just ended can still be RUNNING, and then what the steps say counts."""
    word, states = ended.state.upper(), {step.state for step in steps}
    if word in _CANCELED:
        return "canceled"
    if "failed" in states or word == "FAILED":
        return "failed"
    return "succeeded" if word in _WELL or "running" not in states else "failed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _release(records: Mapping[str, bytes]) -> ReleaseRecord | None:
    try:
        return ReleaseRecord.parse(records["release.json"])
    except (KeyError, EvidenceError):
        return None


def _parsed(records: Mapping[str, bytes]) -> dict[str, Record]:
    """Read the records that are there and valid; a page about a failure shows what there is."""
    read = {}
    for name, kind in RECORDS.items():
        try:
            read[name] = kind.parse(records[f"{name}.json"])
        except (KeyError, EvidenceError):
            continue
    return read


def _leave(tracker: Tracker, files: Mapping[str, bytes], status: StatusRecord) -> None:
    with mlflow_errors("leaving how the run ended", tracker.uri):
        for name, data in files.items():
            tracker.client.log_text(tracker.run_id, data.decode(), name)
        tracker.log_tags({"beear.state": status.state, "beear.failed_step": status.failed_step or "none"})
    end_pipeline_run(tracker, failed=status.state != "succeeded")


def _place(troubles: list[str], artifacts_json: str) -> ArtifactStore | None:
    try:
        return ArtifactStore.of(parse_json(ArtifactsConfig, artifacts_json, "artifacts configuration"))
    except ConfigError as error:
        troubles.append(str(error))
        return None


def _line(status: StatusRecord) -> str:
    where = f" in {status.failed_step}" if status.failed_step else ""
    return f"the run {status.state}{where}{f'; the model was decided on: {status.outcome}' if status.outcome else ''}"


def run_component(
    *,
    state: str,
    message: str,
    registry_json: str,
    artifacts_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
    page: str,
) -> None:
    """Run the step as its Kubeflow face calls it."""
    ended = Ended(state, message)
    run(ended, registry_json, artifacts_json, Path(page), mlflow_run_id=mlflow_run_id, kfp_run_id=kfp_run_id)
