"""A client of S3 and of what speaks its protocol, and its errors in our words: SeaweedFS, MinIO, Ceph, AWS.

Credentials, region and endpoint come from the usual variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...). Checksums are
sent only where the protocol requires them, because other implementations refuse the newer ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from beear_core.errors import ConfigError, ModelNotFoundError, StorageError
from beear_core.uris import without_secrets

ATTEMPTS = 4
WORKERS = 8
"""Requests that are under way at once; each holds at most one part in memory."""
NO_BUCKET = "NoSuchBucket"
NOT_THERE = frozenset({"NoSuchKey", "404", "NotFound", NO_BUCKET})
NOT_ALLOWED = frozenset({"AccessDenied", "403", "NotImplemented", "MethodNotAllowed"})
_FAILING = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "500", "503"})
_FULL = frozenset({"QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "507"})
_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what this identity may do there"


@dataclass(frozen=True, slots=True)
class Prefix:
    """A place in a bucket: ``s3://bucket/name``, the name without slashes at its ends."""

    bucket: str
    name: str

    @classmethod
    def parse(cls, uri: str) -> Prefix:
        """Split ``s3://bucket/prefix``.

        Raises:
            ConfigError: if either is missing.
        """
        bucket, _, name = uri.removeprefix("s3://").partition("/")
        if not bucket or not name.strip("/"):
            raise ConfigError(f"{uri!r} names no folder in a bucket; write s3://bucket/prefix")
        return cls(bucket, name.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.name}"

    def at(self, name: str) -> dict[str, str]:
        """Name an object below the prefix as requests do."""
        return {"Bucket": self.bucket, "Key": f"{self.name}/{name}"}


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of an object: size in bytes and entity tag (without quotes)."""

    size: int
    etag: str


def listing(client: Any, prefix: Prefix) -> dict[str, Listed]:
    """List objects by name relative to the prefix; folder markers are left out."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=f"{prefix.name}/"):
        for item in page.get("Contents", ()):
            name = item["Key"][len(prefix.name) + 1 :]
            if name and not name.endswith("/"):
                found[name] = Listed(int(item["Size"]), str(item["ETag"]).strip('"'))
    return found


def code_of(error: Any) -> str:
    """Name what a server answered, such as ``NoSuchKey``; for ``HEAD`` it is a number."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


@contextmanager
def explained(uri: str) -> Iterator[Any]:
    """Open a client whose errors come out as ours, with what to do about them.

    Raises:
        ConfigError: the endpoint is none.
        ModelNotFoundError: no such bucket or object.
        StorageError: unreachable, failing or refused.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as Unreachable

    place = without_secrets(_endpoint() or "AWS")
    try:
        yield _client()
    except ClientError as error:
        code = code_of(error)
        if code in NOT_THERE:
            what = "bucket" if code == NO_BUCKET else "object"
            raise ModelNotFoundError(f"no such {what} for {uri} at {place} ({code}); check the name") from error
        if code in _FAILING:
            raise StorageError(f"{uri}: {place} fails with {code} after {ATTEMPTS} attempts; try again later") from error
        if code in _FULL:
            raise StorageError(f"{uri}: {place} has no room ({code}); free some there, or have its limit raised") from error
        raise StorageError(f"{uri}: {place} refuses with {code}; {_CREDENTIALS}") from error
    except NoCredentialsError as error:
        raise StorageError(f"{uri}: no credentials found; {_CREDENTIALS}") from error
    except Unreachable as error:
        raise StorageError(
            f"{uri}: {place} cannot be reached after {ATTEMPTS} attempts ({error}); check AWS_ENDPOINT_URL and the network"
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"{uri}: {place} failed: {error}; try again, or check AWS_ENDPOINT_URL") from error


def _client() -> Any:
    import boto3
    from botocore.config import Config

    endpoint = _endpoint()
    config = Config(
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=WORKERS + 1,
        connect_timeout=5,
        read_timeout=60,
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        # a session of its own: boto3's shared one keeps the first credentials that it saw
        return boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)
    except ValueError as error:
        raise ConfigError(f"S3: {error}; set AWS_ENDPOINT_URL to something like http://host:8333") from error


def _endpoint() -> str | None:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
    return next((value for name in names if (value := os.environ.get(name))), None)
