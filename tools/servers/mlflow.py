"""MLflow's server."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tools.servers.program import LOOPBACK, Program, write_private


@dataclass(kw_only=True)
class Mlflow(Program):
    """MLflow's server.

    ``store``: SQLAlchemy's URI of its database. ``artifacts``: where they lie; ``served``: by the server, not by S3.
    ``auth``: the text of its ``basic_auth.ini``; empty for no passwords.
    """

    store: str
    artifacts: str
    served: bool = False
    auth: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    name = "MLflow"
    start_s = 120

    @property
    def uri(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def prepare(self) -> Mapping[str, str]:
        """Write who is administrator; what the caller's MLflow is told is not for this one."""
        found = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        root = "MLFLOW_ARTIFACTS_DESTINATION" if self.served else "MLFLOW_DEFAULT_ARTIFACT_ROOT"
        found |= {"MLFLOW_BACKEND_STORE_URI": self.store, root: self.artifacts, "MLFLOW_DISABLE_TELEMETRY": "true"}
        # its job runners, a dozen processes that nothing here needs, stay off
        found |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        if self.auth:
            write_private(self.folder / "basic_auth.ini", self.auth)
            found |= {"MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini")}
        return {**found, **self.given}

    def command(self) -> Sequence[str]:
        """Start it as manifests/base does."""
        command = [sys.executable, "-m", "mlflow", "server", f"--host={LOOPBACK}", f"--port={self.port}", "--workers=1"]
        command += ["--app-name=basic-auth"] if self.auth else []
        return command if self.served else [*command, "--no-serve-artifacts"]

    def answers(self) -> bool:
        """Ask for its health, which needs no password."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
