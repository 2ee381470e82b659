"""A server program on loopback: started, waited for, ended; its output lies in a log beside its data."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from beear_core.errors import BeearError

LOOPBACK = "127.0.0.1"


class ServerError(BeearError):
    """A server that cannot be started, or does not answer in time."""


@dataclass(kw_only=True)
class Program(ABC):
    """A server with all that it writes in ``folder``, that can be started, ended, and started again on the same port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    name: ClassVar[str]
    start_s: ClassVar[float]
    ends_on: ClassVar[signal.Signals] = signal.SIGTERM

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Name the program and its arguments; no secret stands there, because everybody can see them."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it can be used."""

    def prepare(self) -> Mapping[str, str]:
        """Write what it reads at its start; returns its environment."""
        return os.environ

    def ports(self) -> tuple[int, ...]:
        """List the ports that it takes."""
        return (self.port,)

    def account(self) -> str | None:
        """Name the user that it runs as; ``None`` for the one that starts it."""
        return None

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name.lower()}.log"

    def start(self) -> None:
        """Start it and wait until it can be used.

        Raises:
            ServerError: it ended or was not ready in time; with the end of its log.
        """
        self.launch(self.prepared())
        self.wait()

    def prepared(self) -> Mapping[str, str]:
        """Make its folder and what it reads there; returns its environment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.prepare()

    def launch(self, environment: Mapping[str, str]) -> int:
        """Start the process and do not wait; returns its number."""
        with self.log.open("ab") as output:
            # a session of its own: some have workers, and an interrupted terminal is not to end them
            self.process = subprocess.Popen(
                self.command(),
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.account(),
            )
        return self.process.pid

    def wait(self) -> None:
        """Wait until it can be used; one that was started here and is not is killed.

        Raises:
            ServerError: see ``start``.
        """
        until = time.monotonic() + self.start_s
        while time.monotonic() < until and (self.process is None or self.process.poll() is None):
            if self.answers():
                return
            time.sleep(0.2)
        self.kill()
        end = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
        raise ServerError(f"{self.name} was not ready within {self.start_s:.0f} s; the end of {self.log}:\n{end}")

    def kill(self) -> None:
        """End it at once with all that it started, if it was started here."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def is_free(port: int) -> bool:
    """Tell whether a port of loopback can be listened on."""
    with socket.socket() as one:
        # what a server that has ended leaves behind for a minute is no obstacle
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            one.bind((LOOPBACK, port))
            return True
    return False


def free_port(*further: int) -> int:
    """Find a port that is free now, and so are those that lie ``further`` above it."""
    while True:
        # all of them below those that the system gives to whoever connects
        port = random.randint(10_000, 32_000 - max(further, default=0))
        if all(is_free(port + more) for more in (0, *further)):
            return port
