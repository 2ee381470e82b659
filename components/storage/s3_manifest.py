"""What a folder in S3 consists of: one object per file, named by its digest, and a manifest that is written last.

::

    <prefix>/objects/<SHA-256 of the bytes>    sent once, however often and under however many names they are uploaded
    <prefix>/beear-manifest.json               names, sizes, digests; without it nothing is there yet

Objects are named by what they hold and not by folder or file. So an upload that was cut off or refused leaves nothing that
could be taken for something else, uploads at the same time can only write the same bytes to the same place, and a folder
that changed in one file is sent in that file alone. Nothing ever has to be deleted for an upload to be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

from beear_core.errors import EvidenceError, StorageError
from beear_core.models.folder import digest_entries
from beear_core.records import FileEntry, Record
from beear_core.records.record import canonical_json
from components.storage.common import MIB, check_relative
from components.storage.s3_client import NO_BUCKET, NOT_THERE, Prefix, code_of, listing

NAME = "beear-manifest.json"
_OBJECT = re.compile(r"objects/[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LARGEST = 16 * MIB
_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


def object_name(digest: str) -> str:
    """Name the object, below the prefix, that holds the bytes of a digest ``sha256:<64 hex digits>``."""
    return f"objects/{digest.removeprefix('sha256:')}"


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """The files of a folder, sorted by path. ``folder_digest``: as ``models.folder.directory_digest`` makes it."""

    kind: Literal["folder"] = "folder"
    folder_digest: str
    files: tuple[FileEntry, ...]

    @classmethod
    def of(cls, files: Iterable[FileEntry]) -> Self:
        """Make the manifest of these files."""
        found = tuple(sorted(files, key=lambda file: file.path))
        return cls(folder_digest=digest_entries(found), files=found)

    def to_bytes(self) -> bytes:
        """Write the manifest as canonical JSON."""
        return canonical_json(self.plain())

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            StorageError: anything else, or names that leave the folder.
        """
        try:
            found = cls.parse(data, where)
            names = [check_relative(file.path, where) for file in found.files]
        except EvidenceError as error:
            raise _no_manifest(where, str(error)) from error
        if wrong := [f.path for f in found.files if f.size < 0 or not _DIGEST.fullmatch(f.digest)]:
            raise _no_manifest(where, f"the size or digest of {wrong[0]} is none")
        if len(set(names)) != len(names) or found != cls.of(found.files) or found.to_bytes() != data:
            raise _no_manifest(where, "its digest, order or layout is not that of what it lists")
        return found


def _no_manifest(where: str, why: str) -> StorageError:
    return StorageError(f"{where} is not a manifest that was written here: {why}. Upload the folder again, to a new prefix")


def read(client: Any, prefix: Prefix) -> Manifest | None:
    """Read the manifest of a prefix; ``None`` where none is.

    Raises:
        StorageError: what is there is none.
    """
    from botocore.exceptions import ClientError

    try:
        answer = client.get_object(**prefix.at(NAME))
    except ClientError as error:
        if code_of(error) == NO_BUCKET or code_of(error) not in NOT_THERE:
            raise
        return None
    where = f"{prefix}/{NAME}"
    if answer["ContentLength"] > _LARGEST:
        raise _no_manifest(where, f"it has {answer['ContentLength']} bytes, the limit is {_LARGEST}")
    return Manifest.from_bytes(answer["Body"].read(), where)


def write(client: Any, prefix: Prefix, manifest: Manifest) -> None:
    """Write the manifest where none is, and make sure that it is the one that is there.

    Raises:
        StorageError: another folder was uploaded to this prefix meanwhile.
    """
    from botocore.exceptions import ClientError

    try:
        client.put_object(**prefix.at(NAME), Body=manifest.to_bytes(), ContentType="application/json", IfNoneMatch="*")
    except ClientError as error:
        if code_of(error) not in _TAKEN:
            raise
    # somebody else may have been first, and a store need not know the condition
    require_same(read(client, prefix), manifest, prefix)


def require_same(found: Manifest | None, wanted: Manifest, prefix: Prefix) -> None:
    """Refuse a prefix that holds another folder.

    Raises:
        StorageError: so it is.
    """
    if found != wanted:
        holds = f"a folder with the digest {found.folder_digest}" if found else "no manifest although it was written"
        raise StorageError(
            f"{prefix} holds {holds} and not {wanted.folder_digest}; it is not overwritten, choose another prefix"
        )


def require_free(client: Any, prefix: Prefix) -> None:
    """Refuse a prefix that holds anything but what unfinished uploads leave.

    Raises:
        StorageError: naming what is there.
    """
    if others := sorted(name for name in listing(client, prefix) if not _OBJECT.fullmatch(name)):
        raise StorageError(
            f"{prefix} holds objects already ({others[0]}, {len(others)} in all) and is not overwritten; choose another "
            "prefix"
        )


def is_unfinished(names: Iterable[str]) -> bool:
    """Tell whether these names, below a prefix without manifest, are those of an upload that has not ended."""
    return any(_OBJECT.fullmatch(name) for name in names)
