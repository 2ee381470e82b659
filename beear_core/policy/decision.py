"""The decision by a policy: a pure function of the evidence. No torch here.

``decide`` decides, ``redecide`` decides again from stored evidence, ``explain`` says why in sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

from beear_core.errors import EvidenceError
from beear_core.evidence import Evidence
from beear_core.models.folder import digest_entries
from beear_core.policy.checks import is_skipped, judge
from beear_core.policy.consistency import evidence_checks
from beear_core.policy.schema import GatePolicy
from beear_core.records import BOUND, SCHEMA_VERSION, CheckResult, Decision, Provenance, digest_json
from beear_core.wording import plural

DECIDED_ON = ("before", "after", "champion", "validation", "mitigation")
"""Records whose digests a decision of schema 1 names; later ones name those of all."""


def decide(policy: GatePolicy, evidence: Evidence, provenance: Provenance | None = None) -> Decision:
    """Decide from these records and nothing else. What is missing, too little or does not belong together fails.

    That the records agree with each other is checked first, as hard checks named ``evidence/...`` that are always listed.

    Args:
        policy: decides.
        evidence: is decided on.
        provenance: what the decision is bound to besides; it decides nothing. ``None``: a decision of schema 1.

    Raises:
        EvidenceError: the files of the provenance are not those of the model that was measured.
    """
    results = evidence_checks(policy, evidence)
    for check in policy.checks:
        results += judge(check, evidence, policy.confidence)
    bound = DECIDED_ON if provenance is None else tuple(evidence.named())
    digests = {name: record.digest for name, record in evidence.named().items() if name in bound}
    if provenance and (found := digest_entries(provenance.files)) != evidence.after.model_digest:
        raise EvidenceError(
            f"the files to decide on have the digest {found}, measured was {evidence.after.model_digest}; give the model "
            "that was measured"
        )
    suites = {name: [entry.digest, entry.n] for name, entry in evidence.after.suites.items()}
    return Decision(
        schema_version=BOUND if provenance else SCHEMA_VERSION,
        passed=all(result.passed for result in results if result.level == "hard"),
        summary=_summary(policy.name, results),
        model_digest=evidence.after.model_digest,
        before_model_digest=evidence.before.model_digest,
        policy=policy.name,
        policy_digest=policy.digest,
        checks=tuple(results),
        evidence={**digests, "suites": digest_json(suites)},
        provenance=provenance,
    )


def redecide(decision: Decision, policy: GatePolicy, evidence: Evidence) -> Decision:
    """Decide again from stored evidence and return the decision, which is the stored one to the byte.

    Raises:
        EvidenceError: if the policy or a record is not the one that was decided on, or another decision comes out.
    """
    again = decide(policy, evidence, decision.provenance)
    if policy.digest != decision.policy_digest:
        raise EvidenceError(
            f"the policy has digest {policy.digest}, the decision was made by {decision.policy_digest}; replay with "
            f"the policy {decision.policy!r} as it was"
        )
    names = sorted(decision.evidence.keys() | again.evidence.keys())
    if changed := [name for name in names if decision.evidence.get(name) != again.evidence.get(name)]:
        raise EvidenceError(
            f"not the evidence that was decided on: {', '.join(changed)} missing, added or altered; replay with "
            "the records stored beside the decision"
        )
    if again.to_json() != decision.to_json():
        old = {(c.check, c.category): c for c in decision.checks}
        new = {(c.check, c.category): c for c in again.checks}
        keys = sorted({k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}, key=str)
        where = ", ".join(_label(*key) for key in keys) or "its summary or verdict"
        raise EvidenceError(
            f"the same evidence and policy give another decision in {where}; the stored decision was altered, or made "
            "by another release"
        )
    return again


def explain(decision: Decision) -> str:
    """Explain the decision in sentences: verdict, what failed and why, what was missed but decides nothing, what held."""
    lines = [f"{'PASSED' if decision.passed else 'REFUSED'}: {decision.summary}"]
    held = [c for c in decision.checks if c.passed]
    parts = (
        ("Why not:", decision.failed_checks()),
        ("Missed, but not decisive:", [c for c in decision.checks if not c.passed and c.level != "hard"]),
        ("What held:", [c for c in held if not is_skipped(c)]),
        ("What did not apply:", [c for c in held if is_skipped(c)]),
    )
    for title, checks in parts:
        if checks:
            lines += ["", title, *_explained(checks)]
    return "\n".join(lines) + "\n"


def _explained(checks: Sequence[CheckResult]) -> list[str]:
    """List the checks, one a line; categories of a check that held share a line."""
    lines: list[str] = []
    told: set[str] = set()
    for check in checks:
        if check.category is None or not check.passed or is_skipped(check):
            lines.append(f"- {_label(check.check, check.category)}: {check.reason}")
        elif check.check not in told:
            told.add(check.check)
            names = [c.category or "" for c in checks if c.check == check.check]
            lines.append(f"- {check.check}: {check.comparison} in {', '.join(names)}.")
    return lines


def _label(check: str, category: str | None) -> str:
    return check if category is None else f"{check} [{category}]"


def _summary(policy: str, results: list[CheckResult]) -> str:
    hard = [r for r in results if r.level == "hard" and not is_skipped(r)]
    failed = [_label(r.check, r.category) for r in hard if not r.passed]
    soft = [_label(r.check, r.category) for r in results if r.level == "soft" and not r.passed]
    also = f" Look at {plural(len(soft), 'soft check')} that failed: {', '.join(soft)}." if soft else ""
    if failed:
        names = ", ".join(failed)
        return f"{len(failed)} of {plural(len(hard), 'hard check')} of policy {policy} failed: {names}.{also}"
    return f"All {plural(len(hard), 'hard check')} of policy {policy} passed.{also}"
