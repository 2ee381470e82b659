"""S3 and what speaks its protocol: SeaweedFS, MinIO, Ceph, AWS.

Credentials, region and endpoint come from the usual variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...). Checksums are
sent only where the protocol requires them, because other implementations refuse the newer ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beear_core.errors import ConfigError, ModelNotFoundError, StorageError
from beear_core.files import BLOCK, digest_file
from beear_core.progress import Progress, warn
from beear_core.uris import without_secrets
from components.storage.common import Select, byte_progress, check_relative, require_space

ATTEMPTS = 4
_NOT_THERE = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}
_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what this identity may do there"


def parse(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/prefix`` into bucket and prefix (without slashes at its ends).

    Raises:
        ConfigError: if either is missing.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket or not prefix.strip("/"):
        raise ConfigError(f"{uri!r} names no folder in a bucket; write s3://bucket/prefix")
    return bucket, prefix.strip("/")


def _client() -> Any:
    import boto3
    from botocore.config import Config

    endpoint = _endpoint()
    config = Config(
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
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


def _place() -> str:
    """Name the store for a message, without secrets."""
    return without_secrets(_endpoint() or "AWS")


def _refusal(uri: str, error: Any) -> StorageError:
    """Turn what the server answered into an error of ours."""
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    if code in ("InternalError", "SlowDown", "ServiceUnavailable", "503", "500"):
        return StorageError(f"{uri}: {_place()} fails with {code} after {ATTEMPTS} attempts; try again later")
    return StorageError(f"{uri}: {_place()} refuses with {code}; {_CREDENTIALS}")


@contextmanager
def _explained(uri: str) -> Iterator[Any]:
    """Open a client whose errors come out as ours, with what to do about them."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as Unreachable

    place = _place()
    try:
        yield _client()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in _NOT_THERE:
            what = "bucket" if code == "NoSuchBucket" else "object"
            raise ModelNotFoundError(f"no such {what} for {uri} at {place} ({code}); check the name") from error
        raise _refusal(uri, error) from error
    except NoCredentialsError as error:
        raise StorageError(f"{uri}: no credentials found; {_CREDENTIALS}") from error
    except Unreachable as error:
        raise StorageError(
            f"{uri}: {place} cannot be reached after {ATTEMPTS} attempts ({error}); check AWS_ENDPOINT_URL and the network"
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        if isinstance(error.__context__, ClientError):  # boto3 hides what the server said in a sentence
            raise _refusal(uri, error.__context__) from error
        raise StorageError(f"{uri}: {place} failed: {error}; try again, or check AWS_ENDPOINT_URL") from error


def _list(client: Any, bucket: str, prefix: str) -> dict[str, int]:
    """List sizes in bytes by name relative to the prefix; folder markers are left out."""
    sizes = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for item in page.get("Contents", ()):
            name = item["Key"][len(prefix) + 1 :]
            if name and not name.endswith("/"):
                sizes[name] = int(item["Size"])
    return sizes


def fetch(uri: str, dest: Path, select: Select) -> tuple[str, ...]:
    """Download the selected objects below a prefix into an existing folder; returns the names that were left out.

    Raises:
        ModelNotFoundError: no such bucket, or nothing below the prefix.
        StorageError: unreachable, refused, incomplete, or no room.
    """
    bucket, prefix = parse(uri)
    with _explained(uri) as client:
        sizes = _list(client, bucket, prefix)
        if not sizes:
            raise ModelNotFoundError(f"nothing lies below {uri}; check the bucket and the prefix")
        names = select(tuple(sorted(check_relative(name, uri) for name in sizes)))
        wanted = {name: sizes[name] for name in names}
        require_space(dest, sum(wanted.values()))
        with byte_progress(f"fetching {uri}", wanted) as advance:
            for name, size in wanted.items():
                path = dest / name
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, f"{prefix}/{name}", str(path), Callback=advance)
                if (arrived := path.stat().st_size) != size:
                    raise StorageError(f"{uri}/{name}: {arrived} of {size} bytes arrived; it changed meanwhile, try again")
    return tuple(sorted(set(sizes) - set(names)))


def upload(source: Path, names: Sequence[str], uri: str) -> None:
    """Upload files below a prefix that holds nothing yet, and read each back to compare its digest.

    What was uploaded is removed again if anything fails, so that no incomplete folder is left to be found.

    Raises:
        StorageError: unreachable, refused, the prefix is not empty, or what is read back differs.
    """
    bucket, prefix = parse(uri)
    try:
        with _explained(uri) as client:
            if _list(client, bucket, prefix):
                raise StorageError(f"{uri} holds objects already and is not overwritten; choose another prefix")
            try:
                _upload(client, source, names, bucket, prefix)
            except BaseException:
                _take_back(client, names, bucket, prefix)
                raise
    except ModelNotFoundError as error:
        raise StorageError(f"cannot upload: {error}") from error


def _take_back(client: Any, names: Sequence[str], bucket: str, prefix: str) -> None:
    """Remove an incomplete upload; where that fails too, only warn, so that the first error is the one reported."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        for name in names:
            client.delete_object(Bucket=bucket, Key=f"{prefix}/{name}")
    except (BotoCoreError, ClientError) as error:
        warn(f"an incomplete upload may be left below s3://{bucket}/{prefix}, remove it: {error}")


def _upload(client: Any, source: Path, names: Sequence[str], bucket: str, prefix: str) -> None:
    sizes = {name: (source / name).stat().st_size for name in names}
    with byte_progress(f"uploading to s3://{bucket}/{prefix}", sizes) as advance:
        for name in names:
            client.upload_file(str(source / name), bucket, f"{prefix}/{name}", Callback=advance)
    with Progress(f"verifying s3://{bucket}/{prefix} (files)", len(names)) as progress:
        for name in names:
            sha = hashlib.sha256()
            body = client.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"]
            for block in body.iter_chunks(BLOCK):
                sha.update(block)
            if f"sha256:{sha.hexdigest()}" != digest_file(source / name):
                raise StorageError(f"s3://{bucket}/{prefix}/{name} reads back differently from {source / name}; try again")
            progress.advance()
