"""Objects of S3 to files: parts at the same time, going on where an earlier call broke off, and compared with a digest."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.errors import StorageError
from beear_core.files import BLOCK
from components.storage.common import MIB
from components.storage.partial import Incoming, Partial
from components.storage.s3_client import ATTEMPTS, NOT_THERE, Prefix, code_of
from components.storage.workers import Workers

PART = 16 * MIB
"""Bytes that are asked for in one request."""
_READ = MIB
_PAUSE_S = 0.5
_CHANGED = frozenset({"PreconditionFailed", "412"})


@dataclass(frozen=True, slots=True)
class Remote:
    """An object to be fetched: name below the prefix, size in bytes, and what its bytes are known by.

    ``digest``: ``sha256:`` or ``md5:`` and hexadecimal digits; empty where nobody says. ``tag``: the entity tag that it
    must have while it is fetched; empty where the digest says enough.
    """

    name: str
    size: int
    digest: str = ""
    tag: str = ""

    def fits(self, path: Path) -> bool:
        """Tell whether a file has the bytes of the object, as far as that is known."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        kind, _, wanted = self.digest.partition(":")
        return not kind or _digest(path, kind) == wanted


def _digest(path: Path, kind: str) -> str:
    found = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def described(client: Any, prefix: Prefix, name: str, size: int, tag: str) -> Remote:
    """Ask what the bytes of an object that somebody else uploaded can be known by: a checksum, or a tag that is one."""
    head = client.head_object(**prefix.at(name), ChecksumMode="ENABLED")
    digest = ""
    if "ChecksumSHA256" in head and head.get("ChecksumType") == "FULL_OBJECT":
        digest = f"sha256:{base64.b64decode(head['ChecksumSHA256']).hex()}"
    elif len(tag) == 32 and "ServerSideEncryption" not in head and "SSECustomerAlgorithm" not in head:
        # in one request and as it is: then the tag is the MD5, by every implementation
        digest = f"md5:{tag}"
    return Remote(name, size, digest, tag)


class Download:
    """Objects below a prefix that are fetched into a partial folder; counts bytes that were ``fetched``.

    Args:
        client: of S3.
        prefix: where from.
        workers: that fetch.
        advance: told of bytes as they are done.
    """

    def __init__(self, client: Any, prefix: Prefix, workers: Workers, advance: Callable[[int], None]) -> None:
        self.client, self.prefix, self.workers, self.advance = client, prefix, workers, advance

    def fetch(self, wanted: Mapping[str, Remote], place: Partial) -> None:
        """Fetch objects to files by name, those that are not there yet.

        Raises:
            StorageError: an object is missing, changed, or not what it should be.
        """
        begun: list[tuple[str, Incoming, int, list[Future[Any]]]] = []
        for name, remote in wanted.items():
            path = place.files / name
            if remote.fits(path):
                self.advance(remote.size)
                continue
            path.unlink(missing_ok=True)
            incoming = place.incoming(name, remote.size, PART)
            there = incoming.open()
            self.advance(there)
            begun.append((name, incoming, there, self._begin(remote, incoming)))
        for name, incoming, there, parts in begun:
            self.workers.wait(parts)
            remote = wanted[name]
            if there and not remote.fits(incoming.data):
                # a power cut can leave less on the disk than was noted
                incoming.forget()
                self.workers.wait(self._begin(remote, incoming))
            self._require(remote, incoming.data)
            incoming.settle(place.files / name)

    def _begin(self, remote: Remote, incoming: Incoming) -> list[Future[Any]]:
        numbers = range(incoming.parts)
        missing = [number for number in numbers if incoming.arrived(number) < incoming.length(number)]
        return [self.workers.begin(self._fetch_part, remote, incoming, number) for number in missing]

    def _require(self, remote: Remote, path: Path) -> None:
        if not remote.fits(path):
            kind = remote.digest.partition(":")[0]
            raise StorageError(
                f"{self.prefix}/{remote.name} has the digest {kind}:{_digest(path, kind)}, expected {remote.digest}: it "
                "was altered in the store or on the way. Fetch it from another copy, or upload the folder again"
            )

    def _fetch_part(self, remote: Remote, incoming: Incoming, number: int) -> None:
        """Fetch the rest of a part; a connection that breaks is taken up where it broke, unless nothing comes any more."""
        from botocore.exceptions import ConnectionError as Broken
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        failures = 0
        while (there := incoming.arrived(number)) < incoming.length(number):
            try:
                self._read(remote, incoming, number, there)
            except (Broken, HTTPClientError, IncompleteReadError):
                failures = 1 if incoming.arrived(number) > there else failures + 1
                if failures >= ATTEMPTS:
                    raise
                time.sleep(_PAUSE_S * failures)

    def _read(self, remote: Remote, incoming: Incoming, number: int, there: int) -> None:
        begin, end = number * incoming.part + there, number * incoming.part + incoming.length(number)
        body = self._asked(remote, begin, end)
        try:
            while block := body.read(_READ):
                incoming.append(number, block)
                self.advance(len(block))
                self.workers.check()
        finally:
            body.close()

    def _asked(self, remote: Remote, begin: int, end: int) -> Any:
        from botocore.exceptions import ClientError

        where = f"{self.prefix}/{remote.name}"
        condition = {"IfMatch": remote.tag} if remote.tag else {}
        try:
            answer = self.client.get_object(**self.prefix.at(remote.name), Range=f"bytes={begin}-{end - 1}", **condition)
        except ClientError as error:
            if code_of(error) in _CHANGED | {"InvalidRange", "416"}:
                raise StorageError(f"{where} changed while it was fetched; try again") from error
            if code_of(error) in NOT_THERE:
                raise StorageError(f"{where} is missing; upload the folder again, or ask who removed it") from error
            raise
        got = answer.get("ContentRange", f"bytes 0-{answer['ContentLength'] - 1}/{answer['ContentLength']}")
        if got != f"bytes {begin}-{end - 1}/{remote.size}":
            answer["Body"].close()
            raise StorageError(
                f"{where}: bytes {begin}-{end - 1}/{remote.size} were asked for and {got} sent; it was altered in the "
                "store, or the store sends no ranges"
            )
        return answer["Body"]
