"""What a decision looks like in Kubeflow's pages: the verdict, what became of the version, and every check."""

from __future__ import annotations

from beear_core.evaluation.figures import interval_text, kind_of, number, threshold, title_of
from beear_core.policy import is_skipped
from beear_core.records import CheckResult, Decision, ReleaseRecord
from components.passport.markdown import escaped, table

_HEAD = ("Check", "Measure", "Measured", "Interval", "Decided on", "Limit", "Samples", "Level", "Verdict")


def summary(decision: Decision, release: ReleaseRecord) -> str:
    """Write a page in Markdown; checks that failed stand first, and each with its reason below the table."""
    failed = [check for check in decision.checks if not check.passed]
    ordered = [*failed, *(check for check in decision.checks if check.passed)]
    reasons = "".join(f"- **{_name(check)}**: {escaped(check.reason)}\n" for check in failed)
    waivers = [
        (escaped(w.check), escaped(w.category or "–"), escaped(w.owner), escaped(w.reason), w.expires)
        for w in release.waivers
    ]
    waived = f"## Waivers\n\n{table(('Check', 'Category', 'Owner', 'Reason', 'Until'), waivers)}\n" if waivers else ""
    return f"""# {release.outcome.upper()}

{escaped(decision.summary)}

Version {escaped(release.model_version)} of {escaped(release.model_name)}, policy {escaped(decision.policy)}. \
Hard checks decide.

{table(_HEAD, [_row(check) for check in ordered])}

{reasons}
{waived}"""


def _name(check: CheckResult) -> str:
    return escaped(check.check) if check.category is None else f"{escaped(check.check)} ({escaped(check.category)})"


def _row(check: CheckResult) -> tuple[str, ...]:
    kind, estimate = kind_of(check.metric), check.estimate
    relative = "−" in check.comparison
    measured = estimate is not None and estimate.value is not None
    value = number(estimate.value, kind) if estimate is not None and estimate.value is not None else "–"
    decided = "–" if check.decided_on is None else threshold(check.decided_on, kind, relative=relative)
    evidence = check.metric == "evidence"
    return (
        _name(check),
        "that records belong together" if evidence else escaped(title_of(check.metric)),
        value,
        escaped(interval_text(estimate, kind)) if measured else "–",
        "–" if evidence else decided,
        "–" if evidence else escaped(f"{check.comparison} {threshold(check.limit, kind, relative=relative)}"),
        "–" if estimate is None else str(estimate.n),
        check.level,
        "skipped" if is_skipped(check) else "passed" if check.passed else "**FAILED**",
    )
