"""On whose word a model was promoted: who approved it, and which failed checks were waived."""

from __future__ import annotations

from beear_core.errors import EvidenceError
from beear_core.records import Decision, ReleaseRecord
from beear_core.report.html import Html, tag


def check_promoted(decision: Decision, release: ReleaseRecord) -> None:
    """Refuse a record that says promoted where the decision says no, and not every failed check is waived.

    Raises:
        EvidenceError: as described.
    """
    if not release.promoted or decision.passed:
        return
    waived = {(w.check, w.category) for w in release.waivers if w.decision == decision.digest}
    if {(c.check, c.category) for c in decision.failed_checks()} - waived:
        raise EvidenceError("the release record says promoted, the decision says no; the registry must be looked at")


def verdict_of(decision: Decision, release: ReleaseRecord | None) -> tuple[str, str, str]:
    """Tell the verdict as (word, qualifier, tone): ``("PASSED", "not registered", "passed")``."""
    if release is not None and release.awaiting_approval:
        return "AWAITING APPROVAL", "" if decision.passed else "refused, and waived", "passed"
    if release is not None and release.promoted and not decision.passed:
        return "PROMOTED", "refused, and waived", "passed"
    if not decision.passed:
        return "REFUSED", "", "refused"
    if release is None:
        return "PASSED", "not registered", "passed"
    return ("PROMOTED", "", "promoted") if release.promoted else ("PASSED", "not promoted", "passed")


def words_of(release: ReleaseRecord) -> str:
    """Say who approved, or that somebody has to; empty where nobody needed to."""
    if release.awaiting_approval:
        return f"It is {release.candidate_alias}, and becomes {release.alias} when somebody approves it."
    if release.approval is not None:
        return f"Approved by {release.approval.by} at {release.approval.at}: {release.approval.reason}"
    return ""


def waived_list(release: ReleaseRecord | None) -> Html | None:
    """List the waivers that the promotion rests on; ``None`` where it rests on none."""
    if release is None or not release.waivers:
        return None
    items = [
        tag("li", tag("strong", w.label), f": waived by {w.owner} until {w.expires}. {w.reason}") for w in release.waivers
    ]
    return tag("div", tag("h2", "Waived"), tag("ul", *items), class_="why")
