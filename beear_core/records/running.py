"""Which code runs here: the packages of this project by commit and digest, all others by name and version, the image."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from beear_core.files import digest_bytes, digest_file

IMAGE_DIGEST = "BEEAR_IMAGE_DIGEST"
"""Environment variable: the image that a step runs in, by digest; set in a pipeline compiled for images by digest."""
_ROOT = Path(__file__).parents[2]
_PACKAGES = ("beear_core", "components", "pipelines")
_SOURCES = {".py", ".yaml"}
_GIT_S = 10.0


@cache
def code_digest() -> str:
    """Compute a digest over path and bytes of every source file and policy of this project, as they lie on this disk.

    A wheel, an image and a checkout of the same commit give the same.
    """
    found = (path for package in _PACKAGES for path in (_ROOT / package).rglob("*") if path.suffix in _SOURCES)
    lines = sorted(f"{path.relative_to(_ROOT).as_posix()} {digest_file(path)}" for path in found)
    return digest_bytes("\n".join(lines).encode())


@cache
def commit() -> str:
    """Find the commit: BEEAR_COMMIT, as an image carries it, else git's of a checkout, with ``+`` behind it where changed.

    Empty where neither is there.
    """
    if named := os.environ.get("BEEAR_COMMIT"):
        return named
    if not (_ROOT / ".git").exists():
        return ""
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", *_PACKAGES)
    return f"{head}+" if head and changes else head


def packages_digest() -> str:
    """Compute a digest over name and version of every Python package that is installed, as a lock file names them."""
    lines = {f"{found.name.lower().replace('_', '-')}=={found.version}" for found in distributions() if found.name}
    return digest_bytes("\n".join(sorted(lines)).encode())


def image() -> str:
    """Read the image that this runs in, by its digest; empty outside of one."""
    return os.environ.get(IMAGE_DIGEST, "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
