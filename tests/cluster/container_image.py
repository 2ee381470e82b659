"""The images, built from the Dockerfile by buildah without a container engine, and commands in them as in a pod."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from required import ROOT_ONLY

ROOT = Path(__file__).parents[2]
_BASE = "localhost/base"
_IN_MEMORY = 4 * 10**9
# how pip reaches its packages here; what else it is told is none of the image's business
_REACHING = ("cert", "extra-index-url", "find-links", "index-url", "proxy", "timeout", "trusted-host")
_AS_POD = """
mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs -o mode=1777 tmpfs "$0/tmp" &&
mkdir "$0/tmp/shared" && mount --bind "$1" "$0/tmp/shared" && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" &&
cd "$0/tmp" && shift && root="$0" && exec chroot --userspec=12345:0 --groups=0 "$root" "$@"
"""


def _sh(*command: object, env: dict[str, str] | None = None, timeout: float = 900) -> str:
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, f"{command[:4]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Image:
    """A built image, with its files mounted at ``root``."""

    name: str
    root: Path
    config: dict[str, Any]

    def run(self, *command: object, shared: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command as a pod would: uid 12345 of group 0, nothing to write but /tmp, the image's own variables.

        ``shared`` is at /tmp/shared, for what goes in and out.
        """
        variables = [*self.config["Env"], "LC_ALL=C.UTF-8"]
        inside = ["/usr/bin/env", "-i", "-C", self.config["WorkingDir"], *variables, *map(str, command)]
        outside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _AS_POD, str(self.root), str(shared)]
        return subprocess.run([*outside, *inside], capture_output=True, text=True, check=False, timeout=timeout)

    @cached_property
    def megabytes(self) -> int:
        """Its size on disk, with its base, in 10^6 bytes."""
        return int(_sh("du", "--summarize", "--block-size=1000000", "--one-file-system", self.root).split()[0])


class Builder:
    """Builds the targets of the Dockerfile on a base that debootstrap makes."""

    def __init__(self, place: Path, temporary: Path) -> None:
        self.place, self.temporary = place, temporary
        self.buildah = ("buildah", "--root", place / "root", "--runroot", place / "run")
        _sh("debootstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", "bookworm", place / "base")
        container = self._made("from", "scratch")
        # layer and all: what a base from a registry has, too
        _sh(*self.buildah, "config", "--env", f"PATH={os.defpath}:/usr/local/bin", container)
        _sh(*self.buildah, "add", "--quiet", container, place / "base", "/")
        _sh(*self.buildah, "commit", "--quiet", "--rm", container, _BASE)
        shutil.rmtree(place / "base")

    def build(self, target: str) -> Image:
        """Build one target."""
        conf, folders = self._pip()
        command = [*self.buildah, "build", "--isolation", "chroot", "--pull-never", "--target", target]
        arguments = {"BASE_IMAGE": _BASE, "COMMIT": "c0ffee", "TORCH_INDEX": _torch_index(folders)}
        command += [f"--build-arg={name}={value}" for name, value in arguments.items() if value is not None]
        command += [f"--secret=id=pip.conf,src={conf}", *(f"--volume={folder}:{folder}:ro" for folder in folders)]
        # else what builds keep for each other lies in /var/tmp, and builds that know nothing of each other share it
        _sh(*command, "--tag", f"localhost/{target}", ROOT, env=os.environ | {"TMPDIR": str(self.temporary)})
        container = self._made("from", "--pull-never", f"localhost/{target}")
        config = json.loads(_sh(*self.buildah, "inspect", "--type", "image", f"localhost/{target}"))["OCIv1"]["config"]
        return Image(target, Path(_sh(*self.buildah, "mount", container).strip()), config)

    def _made(self, *command: str) -> str:
        return _sh(*self.buildah, *command).strip().splitlines()[-1]

    def _pip(self) -> tuple[Path, list[Path]]:
        """Write how pip is configured here for the build alone, and name the files and folders that this speaks of."""
        told = _sh(sys.executable, "-m", "pip", "config", "list")
        values = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", told, re.MULTILINE))
        lines = [f"{key} = {value}" for key, value in values.items() if key in _REACHING]
        conf = self.place / "pip.conf"
        conf.write_text("\n".join(["[global]", *lines, ""]))
        named = [urlsplit(part) for value in values.values() for part in value.split()]
        places = [Path(part.path) for part in named if not part.scheme and part.path.startswith("/")]
        # the files of an index that lies in a folder are beside that
        places += [Path(part.path).parent for part in named if part.scheme == "file"]
        return conf, [path for path in dict.fromkeys(places) if path.exists()]


def _torch_index(folders: list[Path]) -> str | None:
    """Find torch's CPU build where pip is told to look for files, else leave it to the Dockerfile or TORCH_INDEX."""
    held = (folder.as_uri() for folder in folders if folder.is_dir() and any(folder.glob("torch-*+cpu-*.whl")))
    return os.environ.get("TORCH_INDEX") or next(held, None)


def _available() -> int:
    """Memory that is free or can be made so, in bytes."""
    told = Path("/proc/meminfo").read_text()
    return int(re.findall(r"^MemAvailable: +(\d+) kB$", told, re.MULTILINE)[0]) * 1024


@contextmanager
def builder(*, in_memory: bool) -> Iterator[Builder]:
    """Give a builder, and remove all that it made; skips the test where nothing can be built.

    ``in_memory``: the slim image alone fits there.
    """
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install --no-install-recommends buildah debootstrap")
    if os.geteuid() != 0:
        pytest.skip(ROOT_ONLY)
    # not in pytest's own folder, which keeps three of them, of gigabytes each
    with tempfile.TemporaryDirectory(prefix="beear-image-", dir="/var/tmp") as folder:
        made, temporary = Path(folder, "made"), Path(folder, "temporary")
        made.mkdir()
        temporary.mkdir()
        if in_memory and _available() > 2 * _IN_MEMORY:
            # a hundred thousand small files, written, read and removed again: on a busy disk that takes most of the time
            _sh("mount", "-t", "tmpfs", "-o", f"size={_IN_MEMORY}", "tmpfs", made)
        try:
            yield Builder(made, temporary)
        finally:
            # far faster than buildah's own way, which takes every layer apart
            mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
            for mount in reversed([one for one in mounts if Path(one).is_relative_to(made)]):
                subprocess.run(["umount", "--lazy", mount], check=True)
