"""What every component's face shares: a user's error ends the process with its message and its own exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beear_core.errors import BeearError, StorageError
from beear_core.files import write_atomically
from beear_core.progress import say

ERROR_FILE = "BEEAR_ERROR_FILE"
"""Environment variable: where to leave the error as JSON, for whoever started the process."""


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn a ``BeearError`` into one line on standard error and its exit code; other errors keep their traceback.

    With ``BEEAR_ERROR_FILE`` set, ``{"error", "message", "exit_code"}`` is written there too.

    Raises:
        SystemExit: with the error's exit code.
    """
    try:
        yield
    except BeearError as error:
        # the pod's log is where users of the cluster look first
        say(f"error: {error}")
        _leave(error)
        raise SystemExit(error.exit_code) from error


def _leave(error: BeearError) -> None:
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    report = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    try:
        write_atomically(Path(path), json.dumps(report, ensure_ascii=False).encode() + b"\n")
    except StorageError as unwritten:
        # the error itself must not be lost behind this one
        say(f"error: {unwritten}")
