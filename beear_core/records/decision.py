"""What the gate decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import rfc8785

from beear_core.errors import EvidenceError
from beear_core.files import digest_bytes
from beear_core.records.inputs import FileEntry
from beear_core.records.measured import Environment, Estimate
from beear_core.records.record import LATER, Record

BOUND = 2
"""Schema version since which a decision is bound to files, documents, environment and runs."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check of the policy. ``decided_on`` is the number that was compared with ``limit`` (``None``: not decidable)."""

    check: str
    metric: str
    category: str | None
    level: Literal["hard", "soft", "advisory"]
    comparison: str
    limit: float
    decided_on: float | None
    estimate: Estimate | None
    baseline: Estimate | None
    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a decision is bound to besides its policy and its evidence.

    ``model_name``: the registered model that it is about. ``files``: of the model that was decided on. ``documents``: what
    is laid beside them, by name, with digests. ``environment``: where it was decided; each record of evidence carries the
    one where it was made. ``kfp_run_id``, ``mlflow_run_id``: the runs it was decided in, empty outside of one.
    """

    model_name: str
    files: tuple[FileEntry, ...]
    documents: dict[str, str]
    environment: Environment
    kfp_run_id: str
    mlflow_run_id: str


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """What the gate decided, with the digest of every piece of evidence it was decided on.

    Since schema 2 it has a ``provenance``, and is written as canonical JSON (RFC 8785), so that the SHA-256 of its file is
    its digest. Decisions of schema 1 can still be replayed, not promoted.
    """

    reads: ClassVar[tuple[int, ...]] = (1, 2)
    kind: Literal["decision"] = "decision"
    passed: bool
    summary: str
    model_digest: str
    before_model_digest: str
    policy: str
    policy_digest: str
    checks: tuple[CheckResult, ...]
    evidence: dict[str, str]
    provenance: Provenance | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if (self.schema_version >= BOUND) != (self.provenance is not None):
            raise EvidenceError(
                f"a decision of schema version {self.schema_version} {'lacks' if self.provenance is None else 'has'} a "
                f"provenance; those of version {BOUND} and later have one"
            )

    @property
    def digest(self) -> str:
        """Digest over the canonical JSON of the whole record."""
        return super().digest if self.provenance is None else digest_bytes(self.to_json())

    def to_json(self) -> bytes:
        """Write it as canonical JSON (RFC 8785), one line without end; of schema 1 as other records are written.

        Raises:
            EvidenceError: if a number is NaN or infinite.
        """
        if self.provenance is None:
            return super().to_json()
        try:
            return rfc8785.dumps(self.plain())
        except rfc8785.CanonicalizationError as error:
            raise EvidenceError(f"the decision cannot be written as canonical JSON: {error}; record None") from error

    def failed_checks(self) -> tuple[CheckResult, ...]:
        """List the hard checks that did not pass."""
        return tuple(c for c in self.checks if c.level == "hard" and not c.passed)
