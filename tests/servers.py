"""S3 servers on loopback for tests: where they answer, and who may do what there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.servers.program import free_port
from tools.servers.seaweedfs import GRPC, INNER, Keys, SeaweedFS, s3_client

WRITER, READER = Keys("tester", "tester-secret"), Keys("reader", "reader-secret")


@dataclass(frozen=True)
class S3Server:
    """A running server: where it answers and how to speak to it.

    Use one bucket with many prefixes: each new bucket takes several of SeaweedFS's volumes.
    """

    endpoint: str

    def environment(self, *, read_only: bool = False) -> dict[str, str]:
        """The variables that S3 clients read."""
        keys = READER if read_only else WRITER
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": keys.key,
            "AWS_SECRET_ACCESS_KEY": keys.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A client of its own, apart from the one under test."""
        return s3_client(self.endpoint, WRITER)

    def make_bucket(self, name: str) -> None:
        """Make a bucket unless it is there."""
        client = self.client()
        with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)


def new_seaweedfs(folder: Path) -> SeaweedFS:
    """A SeaweedFS with its data in ``folder``, on ports that are free."""
    ports = tuple(free_port(GRPC) for _ in range(1 + INNER))
    return SeaweedFS(folder=folder, port=ports[0], inner=ports[1:], writer=WRITER, reader=READER, bucket="ready")
