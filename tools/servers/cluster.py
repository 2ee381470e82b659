"""The servers of one folder: what they are told, their passwords, and how they are brought up and down together."""

from __future__ import annotations

import fcntl
import json
import secrets
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.servers import processes
from tools.servers.mlflow import Mlflow
from tools.servers.postgresql import PostgreSQL
from tools.servers.program import LOOPBACK, Program, ServerError, write_private
from tools.servers.seaweedfs import INNER, Keys, SeaweedFS

PORT = 18500
"""Of MLflow, unless another is chosen; the others follow it."""
BUCKET, USER = "beear", "release"
_ADMIN = "admin"
# keys are drawn, too: the value of an access key is hidden in all that a release prints, so it must be no word
_PASSWORDS = (
    "postgresql",
    "administrator",
    "release",
    "sessions",
    "s3_release",
    "s3_mlflow",
    "s3_release_key",
    "s3_mlflow_key",
)


class Cluster:
    """PostgreSQL, S3 and MLflow on both, as manifests/ has them: with passwords, and artifacts directly in S3.

    Args:
        folder: for all data, logs and passwords; made when it is not there.
        port: the first of the ports; ``None``: as the last time, else ``PORT``.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        noted = self._noted_port()
        self.port = port or noted or PORT
        self._moved = noted not in (None, self.port)
        self.passwords = self._known_passwords()
        self.database = PostgreSQL(
            folder=self.folder / "postgresql", port=self.port + 2, user="mlflow", password=self.passwords["postgresql"]
        )
        self.store = SeaweedFS(
            folder=self.folder / "seaweedfs",
            port=self.port + 1,
            inner=tuple(range(self.port + 3, self.port + 3 + INNER)),
            writer=Keys(self.passwords["s3_release_key"], self.passwords["s3_release"]),
            reader=Keys(self.passwords["s3_mlflow_key"], self.passwords["s3_mlflow"]),
            bucket=BUCKET,
        )
        self.mlflow = self._mlflow()

    @property
    def programs(self) -> tuple[Program, ...]:
        """In the order in which they are started."""
        return self.database, self.store, self.mlflow

    @property
    def env_file(self) -> Path:
        """Where what a release needs is exported."""
        return self.folder / "env"

    def up(self) -> dict[str, bool]:
        """Start what does not run, and wait until all can be used: by name, whether it was started.

        Raises:
            ServerError: a port is taken, or one does not start; what runs goes on running.
        """
        with self._alone():
            wanted = [program for program in self.programs if processes.find(program) is None]
            if self._moved and len(wanted) < len(self.programs):
                raise ServerError(
                    f"the servers in {self.folder} run at other ports than {self.port} and those that follow it; end them "
                    "first: make down"
                )
            for program in wanted:
                processes.end(program)  # what a kill may have left of it
            for program in wanted:
                processes.require_ports(program)
            write_private(self._settings, json.dumps({"port": self.port}))
            for program in wanted:
                if program is not self.mlflow:
                    processes.launch(program)
            self.database.wait()
            self.store.wait()
            for name in ("mlflow", "mlflow_auth"):
                self.database.create(name)
            if self.mlflow in wanted:
                processes.launch(self.mlflow)
            self.mlflow.wait()
            self._add_user()
            write_private(self.env_file, "".join(f"export {name}={value}\n" for name, value in self.environment().items()))
        return {program.name: program in wanted for program in self.programs}

    def down(self) -> dict[str, bool]:
        """End all of them and nothing else: by name, whether it ran."""
        with self._alone():
            return {program.name: processes.end(program) for program in reversed(self.programs)}

    def environment(self) -> dict[str, str]:
        """List what a release is told."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow.uri,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.passwords["release"],
            "AWS_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": self.store.writer.key,
            "AWS_SECRET_ACCESS_KEY": self.store.writer.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _mlflow(self) -> Mlflow:
        return Mlflow(
            folder=self.folder / "mlflow",
            port=self.port,
            store=self.database.uri("mlflow"),
            artifacts=f"s3://{BUCKET}/mlflow",
            auth=(
                f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {self.database.uri('mlflow_auth')}\n"
                f"admin_username = {_ADMIN}\nadmin_password = {self.passwords['administrator']}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
            ),
            given={
                "MLFLOW_SERVER_ALLOWED_HOSTS": f"localhost:*,{LOOPBACK}:*",
                "MLFLOW_FLASK_SERVER_SECRET_KEY": self.passwords["sessions"],
                # it only reads there, to show artifacts in its pages
                "AWS_ENDPOINT_URL": self.store.endpoint,
                "AWS_ACCESS_KEY_ID": self.store.reader.key,
                "AWS_SECRET_ACCESS_KEY": self.store.reader.secret,
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def _noted_port(self) -> int | None:
        return int(json.loads(self._settings.read_text())["port"]) if self._settings.is_file() else None

    def _known_passwords(self) -> dict[str, str]:
        """Read the passwords, or make them the first time."""
        path = self.folder / "passwords.json"
        with self._alone():
            if not path.is_file():
                write_private(path, json.dumps({name: secrets.token_hex(24) for name in _PASSWORDS}, indent=2) + "\n")
            return dict(json.loads(path.read_text(encoding="utf-8")))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one command at a time work on the folder."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _add_user(self) -> None:
        """Make the user of the releases, who is no administrator."""
        who = b64encode(f"{_ADMIN}:{self.passwords['administrator']}".encode()).decode()
        request = urllib.request.Request(
            f"{self.mlflow.uri}/api/2.0/mlflow/users/create",
            json.dumps({"username": USER, "password": self.passwords["release"]}).encode(),
            {"Authorization": f"Basic {who}", "Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if "RESOURCE_ALREADY_EXISTS" not in text:
                raise ServerError(
                    f"MLflow makes no user {USER}: {error.code} {text[:300]}; see {self.mlflow.log}"
                ) from error
