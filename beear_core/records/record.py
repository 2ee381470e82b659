"""A record: frozen values that go to JSON and back unchanged, with a digest over their canonical form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from beear_core.errors import EvidenceError
from beear_core.files import digest_bytes, write_atomically

SCHEMA_VERSION = 1
LATER: Mapping[str, bool] = {"later": True}
"""Metadata of a field that records of earlier releases lack: it has a plain default, and is left out where it holds that,
so that their bytes and digests stay."""


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
    reads: ClassVar[tuple[int, ...]] = (SCHEMA_VERSION,)
    """Schema versions that this release reads."""

    schema_version: int = SCHEMA_VERSION

    def plain(self) -> dict[str, Any]:
        """Convert the record to plain JSON values."""
        values: dict[str, Any] = _plain(self)
        return values

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
            EvidenceError: if it is not JSON, has missing, unknown, repeated or mistyped fields, or another schema version.
        """
        try:
            record = TypeAdapter(cls).validate_json(data, strict=True)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()[:8])
            raise EvidenceError(f"{where} is not a valid {cls.__name__}: {faults}") from error
        if record.schema_version not in cls.reads:
            raise EvidenceError(
                f"{where} has schema version {record.schema_version}, this release reads "
                f"{' and '.join(map(str, cls.reads))}; use the release that wrote it"
            )
        if twice := "; ".join(_repeated(data)[:8]):
            raise EvidenceError(f"{where} is not a valid {cls.__name__}: {twice}")
        return record

    @classmethod
    def read(cls, path: Path, *, as_written: bool = False) -> Self:
        """Read a record from a file; see ``parse``.

        Args:
            path: the file.
            as_written: its bytes must be those that ``write`` writes; a file that says the same in other words is none.

        Raises:
            EvidenceError: see ``parse``; it cannot be read; other bytes.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EvidenceError(f"cannot read {path}: {error.strerror or error}") from error
        record = cls.parse(data, str(path))
        if as_written and record.to_json() != data:
            raise EvidenceError(
                f"{path} holds a valid {cls.__name__}, but not the bytes that were written: its layout or the form of its "
                "numbers was altered; restore the file as the gate left it"
            )
        return record


def _plain(value: Any) -> Any:
    """Convert to plain values, without later fields that hold their default."""
    if dataclasses.is_dataclass(value):
        fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: _plain(v) for f, v in fields if not (f.metadata.get("later") and v == f.default)}
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _repeated(data: bytes) -> list[str]:
    """Name fields that stand twice in one object: which of them counts, readers do not agree on."""
    found: list[str] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        found.extend(f"{name}: stands there twice" for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    json.loads(data, object_pairs_hook=noted)
    return found
