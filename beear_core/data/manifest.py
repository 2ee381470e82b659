"""A manifest binds the files of a folder, so that what was validated is what is used."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from beear_core.errors import DataError
from beear_core.files import digest_file, write_atomically
from beear_core.records import SCHEMA_VERSION, digest_json

_MANIFEST = "manifest.json"


def write_manifest(folder: Path, names: Iterable[str]) -> str:
    """Write ``manifest.json`` over JSONL files of the folder and return the manifest's digest.

    Raises:
        DataError: if a file is not there.
        StorageError: if the folder cannot be written.
    """
    entries = {name: _entry(folder / name) for name in sorted(names)}
    digest = digest_json(entries)
    manifest = {"schema_version": SCHEMA_VERSION, "files": entries, "digest": digest}
    write_atomically(folder / _MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
    return digest


def verify_manifest(folder: Path) -> str:
    """Compare every file with the manifest and return the manifest's digest.

    Raises:
        DataError: naming the files that are missing, changed, or not in the manifest.
    """
    entries, digest = _read_manifest(folder)
    missing = [name for name in entries if not (folder / name).is_file()]
    changed = [name for name in entries if name not in missing and _entry(folder / name) != entries[name]]
    extra = sorted(p.name for p in folder.glob("*.jsonl") if p.name not in entries)
    faults = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("changed", changed), ("extra", extra))
        if names
    ]
    if faults:
        raise DataError(f"{folder} does not match its manifest ({'; '.join(faults)}); run data_validation again")
    return digest


def _entry(path: Path) -> dict[str, Any]:
    try:
        return {"digest": digest_file(path), "rows": path.read_bytes().count(b"\n")}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        entries, digest = manifest["files"], str(manifest["digest"])
        names = list(entries.keys())
        version = manifest["schema_version"]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; the folder comes from data_validation") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a manifest ({error!r}); run data_validation again") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}; use the release that wrote it"
        )
    if any(Path(name).name != name for name in names):
        raise DataError(f"{path} names a file outside its folder; run data_validation again")
    if digest_json(entries) != digest:
        raise DataError(f"{path} was altered: its digest does not match its entries; run data_validation again")
    return entries, digest
