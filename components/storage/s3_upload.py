"""Files to S3 objects that are named by their digest: what is there is not sent again, nor parts of unfinished uploads.

An object is taken as there when its size, the digest in its metadata and its entity tag are right. The tag is made by the
store from the bytes that it holds (MD5, or MD5 over those of the parts), so it tells of an object that was altered, too; a
store that encrypts with keys of its own makes tags of another kind, and those are passed over. Each part is sent with its
MD5, which the store checks. Whoever fetches checks SHA-256.

Two processes that upload the same file go on with the same unfinished upload: they send the same bytes to the same parts.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.errors import StorageError
from components.storage.common import MIB
from components.storage.s3_client import ATTEMPTS, NOT_ALLOWED, NOT_THERE, Prefix, code_of
from components.storage.s3_manifest import object_name
from components.storage.workers import Workers

PART = 16 * MIB
"""Bytes of a part; what is not larger is sent in one request."""
_MOST_PARTS = 10_000
# of an upload that has ended Ceph lists no parts with NoSuchKey, others with NoSuchUpload
_GONE = frozenset({"NoSuchUpload", "NoSuchKey", "InvalidPart", "InvalidPartOrder", "404"})


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be sent, as it was when it was read: ``part`` bytes in each of the parts, whose MD5 are ``sums``."""

    path: Path
    size: int
    digest: str
    part: int
    sums: tuple[bytes, ...]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a file once for its digest and the sums of its parts.

        Raises:
            StorageError: it cannot be read.
        """
        sha, sums, size = hashlib.sha256(), [], 0
        try:
            part = _part_size(path.stat().st_size)
            with path.open("rb") as file:
                while block := file.read(part):
                    sha.update(block)
                    sums.append(_md5(block))
                    size += len(block)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}; give this user read access") from error
        return cls(path, size, f"sha256:{sha.hexdigest()}", part, tuple(sums) or (_md5(b""),))

    def bytes_of(self, number: int) -> bytes:
        """Read part ``number``, counted from 1.

        Raises:
            StorageError: the file is not what it was.
        """
        try:
            with self.path.open("rb") as file:
                file.seek((number - 1) * self.part)
                data = file.read(self.part)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}; give this user read access") from error
        if _md5(data) != self.sums[number - 1]:
            raise StorageError(f"{self.path} was changed while it was uploaded; upload again when nobody writes to it")
        return data

    def size_of(self, number: int) -> int:
        """Count the bytes of part ``number``."""
        return min(self.part, self.size - (number - 1) * self.part)

    @property
    def tag(self) -> str:
        """The entity tag of an object that was sent in these parts."""
        if len(self.sums) == 1:
            return self.sums[0].hex()
        return f"{_md5(b''.join(self.sums)).hex()}-{len(self.sums)}"

    @property
    def metadata(self) -> dict[str, str]:
        """What is noted with the object."""
        return {"sha256": self.digest.removeprefix("sha256:"), "part-size": str(self.part)}


def _part_size(size: int) -> int:
    """Choose the smallest part, in whole MiB, with which no more than 10 000 are needed."""
    return max(PART, -(-size // (_MOST_PARTS * MIB)) * MIB)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


class Upload:
    """Objects that are sent to a prefix; counts bytes that were ``sent`` and that were there (``skipped``).

    Args:
        client: of S3.
        prefix: where to.
        workers: that send.
        advance: told of bytes as they are done.
    """

    def __init__(self, client: Any, prefix: Prefix, workers: Workers, advance: Callable[[int], None]) -> None:
        self.client, self.prefix, self.workers, self.advance = client, prefix, workers, advance
        self.sent = self.skipped = 0

    def send(self, sources: list[Source]) -> None:
        """Send the files whose bytes are not there yet.

        Raises:
            StorageError: a file was changed meanwhile, or the store does not hold what was sent.
        """
        different = {source.digest: source for source in sources}
        self._skip(sum(source.size for source in sources) - sum(source.size for source in different.values()))
        there = self.workers.wait([self.workers.begin(self._is_there, source) for source in different.values()])
        missing = []
        for source, found in zip(different.values(), there, strict=True):
            if found:
                self._skip(source.size)
            else:
                missing.append(source)
        small = [self.workers.begin(self._send_whole, source) for source in missing if len(source.sums) == 1]
        for source in missing:
            if len(source.sums) > 1:
                self._send_in_parts(source)
        self._count(self.workers.wait(small))

    def _at(self, source: Source) -> dict[str, str]:
        return self.prefix.at(object_name(source.digest))

    def _is_there(self, source: Source) -> bool:
        from botocore.exceptions import ClientError

        try:
            head = self.client.head_object(**self._at(source))
        except ClientError as error:
            if code_of(error) in NOT_THERE:
                return False
            raise
        noted = head.get("Metadata", {})
        if head["ContentLength"] != source.size or noted.get("sha256") != source.metadata["sha256"]:
            return False
        own_keys = str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in head
        comparable = not own_keys and noted.get("part-size") == str(source.part)
        return not comparable or head["ETag"].strip('"') == source.tag

    def _send_whole(self, source: Source) -> int:
        data = source.bytes_of(1)
        self.client.put_object(**self._at(source), Body=data, ContentMD5=_base64(source.sums[0]), Metadata=source.metadata)
        self.advance(len(data))
        self._require_there(source)
        return len(data)

    def _require_there(self, source: Source) -> None:
        if not self._is_there(source):
            raise StorageError(
                f"s3://{'/'.join(self._at(source).values())} is not what was sent of {source.path}; try again, and look at "
                "the store if that does not help"
            )

    def _send_in_parts(self, source: Source) -> None:
        """Go on with the unfinished upload that has most of the file, or begin one; again where somebody else ended it."""
        for _ in range(ATTEMPTS):
            key, tags = self._adopt(source)
            own = not key
            if own:
                key = self.client.create_multipart_upload(**self._at(source), Metadata=source.metadata)["UploadId"]
            self._skip(sum(map(source.size_of, tags)))
            try:
                self._complete(source, key, tags | self._send_parts(source, key, tags))
            except StorageError:
                if own and Source.read(source.path).digest != source.digest:
                    # what is missing is nowhere any more, so nobody can go on with it
                    self.client.abort_multipart_upload(**self._at(source), UploadId=key)
                raise
            if self._is_there(source):
                return
        self._require_there(source)

    def _adopt(self, source: Source) -> tuple[str, dict[int, str]]:
        """Find the unfinished upload with most bytes that fit: (its key, tags by number); ``""`` where none has any."""
        from botocore.exceptions import ClientError

        best: tuple[str, dict[int, str]] = ("", {})
        try:
            for key in self._unfinished(source):
                tags = self._parts(source, key)
                if len(tags) > len(best[1]):
                    best = key, tags
        except ClientError as error:
            # many an identity may write and not list; then everything is sent
            if code_of(error) not in NOT_ALLOWED | _GONE:
                raise
        return best

    def _unfinished(self, source: Source) -> Iterator[str]:
        at = self._at(source)
        for page in self.client.get_paginator("list_multipart_uploads").paginate(Bucket=at["Bucket"], Prefix=at["Key"]):
            yield from (found["UploadId"] for found in page.get("Uploads", ()) if found["Key"] == at["Key"])

    def _parts(self, source: Source, key: str) -> dict[int, str]:
        tags = {}
        for page in self.client.get_paginator("list_parts").paginate(**self._at(source), UploadId=key):
            for found in page.get("Parts", ()):
                number, tag = found["PartNumber"], found["ETag"].strip('"')
                if number <= len(source.sums) and tag == source.sums[number - 1].hex():
                    tags[number] = found["ETag"]
        return tags

    def _send_parts(self, source: Source, key: str, there: dict[int, str]) -> dict[int, str]:
        numbers = [number for number in range(1, len(source.sums) + 1) if number not in there]
        tags = self.workers.wait([self.workers.begin(self._send_part, source, key, number) for number in numbers])
        self._count([source.size_of(number) for number, tag in zip(numbers, tags, strict=True) if tag])
        return {number: tag for number, tag in zip(numbers, tags, strict=True) if tag}

    def _send_part(self, source: Source, key: str, number: int) -> str:
        """Send a part; returns its tag, ``""`` where somebody else ended the upload."""
        from botocore.exceptions import ClientError

        data = source.bytes_of(number)
        self.workers.check()
        try:
            answer = self.client.upload_part(
                **self._at(source), UploadId=key, PartNumber=number, Body=data, ContentMD5=_base64(source.sums[number - 1])
            )
        except ClientError as error:
            if code_of(error) in _GONE:
                return ""
            raise
        self.advance(len(data))
        return str(answer["ETag"])

    def _complete(self, source: Source, key: str, tags: dict[int, str]) -> None:
        """Make the object of its parts, unless somebody else ended the upload."""
        from botocore.exceptions import ClientError

        if len(tags) < len(source.sums):
            return
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        try:
            self.client.complete_multipart_upload(**self._at(source), UploadId=key, MultipartUpload={"Parts": parts})
        except ClientError as error:
            if code_of(error) not in _GONE:
                raise

    def _skip(self, n: int) -> None:
        self.skipped += n
        self.advance(n)

    def _count(self, sizes: list[int]) -> None:
        self.sent += sum(sizes)


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()
