"""A record: frozen values that go to JSON and back unchanged, with a digest over their canonical form."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from beear_core.errors import EvidenceError
from beear_core.files import digest_bytes, write_atomically

SCHEMA_VERSION = 1


def canonical_json(value: Any) -> bytes:
    """Write plain values as canonical UTF-8 JSON: sorted keys, no spaces.

    Raises:
        EvidenceError: if a number is NaN or infinite.
    """
    try:
        # not RFC 8785: that writes 1.0 as 1, and the digests of all records that are there would change
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise EvidenceError(f"a record holds NaN or infinity, which cannot be evidence ({error}); record None") from error


def digest_json(value: Any) -> str:
    """Compute the digest of the canonical JSON of plain values."""
    return digest_bytes(canonical_json(value))


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of what is written to disk; ``to_json`` and ``read`` are inverses."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION

    def plain(self) -> dict[str, Any]:
        """Convert the record to plain JSON values."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Digest over the canonical JSON of the whole record."""
        return digest_json(self.plain())

    def to_json(self) -> bytes:
        """Write the record as readable JSON with a final newline; ``digest`` covers its content, not its layout."""
        canonical_json(self.plain())
        return json.dumps(self.plain(), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path) -> Path:
        """Write the record atomically and return the path."""
        write_atomically(path, self.to_json())
        return path

    @classmethod
    def parse(cls, data: bytes, where: str = "record") -> Self:
        """Read a record from JSON.

        Raises:
            EvidenceError: if it is not JSON, has missing, extra or mistyped fields, or another schema version.
        """
        try:
            record = TypeAdapter(cls).validate_json(data)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()[:8])
            raise EvidenceError(f"{where} is not a valid {cls.__name__}: {faults}") from error
        if record.schema_version != SCHEMA_VERSION:
            raise EvidenceError(
                f"{where} has schema version {record.schema_version}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it"
            )
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from a file; see ``parse``."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EvidenceError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.parse(data, str(path))
