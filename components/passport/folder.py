"""A released model's folder: the files that were decided on, and beside them what they are and what was decided."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from beear_core.config import SigningConfig
from beear_core.errors import EvidenceError, SignatureError
from beear_core.files import disk_errors, write_atomically
from beear_core.models.folder import list_files
from beear_core.records import Decision, FileEntry
from components.passport.bom import BILL
from components.passport.card import CARD
from components.passport.signature import SIGNATURE, sign, verify_signature

DECISION = "decision.json"
POLICY_FILE = "policy.yaml"
"""What a gate leaves beside a decision."""
BESIDE = frozenset({CARD, BILL, DECISION, SIGNATURE})
"""Names that no file of a model to decide on may have."""


class AlteredError(EvidenceError):
    """The decision beside a model is not as a gate writes it."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Names of files that are there and should not be, that should be there and are not, and that hold other bytes."""

    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self.extra or self.missing or self.changed)

    def __str__(self) -> str:
        """Name them, by kind."""
        kinds = {"extra": self.extra, "missing": self.missing, "changed": self.changed}
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> Differences:
    """Compare the files that should be in a folder with those that are, both as digests by path."""
    both = wanted.keys() & found.keys()
    return Differences(
        tuple(sorted(found.keys() - wanted.keys())),
        tuple(sorted(wanted.keys() - found.keys())),
        tuple(sorted(name for name in both if found[name] != wanted[name])),
    )


def check_names(files: Iterable[FileEntry], where: Path) -> None:
    """Refuse a model with a file of a name that the gate writes.

    Raises:
        EvidenceError: naming it.
    """
    if taken := sorted(BESIDE & {entry.path for entry in files}):
        raise EvidenceError(
            f"{where} holds {', '.join(taken)}, which the gate writes itself; take the model over first (python -m "
            "components.model_intake), or remove it, and measure again"
        )


def assemble(
    model_dir: Path, decision: Decision, documents: Mapping[str, bytes], out: Path, signing: SigningConfig | None
) -> None:
    """Lay a model and its papers into one empty folder; files of the model are linked where the disk allows it.

    Args:
        model_dir: what was decided on.
        decision: a bound one.
        documents: card and bill of materials, by name.
        out: an empty folder.
        signing: how the whole is signed, if the decision is a pass; ``None``: it is not.

    Raises:
        ConfigError, SignatureError: it cannot be signed.
        StorageError: if the disk is full or the folder cannot be written.
    """
    if decision.provenance is None:
        raise EvidenceError("a decision of schema 1 names no files; run the gate again for one that does")
    for entry in decision.provenance.files:
        target = out / entry.path
        with disk_errors(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(model_dir / entry.path, target)
    for name, data in {**documents, DECISION: decision.to_json()}.items():
        write_atomically(out / name, data)
    if signing and decision.passed:
        sign(out, out / SIGNATURE, signing)


def decision_in(folder: Path) -> Decision:
    """Read the decision that lies beside a model.

    Raises:
        AlteredError: it is not as a gate writes it.
        EvidenceError: there is none, or it is of schema 1 and names no files.
    """
    if not (folder / DECISION).is_file():
        raise EvidenceError(f"{folder} holds no {DECISION}: it was not released by this gate, or by an earlier one of it")
    try:
        decision = Decision.read(folder / DECISION, as_written=True)
    except EvidenceError as error:
        raise AlteredError(str(error)) from error
    if decision.provenance is None:
        raise EvidenceError(f"the decision in {folder} is of schema 1 and names no files; release the model again")
    return decision


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a released model's folder holds, compared with its own decision.

    ``signed``: ``yes``, ``no``, or ``not checked`` where there is a signature and nobody said by whom it must be.
    ``faults``: what does not belong together, the differences too; empty where all does.
    """

    decision: Decision
    differences: Differences
    signed: str
    faults: tuple[str, ...]


def inspect(folder: Path, signing: SigningConfig | None, files: Iterable[FileEntry] | None = None) -> Inspection:
    """Compare a released model's folder with the decision that lies in it, file by file, and verify its signature.

    Args:
        folder: the model with its papers.
        signing: by whom a model that passed, or was waived, must be signed; ``None``: by nobody.
        files: all that the folder holds, where that was read already: digesting a large model takes minutes.

    Raises:
        AlteredError, EvidenceError: see ``decision_in``.
        ConfigError: nothing can be verified with this configuration.
        ModelError: the folder cannot be read.
    """
    decision = decision_in(folder)
    bound = decision.provenance
    wanted = {entry.path: entry.digest for entry in bound.files} | bound.documents if bound else {}
    found = {entry.path: entry.digest for entry in (list_files(folder) if files is None else files)}
    unlike = differences(wanted, {path: digest for path, digest in found.items() if path not in {DECISION, SIGNATURE}})
    faults = [str(unlike)] if unlike else []
    signed = "not checked" if SIGNATURE in found else "no"
    # a refusal is signed where it was waived
    if signing and (decision.passed or SIGNATURE in found):
        try:
            verify_signature(folder, folder / SIGNATURE, signing)
            signed = "yes"
        except SignatureError as error:
            faults.append(str(error))
    return Inspection(decision, unlike, signed, tuple(faults))


def _link(source: Path, target: Path) -> None:
    with suppress(OSError):
        # the bytes of a large model need not be there twice; another disk or file system has to copy
        os.link(source, target)
        return
    shutil.copyfile(source, target)
