"""What every component's face shares: nothing secret is printed, an error ends the process with its exit code, and the
MLflow run of the pipeline keeps how the step went.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast

from beear_core.errors import EXIT_ERROR, BeearError, StorageError
from beear_core.files import write_atomically
from beear_core.progress import say, warn
from beear_core.records import StepStatus
from beear_core.uris import hide_secrets

ERROR_FILE = "BEEAR_ERROR_FILE"
"""Environment variable: where to leave the error as JSON, for whoever started the process."""


class StepFailedError(BeearError):
    """A step ended with an error of its own, in another process; carries that error's kind and exit code."""

    def __init__(self, message: str, exit_code: int, kind: str = "StepFailedError") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self._kind = kind

    @property
    def kind(self) -> str:
        """Name the kind of the step's error."""
        return self._kind


@contextmanager
def reporting_errors(step: str = "", copy: TextIO | None = None) -> Iterator[None]:
    """Turn a ``BeearError`` into one line on standard error and its exit code; other errors show their traceback.

    Until the block ends, secrets are hidden in all that is printed, by libraries too. With ``BEEAR_ERROR_FILE`` set,
    ``{"error", "message", "exit_code", "step"}`` is written there; of several steps that fail the first one's stays.

    Args:
        step: of a pipeline, that this is.
        copy: what is printed goes here, too.

    Raises:
        SystemExit: with the error's exit code.
    """
    out, err = (cast(TextIO, _Discreet(stream, copy)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        except BeearError as error:
            # the pod's log is where users of the cluster look first
            say(f"error: {error}")
            _leave(error, step)
            raise SystemExit(error.exit_code) from error
        except Exception as error:
            # shown here: the interpreter would show it with the secrets that a library put into its message
            say(traceback.format_exc())
            raise SystemExit(EXIT_ERROR) from error


class Telling:
    """Tells a run of MLflow how a step is; that it cannot be told is a warning and nothing more."""

    def __init__(self, step: str, records: Mapping[str, str], uri: str) -> None:
        self._records = {name: Path(path) for name, path in records.items()}
        self._uri, self._run_id = uri, ""
        self._status = StepStatus(step=step, state="running", began=_now())
        self.printed = io.StringIO()

    def to(self, run_id: str) -> None:
        """Tell that run that the step began; without an id nothing is told."""
        self._run_id = run_id
        self._note(self._status)

    def ended(self, error: BaseException | None = None, exit_code: int = 0) -> None:
        """Tell how the step ended, with what it printed and its records."""
        status = replace(self._status, state="failed" if exit_code else "done", ended=_now(), exit_code=exit_code)
        if error is not None:
            kind = error.kind if isinstance(error, BeearError) else type(error).__name__
            status = replace(status, error=kind, message=hide_secrets(str(error)))
        head = f"{status.step} {status.state}, {status.began} to {status.ended}\n"
        self._note(status, log=head + self.printed.getvalue(), records=self._records)

    def _note(self, status: StepStatus, **more: Any) -> None:
        if not self._run_id:
            return
        try:
            if not self._uri:
                warn(f"{status.step} tells MLflow nothing: set MLFLOW_TRACKING_URI for it")
                return
            from components.mlflow_store.steps import note_step

            note_step(self._uri, self._run_id, status, **more)
        except Exception as error:  # noqa: BLE001
            # hours of work must not be lost for a note; the gate logs all records again
            warn(f"MLflow was not told that {status.step} is {status.state}; the step goes on: {hide_secrets(str(error))}")


@contextmanager
def running(
    step: str, mlflow_run_id: str, records: Mapping[str, str] | None = None, registry_json: str = "{}"
) -> Iterator[Telling]:
    """Run a step of the pipeline, see ``reporting_errors``, and tell its MLflow run how it began and how it ended.

    Args:
        step: its name; one that runs twice has two.
        mlflow_run_id: of the pipeline's run; empty: nothing is told, until ``Telling.to`` names one.
        records: files that the step writes, by the names that the run keeps them under; nothing in them is to be redacted.
        registry_json: names MLflow where the step has it; MLFLOW_TRACKING_URI counts else.
    """
    forget_error_of(step)
    telling = Telling(step, records or {}, _tracking_uri(registry_json))
    try:
        with reporting_errors(step, telling.printed):
            telling.to(mlflow_run_id)
            yield telling
    except SystemExit as ended:
        telling.ended(ended.__cause__, ended.code if isinstance(ended.code, int) else EXIT_ERROR)
        raise
    telling.ended()


def left_error() -> dict[str, Any] | None:
    """Read what the first step that failed left in ``BEEAR_ERROR_FILE``; ``None`` where nothing was left."""
    try:
        found = json.loads(Path(os.environ[ERROR_FILE]).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def forget_error_of(step: str) -> None:
    """Remove what an earlier attempt of this step left in ``BEEAR_ERROR_FILE``."""
    found = left_error()
    if found is not None and found.get("step") == step:
        Path(os.environ[ERROR_FILE]).unlink(missing_ok=True)


class _Discreet:
    """A text stream that hides secrets in what is written to it, and writes a copy; all else is the stream's own."""

    def __init__(self, stream: TextIO, copy: TextIO | None) -> None:
        self._stream, self._copy = stream, copy

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("a stream of text takes no bytes")
        shown = hide_secrets(text)
        self._stream.write(shown)
        if self._copy is not None:
            self._copy.write(shown)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def write_failure(path: Path, error: BeearError, step: str = "") -> None:
    """Write an error as JSON: ``{"error", "message", "exit_code", "step"}``.

    Raises:
        StorageError: it cannot be written.
    """
    report = {"error": error.kind, "message": str(error), "exit_code": error.exit_code, "step": step}
    write_atomically(path, json.dumps(report, ensure_ascii=False).encode() + b"\n")


def read_failure(path: Path) -> StepFailedError | None:
    """Read what ``write_failure`` wrote; ``None``: there is no such error."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return StepFailedError(str(found["message"]), int(found["exit_code"]), str(found["error"]))


def _tracking_uri(registry_json: str) -> str:
    try:
        configured = json.loads(registry_json).get("tracking_uri")
    except (ValueError, AttributeError):
        # the step itself says what is wrong with it
        configured = None
    return str(configured or os.environ.get("MLFLOW_TRACKING_URI", ""))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _leave(error: BeearError, step: str) -> None:
    path = os.environ.get(ERROR_FILE)
    if not path or (step and left_error() is not None):
        return
    try:
        write_failure(Path(path), error, step)
    except StorageError as unwritten:
        # the error itself must not be lost behind this one
        say(f"error: {unwritten}")
