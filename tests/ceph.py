"""Ceph's S3 gateway on loopback for tests: another implementation than SeaweedFS, from Debian's packages."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from servers import READER, WRITER

from tools.servers.program import LOOPBACK, Program, free_port
from tools.servers.seaweedfs import s3_client

PACKAGES = "ceph-mon ceph-osd radosgw ceph-common"
MISSING = f"Ceph is not installed: apt-get install --no-install-recommends {PACKAGES}"
_COMMANDS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool")
_CONF = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
crash dir = {folder}
mon data = {folder}/mon
osd data = {folder}/osd
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
[osd.0]
osd objectstore = memstore
memstore device bytes = {memory}
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


def installed() -> bool:
    return all(map(shutil.which, _COMMANDS))


@dataclass(kw_only=True)
class Daemon(Program):
    """One of Ceph's daemons in the foreground. ``check``: tells whether it can be used."""

    daemon: str
    arguments: Sequence[str]
    check: Callable[[], bool]
    name = "Ceph"
    start_s = 120

    def command(self) -> Sequence[str]:
        return [self.daemon, "-f", "-c", str(self.folder / "ceph.conf"), *self.arguments]

    def answers(self) -> bool:
        return self.check()


class Ceph:
    """A monitor, one store in memory, and the gateway; ``kill`` ends the gateway alone, so that the data stay.

    Args:
        folder: for all they write.
        memory: bytes that can be stored.
    """

    def __init__(self, folder: Path, memory: int = 8 << 30) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        port, mon_port = free_port(), free_port()
        self.endpoint = f"http://{LOOPBACK}:{port}"
        self._fsid = str(uuid.uuid4())
        conf = _CONF.format(fsid=self._fsid, folder=folder, mon_port=mon_port, port=port, memory=memory)
        (folder / "ceph.conf").write_text(conf)
        self._begun = False
        self._mon_address = f"[v2:{LOOPBACK}:{mon_port}]"
        self._mon = self._daemon("ceph-mon", ("-i", "a"), mon_port, self._mon_answers)
        self._osd = self._daemon("ceph-osd", ("-i", "0"), mon_port, self._osd_is_up)
        self._gateway = self._daemon("radosgw", ("-n", "client.rgw"), port, self._listens)

    def _daemon(self, name: str, arguments: Sequence[str], port: int, check: Callable[[], bool]) -> Daemon:
        return Daemon(folder=self.folder, port=port, daemon=name, arguments=arguments, check=check)

    def start(self) -> None:
        """Start the gateway; the first time make the cluster and its users before.

        Raises:
            ServerError: a daemon is not ready in time; with the end of the log.
        """
        if not self._begun:
            self._begin()
        self._gateway.start()
        if not self._begun:
            self._make_users()
        self._begun = True

    def _begin(self) -> None:
        keyring, monmap, new = self.folder / "keyring", self.folder / "monmap", str(uuid.uuid4())
        all_of_it = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        for number, name in enumerate(("mon.", "client.admin", "osd.0", "client.rgw")):
            self._run("ceph-authtool", *(["-C"] if not number else []), keyring, "--gen-key", "-n", name, *all_of_it)
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", self._mon_address, monmap)
        for place in ("mon", "osd"):
            (self.folder / place).mkdir()
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._mon.start()
        self._run("ceph", "auth", "import", "-i", keyring)
        self._run("ceph", "osd", "new", new)
        self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", new)
        self._osd.start()

    def _make_users(self) -> None:
        who = ("user", "create", "--uid=tester", "--display-name=tester")
        self._administer(*who, f"--access-key={WRITER.key}", f"--secret-key={WRITER.secret}")
        who = ("subuser", "create", "--uid=tester", "--subuser=tester:reader", "--access=read", "--key-type=s3")
        self._administer(*who, f"--access-key={READER.key}", f"--secret-key={READER.secret}")

    def kill(self) -> None:
        """End the gateway at once; what was stored stays."""
        self._gateway.kill()

    def limit(self, size: int) -> None:
        """Let its user store no more than so many bytes."""
        self._administer("quota", "set", "--quota-scope=user", "--uid=tester", f"--max-size={size}")
        self._administer("quota", "enable", "--quota-scope=user", "--uid=tester")

    def end(self) -> None:
        for daemon in (self._gateway, self._osd, self._mon):
            daemon.kill()

    def _administer(self, *arguments: str) -> None:
        self._run("radosgw-admin", "-n", "client.rgw", *arguments)

    def _run(self, name: str, *arguments: object) -> str:
        given = ["-c", str(self.folder / "ceph.conf")] if name not in {"ceph-authtool", "monmaptool"} else []
        done = subprocess.run(
            [name, *given, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=self.folder, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name} {arguments}: {done.stderr[-2000:]}")
        return done.stdout

    def _mon_answers(self) -> bool:
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            return bool(self._run("ceph", "--connect-timeout", "5", "-s"))
        return False

    def _osd_is_up(self) -> bool:
        return json.loads(self._run("ceph", "osd", "stat", "-f", "json"))["num_up_osds"] == 1

    def _listens(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            s3_client(self.endpoint, WRITER).list_buckets()
        except BotoCoreError:
            return False
        except ClientError:
            pass  # before its users are made it knows nobody
        return True
