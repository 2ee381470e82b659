"""Python processes in which some packages cannot be imported, as where they are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

MODEL_PACKAGES = ("torch", "transformers", "accelerate", "datasets")
"""What the slim image lacks."""
_BLOCKER = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def without(names: Iterable[str], *arguments: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder with packages missing, on one core, with no MLflow that this process was told of."""
    (cwd / "blocked").mkdir(exist_ok=True)
    # Python imports it before anything else
    (cwd / "blocked" / "sitecustomize.py").write_text(_BLOCKER.format(names=tuple(names)))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    # what this process imports from stays first
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(cwd / "blocked"), *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
