"""Which judge a configuration names."""

from __future__ import annotations

from beear_core.config import JudgeName
from beear_core.evaluation.code_judge import InsecureCodeJudge
from beear_core.evaluation.judges import Judge, RefusalJudge

_JUDGES: dict[JudgeName, type[Judge]] = {"refusal": RefusalJudge, "insecure-code": InsecureCodeJudge}


def judge_named(name: JudgeName) -> Judge:
    """Build the judge of replies to harmful requests."""
    return _JUDGES[name]()
