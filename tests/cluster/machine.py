"""One pod on this machine: its environment as the manifest says, and its file system, read-only but for what is its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rendered import MANIFESTS, Object, find

_START_S = 180


@dataclass
class Machine:
    """A folder that stands for a pod's file system, and what is put in the place of a cluster's addresses."""

    folder: Path
    values: dict[str, str]

    def secret(self, name: str) -> str:
        """An example of a secret with the values of this test."""
        text = (MANIFESTS / "secrets.example" / name).read_text()
        for place, value in self.values.items():
            text = text.replace(place, value)
        return text

    def variables(self, name: str) -> dict[str, str]:
        lines = [line for line in self.secret(f"{name}.env").splitlines() if line and not line.startswith("#")]
        return dict(line.split("=", 1) for line in lines)


def environment(container: Object, objects: list[Object], machine: Machine) -> dict[str, str]:
    """What a container is told by its manifest."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            (data,) = [
                one["data"]
                for one in objects
                if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", source["configMapRef"]["name"])
            ]
            found |= data
        else:
            found |= machine.variables(source["secretRef"]["name"])
    for variable in container.get("env", []):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            named = variable["valueFrom"]["configMapKeyRef"]
            found[variable["name"]] = find(objects, "ConfigMap", named["name"])["data"][named["key"]]
    return {name: machine.values.get(value, value) for name, value in found.items()}


def image_environment(tmp: Path) -> dict[str, str]:
    """What the Dockerfile sets, with /tmp in its place."""
    text = (MANIFESTS.parent / "Dockerfile").read_text()
    block = re.search(r"^ENV (.*?)\n(?!\s)", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    pairs = dict(one.split("=", 1) for one in block[1].replace("\\\n", " ").split())
    return {name: value.replace("/tmp", str(tmp)) for name, value in pairs.items() if "$" not in value}


_ASIDE = ("/mnt", "/media", "/srv")  # empty folders of every Debian


def _read_only(folder: Path) -> str:
    """Write what gives a pod's ``/tmp`` of its own, with the folder in it, and makes all else below ``/`` read-only.

    This checkout and its interpreter may lie below ``/tmp``, too.
    """
    own = (Path(__file__).parents[2], Path(sys.prefix))
    kept = [shlex.quote(str(p)) for p in dict.fromkeys((folder, *(p for p in own if p.is_relative_to("/tmp"))))]
    aside = list(zip(kept, _ASIDE, strict=False))
    steps = [f"mount --bind {place} {other}" for place, other in aside]
    steps += ["mount -t tmpfs tmpfs /tmp"]
    steps += [f"mkdir -p {place} && mount --bind {other} {place} && umount {other}" for place, other in aside]
    return " && ".join([*steps, "mount -o remount,bind,ro /", 'exec "$@"'])


@contextmanager
def started(command: list[str], given: dict[str, str], cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, as root on a read-only file system, and stop it with all that it started."""
    if os.geteuid() == 0 and shutil.which("unshare"):
        own = ["sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            _read_only(cwd.parent),
            "sh",
            *own,
            *command,
        ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **given},
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            assert answer.status == 200
            return
        time.sleep(0.2)
    raise AssertionError(f"{address} did not answer:\n{log.read_text(errors='replace')[-4000:]}")
