"""What a gate leaves of a decision, and the same decision made again from that alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beear_core.errors import EvidenceError
from beear_core.evidence import Evidence
from beear_core.files import digest_bytes
from beear_core.policy import GatePolicy, redecide
from beear_core.records import Decision, FileEntry
from components.passport import folder
from components.passport.bom import BILL, bill_of_materials
from components.passport.card import CARD, model_card
from components.passport.folder import POLICY_FILE


def documents_of(policy: GatePolicy, evidence: Evidence, files: tuple[FileEntry, ...], name: str) -> dict[str, bytes]:
    """Write what goes with a model besides the decision: card and bill of materials, by the names of their files."""
    return {
        CARD: model_card(evidence, policy, name).encode(),
        BILL: bill_of_materials(evidence, files, name),
    }


@dataclass(frozen=True, slots=True)
class Decided:
    """What a gate left, read back: the decision, replayed, with what it was made by and on and what goes with the model."""

    decision: Decision
    policy: GatePolicy
    evidence: Evidence
    documents: Mapping[str, bytes]


def replayed(out: Path) -> Decided:
    """Decide again from what a gate left in ``out`` alone.

    Raises:
        EvidenceError: if decision, evidence, policy or documents were altered, to the byte, or another decision comes out.
    """
    policy, evidence = GatePolicy.load(str(out / POLICY_FILE)), Evidence.read(out / "evidence")
    decision = redecide(Decision.read(out / folder.DECISION, as_written=True), policy, evidence)
    documents: dict[str, bytes] = {}
    for name, digest in (decision.provenance.documents if decision.provenance else {}).items():
        try:
            documents[name] = (out / name).read_bytes()
        except OSError as error:
            raise EvidenceError(f"cannot read {out / name}, which the decision names: {error.strerror or error}") from error
        if (found := digest_bytes(documents[name])) != digest:
            raise EvidenceError(f"{out / name} has the digest {found}, decided was with {digest}; it was altered")
    return Decided(decision, policy, evidence, documents)


def replay(out: Path) -> Decision:
    """Decide again, see ``replayed``, and give the decision."""
    return replayed(out).decision
