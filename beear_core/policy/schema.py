"""What a policy says: a list of checks, each a limit on one metric with the reason for it. It knows nothing of deciding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from beear_core.errors import PolicyError
from beear_core.policy.faults import all_faults, check_faults, policy_faults, read_mapping
from beear_core.records import digest_json
from beear_core.wording import plural

SHIPPED = Path(__file__).parent
"""Folder of the policies that come with the package."""


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
        """Load a shipped policy by its name, or a YAML file; see ``find_policy``."""
        return find_policy(str(name_or_path))[0]

    @classmethod
    def parse(cls, text: str, where: str = "policy") -> GatePolicy:
        """Read a policy from YAML text, called ``where`` in errors; see ``load``."""
        values = read_mapping(text, where)
        try:
            # through JSON: strict mode then takes lists for tuples, and still no "8" for 8
            return cls.model_validate_json(json.dumps(values, default=str))
        except ValidationError as error:
            faults = all_faults(error, values, tuple(cls.model_fields), tuple(Check.model_fields))
            raise PolicyError(f"{where} has {plural(len(faults), 'fault')}:", faults) from error

    @property
    def compares_with_champion(self) -> bool:
        """Whether a check compares with the champion; where none does, none is looked for."""
        return any(check.versus == "champion" for check in self.checks)

    @property
    def digest(self) -> str:
        """Digest over the policy's content; layout and comments of the file do not count."""
        return digest_json(self.model_dump(mode="json"))


def shipped_policies() -> tuple[str, ...]:
    """List the names of the policies that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def find_policy(policy: str) -> tuple[GatePolicy, str]:
    """Find a policy, and the very text that it was parsed from.

    Args:
        policy: a shipped policy's name, a YAML file (one named like a shipped policy: write ``./name``), or the text of
            one, which is recognised by its line breaks.

    Raises:
        PolicyError: if there is none, it is not YAML, or it has faults; every fault is listed.
    """
    if "\n" in policy:
        return GatePolicy.parse(policy, "the given policy"), policy
    path = SHIPPED / f"{policy}.yaml" if policy in shipped_policies() else Path(policy)
    try:
        if not path.is_file():
            shipped = ", ".join(shipped_policies())
            raise PolicyError(f"no policy {policy!r}: it is neither a file nor one of the shipped policies {shipped}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"cannot read the policy {path}: {error}") from error
    return GatePolicy.parse(text, str(path)), text
