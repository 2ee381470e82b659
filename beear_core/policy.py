"""The written policy of a release, and the decision by it: a pure function of the records.

A policy is a YAML file: a list of checks, each a limit on one metric with the reason for it. ``GatePolicy.load``
refuses what cannot be read, ``check_feasible`` what cannot pass or cannot fail, ``decide`` decides. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from beear_core.errors import EvidenceError, PolicyError
from beear_core.policy_faults import all_faults, check_faults, policy_faults, read_mapping
from beear_core.records import (
    CheckResult,
    Decision,
    EvaluationRecord,
    MitigationRecord,
    ValidationRecord,
    digest_json,
)
from beear_core.wording import plural

SHIPPED = Path(__file__).parent / "policies"
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
Number = Annotated[float, Field(allow_inf_nan=False)]


class Check(BaseModel):
    """One limit.

    Attributes:
        id: unique in the policy: small letters, digits, hyphens.
        metric: a name of ``METRICS``.
        category: ``None``: the overall figure, or with known triggers the worst trigger's; a name: that category; ``"*"``:
            every category on its own.
        at_most, at_least: the limit; exactly one of the two. Rates lie in [0, 1].
        bound: which number of the estimate decides: the value, or an end of its interval. A rate is taken at its worst,
            what is unscored counted against the model.
        versus: ``absolute``, or the increase over ``before`` or the ``champion``, in rate points or ratio units.
        min_samples: fewer scored samples than this never pass.
        max_unscored: a larger share of unscored samples than this never passes, whatever the rate.
        level: ``hard`` decides; ``soft`` is named in the summary when missed; ``advisory`` is only shown.
        missing: what an absent figure means. ``skip`` only where it may be absent: known triggers (none given), and
            the champion (none yet).
        reason: why this limit.
    """

    model_config = _STRICT
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    metric: str
    category: Annotated[str, Field(min_length=1)] | None = None
    at_most: Number | None = None
    at_least: Number | None = None
    bound: Literal["value", "upper", "lower"] = "value"
    versus: Literal["absolute", "before", "champion"] = "absolute"
    min_samples: Annotated[int, Field(ge=1)]
    max_unscored: Annotated[float, Field(ge=0, lt=1)] = 0.02
    level: Literal["hard", "soft", "advisory"] = "hard"
    missing: Literal["fail", "skip"] = "fail"
    reason: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        if faults := check_faults(self.model_dump()):
            raise ValueError("; ".join(faults))
        return self

    @property
    def limit(self) -> float:
        """The number that is compared with."""
        return float(self.at_most if self.at_most is not None else self.at_least or 0.0)


class GatePolicy(BaseModel):
    """All checks of a release.

    Attributes:
        schema_version: of this format; 1.
        name: how decisions and reports call it: letters, digits, dots, hyphens, underscores.
        description: for whom it is meant, in a sentence or two.
        confidence: estimates with narrower intervals than this never pass a bound check.
        checks: one or more, each as below; at least one is hard.
    """

    model_config = _STRICT
    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    description: str
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    checks: tuple[Check, ...]

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        if faults := policy_faults(self.model_dump()["checks"]):
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> GatePolicy:
        """A shipped policy by its name, or a YAML file (a file named like a shipped one: write ``./name``).

        Raises:
            PolicyError: if there is none, it is not YAML, or it has faults; every fault is listed.
        """
        path = SHIPPED / f"{name_or_path}.yaml"
        if str(name_or_path) not in shipped_policies():
            path = Path(name_or_path)
            if not path.is_file():
                raise PolicyError(
                    f"no policy {str(name_or_path)!r}: it is neither a file nor one of the shipped policies "
                    f"{', '.join(shipped_policies())}"
                )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"cannot read the policy {path}: {error}") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, where: str = "policy") -> GatePolicy:
        """A policy from YAML text; see ``load``."""
        values = read_mapping(text, where)
        try:
            # through JSON: strict mode then takes lists for tuples, and still no "8" for 8
            return cls.model_validate_json(json.dumps(values, default=str))
        except ValidationError as error:
            faults = all_faults(error, values, tuple(cls.model_fields), tuple(Check.model_fields))
            raise PolicyError(f"{where} has {plural(len(faults), 'fault')}:", faults) from error

    @property
    def digest(self) -> str:
        """Digest over the policy's content; layout and comments of the file do not count."""
        return digest_json(self.model_dump(mode="json"))

    def check_feasible(self, samples: Mapping[str, int]) -> list[str]:
        """Sentences on checks that cannot pass or cannot fail at these sample counts; see ``policy_feasible``.

        ``samples``: how many prompts each suite (``harmful``, ``ordinary``, ``borderline``) has; a suite that is left
        out is not looked at.
        """
        from beear_core.policy_feasible import feasibility_faults

        return feasibility_faults(self, samples)

    def decide(
        self,
        before: EvaluationRecord,
        after: EvaluationRecord,
        champion: EvaluationRecord | None = None,
        validation: ValidationRecord | None = None,
        mitigation: MitigationRecord | None = None,
    ) -> Decision:
        """Decide, from these records and nothing else. What is missing, too little or does not belong together fails.

        The records' own agreement is checked first, as hard checks named ``evidence/...`` that are always listed.
        """
        from beear_core.policy_checks import judge
        from beear_core.policy_evidence import evidence_checks

        results = evidence_checks(self, before, after, champion, validation, mitigation)
        for check in self.checks:
            results += judge(check, before, after, champion, mitigation, self.confidence)
        given = {
            "before": before,
            "after": after,
            "champion": champion,
            "validation": validation,
            "mitigation": mitigation,
        }
        evidence = {name: record.digest for name, record in given.items() if record is not None}
        suites = {name: [entry.digest, entry.n] for name, entry in after.suites.items()}
        return Decision(
            passed=all(result.passed for result in results if result.level == "hard"),
            summary=_summary(self.name, results),
            model_digest=after.model_digest,
            before_model_digest=before.model_digest,
            policy=self.name,
            policy_digest=self.digest,
            checks=tuple(results),
            evidence={**evidence, "suites": digest_json(suites)},
        )


def shipped_policies() -> tuple[str, ...]:
    """Names of the policies that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def is_skipped(check: CheckResult) -> bool:
    """Whether a check did not apply: it neither held nor failed, and does not stand in the way."""
    return check.passed and check.decided_on is None


def redecide(
    decision: Decision,
    policy: GatePolicy,
    before: EvaluationRecord,
    after: EvaluationRecord,
    champion: EvaluationRecord | None = None,
    validation: ValidationRecord | None = None,
    mitigation: MitigationRecord | None = None,
) -> Decision:
    """Decide again from stored evidence and return the decision, which is the stored one to the byte.

    Raises:
        EvidenceError: if the policy or a record is not the one that was decided on, or another decision comes out.
    """
    again = policy.decide(before, after, champion, validation, mitigation)
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
    """The decision in sentences: the verdict, what failed and why, what was missed without weight, what held."""
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
    """One line a check; categories of a check that held are told together."""
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
