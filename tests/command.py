"""The command as a user starts it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def begin(*arguments: object, cwd: Path, given: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin ``beear`` in a folder, on one core, with what it is ``given`` and no MLflow that this process was told of."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment | dict(given or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Wait for the end of what was begun; what does not end is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def beear(
    *arguments: object, cwd: Path, timeout: float = 400, given: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``beear`` to its end."""
    return ended(begin(*arguments, cwd=cwd, given=given), timeout)
