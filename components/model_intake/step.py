"""Take a candidate model over: fetch it, refuse what is unsafe or broken, keep what is needed, record its bytes.

A local folder is checked before anything is copied, a remote one by its names before anything is fetched; both are
checked again as they arrived, because that is what every later step works on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from beear_core.errors import ConfigError, CorruptModelError
from beear_core.models.folder import check_folder, describe, digest_entries, list_files, needed
from beear_core.models.safety import check_names
from beear_core.progress import say
from beear_core.records import IntakeRecord
from components.storage import places as storage

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHOWN = 8


def run(model_uri: str, out: Path, *, expected_digest: str = "") -> IntakeRecord:
    """Copy the model to ``out``, which must be empty or not exist; it is there whole or not at all.

    Args:
        model_uri: a folder, ``file://``, ``s3://bucket/prefix``, ``models:/name@alias``, ``models:/name/3`` or
            ``hub:org/name``.
        out: the new model folder; holds only files that a causal language model is loaded from.
        expected_digest: ``sha256:<64 hex digits>`` as an earlier intake recorded it; empty: any model is taken.

    Returns:
        What was taken over: digests, sizes, architecture.

    Raises:
        ConfigError: a URI or digest of no known form.
        ModelError: one of its kinds, see ``models.folder.check_folder``; another digest than expected.
        StorageError, RegistryError: it cannot be fetched or written.
    """
    if expected_digest and not _DIGEST.fullmatch(expected_digest):
        raise ConfigError(
            f"expected_digest is {expected_digest!r}; give the model_digest of an intake record, 'sha256:' and 64 "
            "hexadecimal digits, or leave it empty"
        )
    source = storage.local_path(model_uri)
    if source is not None:
        check_folder(source)
    records: list[IntakeRecord] = []

    def select(names: tuple[str, ...]) -> Sequence[str]:
        check_names(names, model_uri)
        return needed(names)

    def accept(folder: Path, resolved: str) -> None:
        check_folder(folder)
        records.append(_record(model_uri, resolved, folder))
        _check_digest(records[0], expected_digest)

    if left_out := storage.fetch(model_uri, out, select=select, accept=accept).left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        names = ", ".join(left_out[:_SHOWN])
        say(f"not taken over, not needed to load the model: {names}{more}")
    return records[0]


def _record(model_uri: str, resolved: str, folder: Path) -> IntakeRecord:
    facts, files = describe(folder), list_files(folder)
    return IntakeRecord(
        uri=model_uri,
        resolved=resolved,
        model_digest=digest_entries(files),
        chat_template_digest=facts.chat_template_digest,
        architecture=facts.architecture,
        parameters=facts.parameters,
        layers=facts.layers,
        hidden_size=facts.hidden_size,
        size_bytes=facts.size_bytes,
        files=files,
    )


def _check_digest(record: IntakeRecord, expected: str) -> None:
    if expected and record.model_digest != expected:
        raise CorruptModelError(
            f"{record.uri} has the digest {record.model_digest}, expected {expected}: these are not the bytes that "
            "were named. Find out what changed, or give the new digest"
        )


def run_component(*, model_uri: str, expected_digest: str, model: str, record: str) -> dict[str, float]:
    """Run the step as its Kubeflow face calls it; returns the figures to show in the run."""
    taken = run(model_uri, Path(model), expected_digest=expected_digest)
    taken.write(Path(record))
    return {
        "parameters": float(taken.parameters),
        "layers": float(taken.layers),
        "hidden_size": float(taken.hidden_size),
        "size_bytes": float(taken.size_bytes),
        "files": float(len(taken.files)),
    }
