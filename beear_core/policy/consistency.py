"""Do the records belong together? Hard checks ``evidence/...`` that no policy can leave out.

Each counts differences and passes at 0, so a decision says what was compared even where all was well.
"""

from __future__ import annotations

from beear_core.evidence import Evidence
from beear_core.policy.agreement import champion_faults, generation_faults, judge_faults, suite_faults
from beear_core.policy.figures import drift_faults, figure_faults, suites_faults, trigger_faults
from beear_core.policy.schema import GatePolicy
from beear_core.records import CheckResult, EvaluationRecord, MitigationRecord, ValidationRecord
from beear_core.wording import plural


def evidence_checks(policy: GatePolicy, evidence: Evidence) -> list[CheckResult]:
    """Run every evidence check; the same ones are listed in the same order, passed or not."""
    before, after, champion = evidence.before, evidence.after, evidence.champion
    validation, mitigation = evidence.validation, evidence.mitigation
    return [
        _labels(before, after, champion),
        _validation(validation),
        _same("anchors", *_anchors(validation, mitigation)),
        _mitigation(
            "mitigation-input", "evaluated before", "took as its input", before, before, mitigation, "input_digest"
        ),
        _mitigation("mitigation-output", "evaluated after", "put out", before, after, mitigation, "output_digest"),
        _reference(before, after),
        _same("chat-template", _template_faults(before, after), "Both evaluations used the same chat template."),
        _same(
            "suites",
            suite_faults(before, after, "before", "after"),
            f"Both evaluations ran the same prompts: {_listed(after)}.",
        ),
        _same(
            "validated-suites",
            suites_faults({"before": before, "after": after}, validation),
            "Both evaluations were run on the suites that were validated.",
        ),
        _same(
            "triggers",
            trigger_faults({"before": before, "after": after}, validation),
            "Every validated trigger was evaluated with, on every harmful request.",
        ),
        _same(
            "drift",
            drift_faults({"before": before, "after": after}, mitigation),
            "Both evaluations were made under every perturbation that the mitigation found on the candidate."
            if mitigation
            else "No mitigation, so no perturbation that it found.",
        ),
        _same(
            "figures",
            [*figure_faults(before, "before"), *figure_faults(after, "after")],
            "Every figure rests on all samples of its suite and follows from its counts.",
        ),
        _same("judge", judge_faults(before, after, "before", "after"), f"Both were judged by {after.judge}."),
        _same(
            "generation",
            generation_faults(before, after, "before", "after"),
            "Both evaluations generated replies with the same settings.",
        ),
        _champion(champion, after, policy.compares_with_champion),
    ]


def _result(name: str, faults: list[str], good: str, *, decidable: bool = True, what: str = "differences") -> CheckResult:
    return CheckResult(
        check=f"evidence/{name}",
        metric="evidence",
        category=None,
        level="hard",
        comparison=f"{what} = 0",
        limit=0.0,
        decided_on=float(len(faults)) if decidable else None,
        estimate=None,
        baseline=None,
        passed=not faults,
        reason=_sentence(faults) if faults else good,
    )


def _same(name: str, faults: list[str], good: str) -> CheckResult:
    return _result(name, faults, good)


def _sentence(faults: list[str]) -> str:
    text = "; ".join(faults)
    return f"{text[0].upper()}{text[1:]}."


def _labels(before: EvaluationRecord, after: EvaluationRecord, champion: EvaluationRecord | None) -> CheckResult:
    given = [("before", before), ("after", after)] + ([("champion", champion)] if champion else [])
    faults = [
        f"the evaluation given as {role!r} is labelled {record.label!r}" for role, record in given if record.label != role
    ]
    return _result("labels", faults, "Every evaluation stands in its own place.")


def _validation(validation: ValidationRecord | None) -> CheckResult:
    what = "critical rules broken"
    if validation is None:
        reason = ["there is no validation record, so nothing says that the data could be used; validate the data"]
        return _result("validation", reason, "", decidable=False, what=what)
    broken = [r for r in validation.rules if r.severity == "critical" and not r.passed]
    faults = [f"{r.rule} on {r.role}: {r.failed} of {r.checked} rows ({r.detail})" for r in broken]
    if not validation.passed and not broken:
        faults = ["the data validation did not pass"]
    if not validation.rules:
        faults = ["the data validation checked no rule"]
    return _result(
        "validation", faults, f"Data validation passed ({plural(len(validation.rules), 'rule')} checked).", what=what
    )


def _anchors(validation: ValidationRecord | None, mitigation: MitigationRecord | None) -> tuple[list[str], str]:
    if mitigation is None or validation is None:
        good = "No mitigation with anchors to compare." if mitigation is None else ""
        return ([] if mitigation is None else ["there is no validation record for the anchors of the mitigation"]), good
    if mitigation.anchors_digest == validation.anchors_digest:
        return [], "The mitigation used the anchors that were validated."
    return [f"the mitigation used anchors {mitigation.anchors_digest}, validated were {validation.anchors_digest}"], ""


def _mitigation(
    name: str,
    when: str,
    verb: str,
    before: EvaluationRecord,
    evaluated: EvaluationRecord,
    mitigation: MitigationRecord | None,
    field: str,
) -> CheckResult:
    if mitigation is None:
        same = evaluated.model_digest == before.model_digest
        missing = "the model evaluated after is not the one evaluated before, and no mitigation record links the two"
        return _result(name, [] if same else [missing], "No mitigation record, and the model is the same before and after.")
    expected = getattr(mitigation, field)
    if evaluated.model_digest == expected:
        return _result(name, [], f"The model {when} is the one the mitigation {verb}.")
    fault = f"the model {when} is {evaluated.model_digest}, but the mitigation {verb} {expected}"
    return _result(name, [fault], "")


def _reference(before: EvaluationRecord, after: EvaluationRecord) -> CheckResult:
    if after.reference_digest == before.model_digest:
        return _result("reference", [], "Fidelity after was measured against the model evaluated before.")
    given = after.reference_digest or "no reference"
    fault = f"fidelity after was measured against {given}, not the model evaluated before ({before.model_digest})"
    return _result("reference", [fault], "")


def _champion(champion: EvaluationRecord | None, after: EvaluationRecord, compared: bool) -> CheckResult:
    if champion is None:
        return _result("champion", [], "No champion evaluation was given.")
    if not compared:
        return _result("champion", [], "No check of the policy compares with the champion.")
    faults = champion_faults(champion, after)
    return _result("champion", faults, "The champion was evaluated on the same prompts, judge and settings.")


def _template_faults(before: EvaluationRecord, after: EvaluationRecord) -> list[str]:
    if before.chat_template_digest == after.chat_template_digest:
        return []
    return [f"the chat template is {before.chat_template_digest} before and {after.chat_template_digest} after"]


def _listed(record: EvaluationRecord) -> str:
    return ", ".join(f"{name} (n={entry.n})" for name, entry in sorted(record.suites.items()))
