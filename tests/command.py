"""The command as a user starts it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def beear(*arguments: object, cwd: Path, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run ``beear`` in a folder, on one core, with no MLflow that this process was told of."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
