"""The ``beear`` command in processes that are forked from one that has imported everything: 30 ms instead of many seconds.

Each is a process like any other: it has an exit code, and it can be killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

# whatever a promotion imports on its way
_IMPORTED = [
    "components.passport.bom",
    "components.passport.card",
    "components.registry_gate.step",
    "cyclonedx.output.json",
    "huggingface_hub",
    "components.mlflow_store.lock",
    "mlflow.artifacts",
    "mlflow.transformers",
    "pipelines.cli",
    "pytest",  # the program that starts these is imported by each of them
    "torch",
    "transformers",
]


@dataclass(frozen=True)
class Stop:
    """Where a process kills itself, if it is the first of its round to come there.

    ``call``: of MLflow's client; the one that is ``number``, from 1, of those that did not fail. ``when``: before, during
    or after it. ``token``: made by the first one; it holds the process's id and the time.
    """

    call: str
    number: int
    when: str
    token: Path


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal, and all that it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class Running:
    """A command that runs, and the file that it prints to."""

    process: ForkServerProcess
    log: Path

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGKILL)

    def wait(self, seconds: float = 240) -> Ended:
        """Wait until it has ended.

        Raises:
            TimeoutError: it has not; it is killed then.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"still running after {seconds} s:\n{self.log.read_text(errors='replace')[-3000:]}")
        return Ended(self.process.exitcode, self.log.read_text(errors="replace"))


def start(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    *,
    stop: Stop | None = None,
    lock: Mapping[str, float] | None = None,
) -> Running:
    """Start ``beear`` with these arguments.

    Args:
        arguments: of the command.
        log: what it prints is added here.
        environment: in which it runs, beside this process's own without MLflow's variables.
        stop: where it is to kill itself.
        lock: expiry and margin of the promotion lock in seconds, where they are not to be those of the code.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    given = (arguments, str(log), dict(environment), stop, dict(lock or {}))
    process = context.Process(target=_run, args=given, daemon=True)
    process.start()
    return Running(process, log)


def _run(arguments: list[str], log: str, environment: dict[str, str], stop: Stop | None, lock: dict[str, float]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"} | environment)
    if lock:
        _shorten(lock)
    if stop:
        _arm(stop)
    from components.command import start as run
    from pipelines.cli import app

    try:
        run(app, "beear", arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _shorten(lock: dict[str, float]) -> None:
    import functools

    from components.mlflow_store import champion

    champion.PromotionLock = functools.partial(champion.PromotionLock, **lock)  # type: ignore[assignment,misc]


def _arm(stop: Stop) -> None:
    """Put the kill around a call of MLflow's client."""
    from mlflow.tracking import MlflowClient

    real: Callable[..., Any] = getattr(MlflowClient, stop.call)
    made = [0]

    def armed(self: Any, *given: Any, **named: Any) -> Any:
        here = made[0] + 1 == stop.number
        if here and stop.when == "before":
            _die(stop)
        if here and stop.when == "during":
            # a call takes about 10 ms: sometimes the server has acted already, sometimes it has not
            threading.Timer(0.001 * (os.getpid() % 12), _die, [stop]).start()
        answer = real(self, *given, **named)
        made[0] += 1
        if here and stop.when == "after":
            _die(stop)
        return answer

    setattr(MlflowClient, stop.call, armed)


def _die(stop: Stop) -> None:
    """End this process by SIGKILL, unless another of its round was first."""
    try:
        token = os.open(stop.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.write(token, json.dumps({"pid": os.getpid(), "at": time.time()}).encode())
    os.kill(os.getpid(), signal.SIGKILL)
