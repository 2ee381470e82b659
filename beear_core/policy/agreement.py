"""Do two evaluations agree in what they asked, how replies were made, and how they were judged?

The chat template is not among it: it is part of a model, and measuring that model again would not change it. Nor is the
suite under drift: perturbations are found anew on every candidate, so no two releases share the same ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from beear_core.evaluation.metrics import METRICS
from beear_core.policy.figures import figure_faults
from beear_core.records import EvaluationRecord
from beear_core.wording import percent_text

_REPLIES_DEPEND_ON = ("torch", "transformers")


def champion_faults(champion: EvaluationRecord, after: EvaluationRecord) -> list[str]:
    """Find what keeps measurements of the champion from being compared with those of the model that is decided on."""
    roles = ("champion", "after")
    folders = (champion.suites_digest, after.suites_digest)
    other = f"the champion was evaluated on suites {folders[0] or 'unknown'}, after on {folders[1] or 'unknown'}"
    return [
        *([] if folders[0] == folders[1] else [other]),
        *figure_faults(champion, "champion"),
        *suite_faults(_without_drift(champion), _without_drift(after), *roles),
        *judge_faults(champion, after, *roles),
        *generation_faults(champion, after, *roles),
    ]


def measured_otherwise(champion: EvaluationRecord, after: EvaluationRecord) -> list[str]:
    """Find why stored measurements of the champion are to be made anew; empty where they can be taken as they are.

    More than ``champion_faults``, by what measuring anew would mend: the releases of this project and of the libraries
    that replies depend on, and the confidence of the intervals. Not the device: that is for the cluster to choose.
    """
    faults = champion_faults(champion, after)
    for name, old, new in (
        ("beear-gate", champion.environment.code_version, after.environment.code_version),
        *((n, *(r.environment.versions.get(n, "absent") for r in (champion, after))) for n in _REPLIES_DEPEND_ON),
    ):
        if old != new:
            faults.append(f"{name} is {old} in 'champion', {new} in 'after'")
    old, new = _confidence(champion), _confidence(after)
    return faults if old == new else [*faults, f"intervals are at {old} confidence in 'champion', {new} in 'after'"]


def suite_faults(one: EvaluationRecord, two: EvaluationRecord, first: str, second: str) -> list[str]:
    """Find suites that were run in one evaluation alone, or on other prompts."""
    faults = [] if two.suites else [f"the {second!r} evaluation ran no suite"]
    for name in sorted(one.suites.keys() | two.suites.keys()):
        a, b = one.suites.get(name), two.suites.get(name)
        if a is None or b is None:
            faults.append(f"suite {name} was run only in the {(second if a is None else first)!r} evaluation")
        elif a != b:
            faults.append(f"suite {name} is {a.digest} (n={a.n}) in {first!r}, {b.digest} (n={b.n}) in {second!r}")
    return faults


def judge_faults(one: EvaluationRecord, two: EvaluationRecord, first: str, second: str) -> list[str]:
    """Find another judge."""
    return [] if one.judge == two.judge else [f"the judge is {one.judge!r} in {first!r}, {two.judge!r} in {second!r}"]


def generation_faults(one: EvaluationRecord, two: EvaluationRecord, first: str, second: str) -> list[str]:
    """Find settings of generation that differ, or that only one evaluation names."""
    a: Mapping[str, Any] = one.generation
    b: Mapping[str, Any] = two.generation
    return [
        f"generation setting {key} is {a.get(key, 'absent')} in {first!r}, {b.get(key, 'absent')} in {second!r}"
        for key in sorted(a.keys() | b.keys())
        if (key in a, a.get(key)) != (key in b, b.get(key))
    ]


def _without_drift(record: EvaluationRecord) -> EvaluationRecord:
    return dataclasses.replace(record, suites={name: entry for name, entry in record.suites.items() if name != "drift"})


def _confidence(record: EvaluationRecord) -> str:
    """Tell the confidence of the figures that both models have; those of fidelity the champion need not."""
    names = [name for name, spec in METRICS.items() if name in record.metrics and not spec.against_reference]
    found = {record.metrics[name].overall.confidence for name in names}
    return ", ".join(percent_text(c) for c in sorted(found)) or "no"
