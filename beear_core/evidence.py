"""All records that a decision rests on, together: what a gate decides on, a report shows and a replay reads again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from beear_core.records import ChampionRecord, EvaluationRecord, IntakeRecord, MitigationRecord, Record, ValidationRecord

RECORDS: Mapping[str, type[Record]] = {
    "intake": IntakeRecord,
    "validation": ValidationRecord,
    "before": EvaluationRecord,
    "after": EvaluationRecord,
    "mitigation": MitigationRecord,
}
"""What every release leaves, by name; ``<name>.json`` in a folder of evidence."""
CHAMPION = "champion"
OPTIONAL: Mapping[str, type[Record]] = {CHAMPION: EvaluationRecord, "champion_eval": ChampionRecord}
"""What a release leaves that was compared with the champion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The records of one release; what is ``None`` was not given, and policies say what follows from that.

    ``champion``: how the champion was measured, where the policy compares with one and there is one. ``champion_eval``:
    where that comes from; without the measurements themselves, which are in ``champion``.
    """

    before: EvaluationRecord
    after: EvaluationRecord
    intake: IntakeRecord | None = None
    validation: ValidationRecord | None = None
    mitigation: MitigationRecord | None = None
    champion: EvaluationRecord | None = None
    champion_eval: ChampionRecord | None = None

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
        """Read what ``write`` left in a folder, and nothing else.

        Raises:
            EvidenceError: if a record is missing, not valid, or not to the byte as it was written.
        """
        kinds: dict[str, type[Record]] = dict(RECORDS)
        kinds |= {name: kind for name, kind in OPTIONAL.items() if (folder / f"{name}.json").exists()}
        records = {name: kind.read(folder / f"{name}.json", as_written=True) for name, kind in kinds.items()}
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
        found: dict[str, Record | None] = {name: getattr(self, name) for name in (*RECORDS, *OPTIONAL)}
        return {name: record for name, record in found.items() if record is not None}
