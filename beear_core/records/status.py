"""How a run of the pipeline ended: which step failed and why, what was decided, when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beear_core.records.record import Record

StepState = Literal["running", "done", "failed", "broken off"]
RunState = Literal["succeeded", "failed", "canceled"]


@dataclass(frozen=True, kw_only=True)
class StepStatus(Record):
    """How one step is or ended, as it says itself.

    ``broken off``: it began, and was ended from outside before it could say anything. ``began``, ``ended``: in UTC, ISO
    8601. ``error``: the kind of error, ``exit_code`` that of the step.
    """

    kind: Literal["step"] = "step"
    step: str
    state: StepState
    began: str
    ended: str = ""
    error: str = ""
    message: str = ""
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class StatusRecord(Record):
    """How a run of the pipeline ended.

    ``failed_step``, ``error``, ``message``: of the step that failed first, empty where none did or none says so.
    ``outcome``: promoted, awaiting approval or refused; empty where nothing was decided. ``steps``: those that began, in
    that order; a step that could not reach MLflow is missing.
    """

    kind: Literal["status"] = "status"
    state: RunState
    failed_step: str = ""
    error: str = ""
    message: str = ""
    outcome: str = ""
    decision_digest: str = ""
    kfp_run_id: str = ""
    mlflow_run_id: str = ""
    began: str = ""
    ended: str = ""
    steps: tuple[StepStatus, ...] = ()
