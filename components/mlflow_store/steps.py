"""The MLflow run of a pipeline: found by Kubeflow's id, and in it how each step ended, with its log and its records."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from beear_core.errors import EvidenceError
from beear_core.records import StepStatus
from components.mlflow_store.client import check_port, client_for, mlflow_errors
from components.mlflow_store.tracking import RECORDS_FOLDER, Tracker, end_run, open_run

KFP_RUN = "beear.kfp_run_id"
OPENED = "beear.opened_by"
"""Tag of a run that a step of the pipeline opened, and its last step ends."""
LOGS = "logs"
"""Where a run keeps what the steps printed."""
_STEP = "beear.step."
_MESSAGE = 2000  # characters; a tag takes 5000, and quotes are doubled


def open_pipeline_run(uri: str, experiment: str, run_id: str, kfp_run_id: str, opened_by: str) -> Tracker:
    """Attach to the run that was given or that an earlier attempt opened, else open one; it bears Kubeflow's id.

    Args:
        uri: of MLflow.
        experiment: for a new run.
        run_id: of a run that is there; empty: none was given.
        kfp_run_id: of the pipeline's run.
        opened_by: noted with a new run.

    Raises:
        RegistryError: MLflow cannot be reached or refuses, or there is no such run.
    """
    tracker = find_pipeline_run(uri, experiment, run_id, kfp_run_id)
    if tracker is None:
        tags = {KFP_RUN: kfp_run_id, OPENED: opened_by}
        return open_run(uri, experiment, f"pipeline {kfp_run_id}", tags=tags)
    with mlflow_errors(f"attaching to run {tracker.run_id}", uri):
        tracker.log_tags({KFP_RUN: kfp_run_id})
        if OPENED in tracker.client.get_run(tracker.run_id).data.tags:
            # a pipeline that failed and is tried again goes on in its run
            tracker.client.update_run(tracker.run_id, status="RUNNING")
    return tracker


def find_pipeline_run(uri: str, experiment: str, run_id: str, kfp_run_id: str) -> Tracker | None:
    """Find the run by its id, else by Kubeflow's, else by MLFLOW_RUN_ID; ``None`` where there is none.

    Raises:
        RegistryError: MLflow cannot be reached, or there is no run with this id.
    """
    with mlflow_errors("looking for the pipeline's run", uri):
        check_port(uri)
        client = client_for(uri)
        if not run_id and kfp_run_id:
            found = client.get_experiment_by_name(experiment)
            wanted = f"tags.`{KFP_RUN}` = '{kfp_run_id.replace(chr(39), '')}'"
            order = ["attributes.start_time DESC"]
            runs = client.search_runs([found.experiment_id], wanted, max_results=1, order_by=order) if found else []
            run_id = runs[0].info.run_id if runs else ""
        run_id = run_id or os.environ.get("MLFLOW_RUN_ID", "")
        if not run_id:
            return None
        client.get_run(run_id)
        return Tracker(client, run_id, uri)


def note_step(uri: str, run_id: str, status: StepStatus, log: str = "", records: Mapping[str, Path] | None = None) -> None:
    """Leave in a run how a step is: first how it ended, then its records, then its log.

    Args:
        uri: of MLflow.
        run_id: of the run.
        status: replaces what was noted of this step.
        log: what it printed, without secrets; empty: nothing is left.
        records: files of its records by their names; those that were not written are passed over.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    with mlflow_errors(f"noting how {status.step} went", uri):
        check_port(uri)
        tracker = Tracker(client_for(uri), run_id, uri)
        shown = replace(status, message=status.message[:_MESSAGE])
        tracker.log_tags({f"{_STEP}{status.step}": shown.to_json().decode()})
        for name, path in (records or {}).items():
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                tracker.client.log_text(run_id, text, f"{RECORDS_FOLDER}/{name}.json")
        if log:
            tracker.client.log_text(run_id, log, f"{LOGS}/{status.step}.log")


def noted_steps(tracker: Tracker) -> tuple[StepStatus, ...]:
    """Read how the steps of a run are, in the order in which they began.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    with mlflow_errors("reading how the steps went", tracker.uri):
        tags = tracker.client.get_run(tracker.run_id).data.tags
    found = []
    for name, value in tags.items():
        if name.startswith(_STEP):
            try:
                found.append(StepStatus.parse(value.encode(), name))
            except EvidenceError:
                # somebody else's tag: nothing depends on it
                continue
    return tuple(sorted(found, key=lambda step: step.began))


def files_of(tracker: Tracker, folder: str = "") -> dict[str, bytes]:
    """Read the files that a run keeps in a folder of its artifacts, not those below; by name.

    Raises:
        RegistryError: MLflow or its artifacts cannot be reached.
    """
    with mlflow_errors(f"reading the files of run {tracker.run_id}", tracker.uri), tempfile.TemporaryDirectory() as place:
        listed = [item.path for item in tracker.client.list_artifacts(tracker.run_id, folder or None) if not item.is_dir]
        found = {}
        for path in listed:
            file = Path(tracker.client.download_artifacts(tracker.run_id, path, place))
            found[path.rpartition("/")[2]] = file.read_bytes()
        return found


def end_pipeline_run(tracker: Tracker, *, failed: bool) -> None:
    """End a run that a step of the pipeline opened; one that was given stays as it is.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    with mlflow_errors("ending the run", tracker.uri):
        if OPENED in tracker.client.get_run(tracker.run_id).data.tags:
            end_run(tracker, failed=failed)
