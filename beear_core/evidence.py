"""All records that a decision rests on, together: what a gate decides on, a report shows and a replay reads again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from beear_core.records import EvaluationRecord, IntakeRecord, MitigationRecord, Record, ValidationRecord

RECORDS: Mapping[str, type[Record]] = {
    "intake": IntakeRecord,
    "validation": ValidationRecord,
    "before": EvaluationRecord,
    "after": EvaluationRecord,
    "mitigation": MitigationRecord,
}
"""What every release leaves, by name; ``<name>.json`` in a folder of evidence."""
CHAMPION = "champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The records of one release; what is ``None`` was not given, and policies say what follows from that.

    ``champion``: how the champion was measured, where the policy compares with one and there is one.
    """

    before: EvaluationRecord
    after: EvaluationRecord
    intake: IntakeRecord | None = None
    validation: ValidationRecord | None = None
    mitigation: MitigationRecord | None = None
    champion: EvaluationRecord | None = None

    @classmethod
    def read_files(cls, files: Mapping[str, Path]) -> Evidence:
        """Read the records of a run from their files, one for each name of ``RECORDS``.

        Raises:
            EvidenceError: if one is missing or not valid.
        """
        records = {name: kind.read(files[name]) for name, kind in RECORDS.items()}
        return cls(**records)  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read what ``write`` left in a folder.

        Raises:
            EvidenceError: if a record is missing or not valid.
        """
        records: dict[str, Record] = {name: kind.read(folder / f"{name}.json") for name, kind in RECORDS.items()}
        if (folder / f"{CHAMPION}.json").exists():
            records[CHAMPION] = EvaluationRecord.read(folder / f"{CHAMPION}.json")
        return cls(**records)  # type: ignore[arg-type]

    def write(self, folder: Path) -> None:
        """Write each record as ``<folder>/<name>.json``; those of an earlier run are removed, as no evidence of this one.

        Raises:
            StorageError: if the disk is full or the folder cannot be written.
        """
        for name in (f.name for f in fields(self)):
            (folder / f"{name}.json").unlink(missing_ok=True)
        for name, record in self.named().items():
            record.write(folder / f"{name}.json")

    def named(self) -> dict[str, Record]:
        """Collect the records that were given, by name."""
        found: dict[str, Record | None] = {name: getattr(self, name) for name in (*RECORDS, CHAMPION)}
        return {name: record for name, record in found.items() if record is not None}
