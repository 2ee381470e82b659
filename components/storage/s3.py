"""Folders from and to S3; what was cut off goes on where it broke off, up and down.

A folder that was uploaded here has a manifest (``s3_manifest``), and every file is compared with its SHA-256. One that
somebody else put there is read as it lies: by size, and by a checksum where the store has one.
"""

from __future__ import annotations

import hashlib
import mimetypes
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beear_core.errors import ModelNotFoundError, StorageError
from beear_core.files import PROBE
from beear_core.progress import track
from beear_core.records import FileEntry
from beear_core.records.record import digest_json
from components.storage import s3_manifest as manifests
from components.storage.common import Select, Uploaded, byte_progress, check_relative, require_space
from components.storage.partial import Partial, partial
from components.storage.s3_client import NOT_ALLOWED, WORKERS, Listed, Prefix, code_of, explained, listing
from components.storage.s3_fetch import PART, Download, Remote, described
from components.storage.s3_upload import Source, Upload
from components.storage.workers import Workers


@contextmanager
def fetched(uri: str, dest: Path, select: Select) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Download the selected files of a prefix; ``dest`` takes them over when the block ends well.

    Yields the folder that they are in until then, and the names that were left out. What a kill or a store that cannot be
    reached leaves is taken up by the next call, see ``partial``.

    Raises:
        ModelNotFoundError: no such bucket, or nothing below the prefix.
        StorageError: unreachable, refused, incomplete, altered, unfinished, or no room; ``dest`` exists or is being filled.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    prefix = Prefix.parse(uri)
    with explained(uri) as client:
        there = _look(client, prefix, uri)
        names = tuple(select(tuple(sorted(check_relative(name, uri) for name in there))))
        wanted = {name: _known(client, prefix, name, there[name]) for name in names}
        key = digest_json([uri, [[n, r.size, r.digest, r.tag] for n, r in sorted(wanted.items())]]).removeprefix("sha256:")
        with partial(dest, key, ClientError, BotoCoreError) as place:
            _fetch(client, prefix, wanted, place)
            yield place.files, tuple(sorted(set(there) - set(names)))


def _look(client: Any, prefix: Prefix, uri: str) -> Mapping[str, FileEntry | Listed]:
    """List what a folder consists of, by name: as its manifest says, else as it lies there."""
    if manifest := manifests.read(client, prefix):
        return {file.path: file for file in manifest.files}
    found = listing(client, prefix)
    if not found:
        raise ModelNotFoundError(f"nothing lies below {uri}; check the bucket and the prefix")
    if manifests.is_unfinished(found):
        raise StorageError(f"{uri} holds an upload that has not ended, without {manifests.NAME}; upload the folder again")
    return found


def look(uri: str) -> dict[str, int]:
    """List what a folder consists of, without fetching anything: sizes in bytes by name.

    Raises:
        ModelNotFoundError: no such bucket, or nothing below the prefix.
        StorageError: unreachable, refused or unfinished.
    """
    with explained(uri) as client:
        found = _look(client, Prefix.parse(uri), uri)
        return {check_relative(name, uri): found[name].size for name in sorted(found)}


def _known(client: Any, prefix: Prefix, name: str, found: FileEntry | Listed) -> Remote:
    if isinstance(found, FileEntry):
        return Remote(manifests.object_name(found.digest), found.size, found.digest)
    return described(client, prefix, name, found.size, found.etag)


def _fetch(client: Any, prefix: Prefix, wanted: Mapping[str, Remote], place: Partial) -> None:
    arrived = sum(place.arrived(name, remote.size, PART) for name, remote in wanted.items())
    require_space(place.root, sum(remote.size for remote in wanted.values()) - arrived)
    sizes = {name: remote.size for name, remote in wanted.items()}
    with byte_progress(f"fetching {prefix}", sizes) as advance, Workers(WORKERS) as workers:
        Download(client, prefix, workers, advance).fetch(wanted, place)


def upload(source: Path, names: Sequence[str], uri: str) -> Uploaded:
    """Upload files below a prefix that holds nothing yet, a part of the same upload, or the same folder.

    Nothing is ever removed: what an upload leaves that was cut off is used by the next one, and is no folder to anybody.

    Raises:
        StorageError: unreachable, refused, the prefix holds something else, or a file changed meanwhile.
    """
    prefix = Prefix.parse(uri)
    try:
        with explained(uri) as client:
            written = manifests.read(client, prefix)
            if written is None:
                manifests.require_free(client, prefix)
            files = {name: Source.read(source / name) for name in track(names, len(names), f"reading {source} (files)")}
            wanted = manifests.Manifest.of(FileEntry(path=n, size=s.size, digest=s.digest) for n, s in files.items())
            if written is not None:
                manifests.require_same(written, wanted, prefix)
            sizes = {name: file.size for name, file in files.items()}
            with byte_progress(f"uploading to {prefix}", sizes) as advance, Workers(WORKERS) as workers:
                sending = Upload(client, prefix, workers, advance)
                sending.send(list(files.values()))
            if written is None:
                manifests.write(client, prefix, wanted)
    except ModelNotFoundError as error:
        raise StorageError(f"cannot upload: {error}") from error
    return Uploaded(wanted.folder_digest, sending.sent, sending.skipped)


def put(uri: str, files: Mapping[str, bytes]) -> None:
    """Write small objects below a prefix under their own names; what is there by such a name is replaced.

    Raises:
        StorageError: unreachable, refused, or no such bucket.
    """
    prefix = Prefix.parse(uri)
    try:
        with explained(uri) as client:
            for name, data in files.items():
                client.put_object(
                    **prefix.at(name),
                    Body=data,
                    ContentMD5=b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
                    ContentType=mimetypes.guess_type(name)[0] or "application/octet-stream",
                )
    except ModelNotFoundError as error:
        raise StorageError(f"cannot write: {error}") from error


def probe(uri: str) -> None:
    """Write a small object below a prefix and delete it; an identity that may not delete leaves it.

    Raises:
        StorageError: unreachable, refused, or no such bucket.
    """
    from botocore.exceptions import ClientError

    put(uri, {PROBE: b"x"})
    with explained(uri) as client:
        try:
            client.delete_object(**Prefix.parse(uri).at(PROBE))
        except ClientError as error:
            # no upload needs to delete, so that nobody has to be allowed to
            if code_of(error) not in NOT_ALLOWED:
                raise
