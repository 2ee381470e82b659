"""Processes that outlive whoever started them: found again and ended, and nobody else's in their place."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.servers.program import Program, ServerError, is_free, write_private

_MARK = "BEEAR_SERVER"
"""A variable that every process of a server inherits; it names the server's folder."""
_SAME_S = 2.0  # the clock by which a system tells when a process began may be set
_END_S = 30.0
_CLOSE_S = 10.0


@dataclass(frozen=True)
class Started:
    """A process as it was when it was started; by its number alone it could be a stranger's by now."""

    pid: int
    at: float
    command: list[str]

    def find(self) -> psutil.Process | None:
        """Find it, if it runs still."""
        with suppress(psutil.Error):
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.at) < _SAME_S and found.cmdline() == self.command:
                return found
        return None


def find(program: Program) -> psutil.Process | None:
    """Find the process of a program that was started, now or earlier, and runs."""
    try:
        return Started(**json.loads(_note(program).read_text(encoding="utf-8"))).find()
    except (OSError, ValueError, TypeError):
        return None  # none was started, or a kill left half a note: then its mark tells


def launch(program: Program) -> None:
    """Start a program that does not run, and note its process."""
    environment = {**program.prepared(), _MARK: str(program.folder)}
    process = psutil.Process(program.launch(environment))
    # its command line cannot be read yet at the very moment when it begins
    noted = Started(process.pid, process.create_time(), list(program.command()))
    write_private(_note(program), json.dumps(dataclasses.asdict(noted)))


def require_ports(program: Program) -> None:
    """Refuse to start a program whose ports others have.

    Raises:
        ServerError: naming the port, and who listens there where the system tells.
    """
    for port in program.ports():
        if not is_free(port):
            raise ServerError(
                f"{program.name} needs port {port} of this machine, which {_listener(port)} has; end that, or choose other "
                "ports: make up SERVERS_PORT=<the first of them>"
            )


def end(program: Program) -> bool:
    """End a program and what it left, and wait until it is gone; tells whether it ran."""
    found, rest = find(program), list(_left(program))
    if found is not None:
        found.send_signal(program.ends_on)
        _wait([found])
        rest.append(found)
    for process in rest:
        with suppress(psutil.NoSuchProcess):
            process.kill()  # psutil looks first whether the number is another's by now
    _wait(rest)
    until = time.monotonic() + (_CLOSE_S if rest else 0)
    while time.monotonic() < until and not all(map(is_free, program.ports())):
        time.sleep(0.05)  # a process counts as ended when its first thread has, and others may still hold a port
    _note(program).unlink(missing_ok=True)
    return found is not None


def _wait(ending: list[psutil.Process]) -> None:
    """Wait until processes are gone, or are no more than a line in the system's table that nobody has taken note of."""
    until = time.monotonic() + _END_S
    while time.monotonic() < until and any(map(_runs, ending)):
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _note(program: Program) -> Path:
    return program.folder / "process.json"


def _left(program: Program) -> Iterator[psutil.Process]:
    """Find every process of a program by its mark, also those whose first one was killed."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(_MARK) == str(program.folder):
                yield process


def _listener(port: int) -> str:
    with suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return f"process {one.pid} ({psutil.Process(one.pid).name()})"
    return "another process"
