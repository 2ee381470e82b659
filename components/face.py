"""What every component's face shares: nothing secret is printed, and an error ends the process with its exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from beear_core.errors import EXIT_ERROR, BeearError, StorageError
from beear_core.files import write_atomically
from beear_core.progress import say
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
def reporting_errors() -> Iterator[None]:
    """Turn a ``BeearError`` into one line on standard error and its exit code; other errors show their traceback.

    Until the block ends, secrets are hidden in all that is printed, by libraries too. With ``BEEAR_ERROR_FILE`` set,
    ``{"error", "message", "exit_code"}`` is written there.

    Raises:
        SystemExit: with the error's exit code.
    """
    out, err = (cast(TextIO, _Discreet(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        except BeearError as error:
            # the pod's log is where users of the cluster look first
            say(f"error: {error}")
            _leave(error)
            raise SystemExit(error.exit_code) from error
        except Exception as error:
            # shown here: the interpreter would show it with the secrets that a library put into its message
            say(traceback.format_exc())
            raise SystemExit(EXIT_ERROR) from error


class _Discreet:
    """A text stream that hides secrets in what is written to it; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("a stream of text takes no bytes")
        self._stream.write(hide_secrets(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def write_failure(path: Path, error: BeearError) -> None:
    """Write an error as JSON: ``{"error", "message", "exit_code"}``.

    Raises:
        StorageError: it cannot be written.
    """
    report = {"error": error.kind, "message": str(error), "exit_code": error.exit_code}
    write_atomically(path, json.dumps(report, ensure_ascii=False).encode() + b"\n")


def read_failure(path: Path) -> StepFailedError | None:
    """Read what ``write_failure`` wrote; ``None``: there is no such error."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return StepFailedError(str(found["message"]), int(found["exit_code"]), str(found["error"]))


def _leave(error: BeearError) -> None:
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    try:
        write_failure(Path(path), error)
    except StorageError as unwritten:
        # the error itself must not be lost behind this one
        say(f"error: {unwritten}")
