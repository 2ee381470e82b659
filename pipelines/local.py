"""Run the release pipeline on this machine, in KFP's local runner, one process a step."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from beear_core.config import ReleaseConfig
from beear_core.errors import BeearError, EvidenceError
from beear_core.evidence import Evidence
from beear_core.records import Decision, ReleaseRecord
from components.face import ERROR_FILE, StepFailedError, read_failure
from components.work import CHECKPOINTS, WORK
from pipelines.step_log import StepLog

STEPS = 10
MODEL_FOLDERS = ("model-intake/model", "beear-mitigation/cleaned")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a release left what it found, and what the gate said."""

    folder: Path
    decision: Decision
    release: ReleaseRecord
    evidence: Evidence


def arguments(config: ReleaseConfig, policy_text: str, mlflow_run_id: str) -> dict[str, str]:
    """Turn the configuration into the pipeline's parameters."""
    return {
        "model_uri": config.model,
        "data_json": json.dumps(dataclasses.asdict(config.data)),
        "mitigation_json": json.dumps(dataclasses.asdict(config.mitigation)),
        "evaluation_json": json.dumps(dataclasses.asdict(config.evaluation)),
        "policy": policy_text,
        "registry_json": json.dumps(dataclasses.asdict(config.registry)),
        "promotion_json": json.dumps(dataclasses.asdict(config.promotion)),
        "artifacts_json": json.dumps(dataclasses.asdict(config.artifacts)),
        "mlflow_run_id": mlflow_run_id,
    }


def run_release(config: ReleaseConfig, policy_text: str, folder: Path, mlflow_run_id: str, *, keep: bool) -> Outcome:
    """Run every step and collect what they left.

    Args:
        config: the whole configuration; paths in it absolute.
        policy_text: a shipped policy's name, or the text of a policy file.
        folder: of this run; the records, the report and the samples stay there.
        mlflow_run_id: the run to log to.
        keep: keep the working copies of the models too.

    Raises:
        StepFailedError: with the message and exit code of the step that failed.
    """
    from kfp import local

    from pipelines.release import release_pipeline

    work = folder / "steps"
    error_file = folder / "error.json"
    error_file.unlink(missing_ok=True)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(work),
        workspace_root=str(folder / "workspace"),
        raise_on_error=True,
    )
    with (
        _root_logger_kept(),
        _environment(**{ERROR_FILE: str(error_file)}, **_work(folder), **_offline(config), **_mlflow(config)),
        closing(StepLog(folder / "steps.log", STEPS)) as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            release_pipeline(**arguments(config, policy_text, mlflow_run_id))
        except RuntimeError as error:
            _take_decision(work, folder)
            raise _failure(error_file, folder / "steps.log") from error
        finally:
            shutil.rmtree(folder / "workspace", ignore_errors=True)
    outcome = _collect(work, folder)
    if not keep:
        for pattern in MODEL_FOLDERS:
            for model in work.glob(f"*/{pattern}"):
                shutil.rmtree(model, ignore_errors=True)
    return outcome


def _failure(error_file: Path, log: Path) -> BeearError:
    silent = StepFailedError(f"a step failed without a message of its own; its whole output is in {log}", 1)
    return read_failure(error_file) or silent


def _collect(work: Path, folder: Path) -> Outcome:
    if not _take_decision(work, folder):
        raise EvidenceError(f"the pipeline ended without a decision below {work}; nothing was promoted")
    return read_outcome(folder)


def _take_decision(work: Path, folder: Path) -> bool:
    """Copy decision, report and status out of the steps' folders; tells whether there is a decision."""
    for page in work.glob("*/release-status/page"):
        shutil.copy2(page, folder / "status.html")
    found = sorted(work.glob("*/registry-gate/decision"))
    for item in found[-1].iterdir() if found else ():
        target = folder / item.name
        if item.is_dir():
            shutil.copytree(item, target, dirs_exist_ok=True)
        else:
            shutil.copy2(item, target)
    return bool(found)


def read_outcome(folder: Path) -> Outcome:
    """Read back what a run left in its folder.

    Raises:
        EvidenceError: if a record is missing or not valid.
    """
    return Outcome(
        folder=folder,
        decision=Decision.read(folder / "decision.json"),
        release=ReleaseRecord.read(folder / "release.json"),
        evidence=Evidence.read(folder / "evidence"),
    )


def _offline(config: ReleaseConfig) -> dict[str, str]:
    """Keep every step from asking the hub for anything, unless the user named something that is there."""
    sources = (config.model, *dataclasses.asdict(config.data).values())
    named = any(str(source).startswith("hub:") for source in sources)
    return {} if named or "HF_HUB_OFFLINE" in os.environ else {"HF_HUB_OFFLINE": "1"}


def _work(folder: Path) -> dict[str, str]:
    """Name what outlives a step, and what outlives a run: a mitigation that was killed is gone on with by the next one."""
    return {WORK: str(folder / "work"), CHECKPOINTS: os.environ.get(CHECKPOINTS) or str(folder.parent / ".work")}


def _mlflow(config: ReleaseConfig) -> dict[str, str]:
    """Name the store of this run to the steps that fetch from it; one that the environment names stays."""
    return {"MLFLOW_TRACKING_URI": config.registry.tracking_uri} if config.registry.tracking_uri else {}


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what KFP leaves: a root handler that writes into this run's log, which every later warning would find closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables that the steps inherit, for as long as they run."""
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "TOKENIZERS_PARALLELISM": "false",
    }
    wanted = {k: v for k, v in defaults.items() if k not in os.environ} | values
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
