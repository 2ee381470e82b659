"""What a release shows while it runs: KFP's local runner and every step write into one log; people see what matters."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path
from typing import TextIO

from beear_core.uris import hide_secrets

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_BEGUN = re.compile(r"Executing task '([\w-]+)'")
_STEP_INDENT = "    "  # KFP's local runner indents what a step prints by this
_NOISE = re.compile(
    r"\[KFP Executor|it/s\]|Downloading artifacts|Loading weights|Writing model shards|"
    r"\.py:\d+: \w*Warning: |warnings\.warn|^\s*$|WARNING mlflow|\[transformers\]|INFO  \[alembic|INFO mlflow"
)


class StepLog(io.TextIOBase):
    """A text stream that keeps everything in a file and shows steps, progress and errors on standard error.

    Args:
        file: the whole log.
        steps: how many steps the pipeline has.
        shown: where people look; standard error by default.
    """

    def __init__(self, file: Path, steps: int, shown: TextIO | None = None) -> None:
        super().__init__()
        self._file = file.open("w", encoding="utf-8", errors="backslashreplace")  # paths need not be UTF-8
        self._shown = shown or sys.stderr
        self._steps, self._step = steps, 0
        self._began = time.monotonic()
        self._rest = ""
        self._in_executor_input = self._in_outputs = False

    def writable(self) -> bool:
        """Tell callers that this stream takes text."""
        return True

    def write(self, text: str) -> int:
        """Take text in any pieces; a line is looked at once it is whole. No secret gets into the file."""
        self._file.write(hide_secrets(text))
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._show(line)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        if not self._file.closed:
            self._file.flush()
        self._shown.flush()

    def close(self) -> None:
        """Show what came without an end of line, and close the log file."""
        self._file.close()
        rest, self._rest = self._rest, ""
        if rest:
            self._show(rest)
        super().close()

    def _show(self, raw: str) -> None:
        """Look at one line as a terminal leaves it: without colours, the last of states written over each other."""
        line = _ANSI.sub("", raw.removesuffix("\r").rsplit("\r", 1)[-1])
        if not line.startswith(_STEP_INDENT) and (begun := _BEGUN.search(line)):
            self._step += 1
            self._in_outputs = False
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            self._print(f"[{minutes}:{seconds:02d}] step {self._step} of {self._steps}: {begun[1].replace('-', ' ')}")
            return
        if not line.startswith(_STEP_INDENT):
            # behind this KFP lists a step's outputs, indented like what the step printed
            self._in_outputs = self._in_outputs or line.rstrip().endswith("outputs:")
            return
        if self._in_outputs:
            return
        step_line = line.removeprefix(_STEP_INDENT)
        if self._in_executor_input:
            self._in_executor_input = step_line != "}"
            return
        self._in_executor_input = "Got executor_input:" in step_line
        if not _NOISE.search(step_line):
            self._print(f"    {step_line}")

    def _print(self, text: str) -> None:
        self._shown.write(text + "\n")
        self._shown.flush()
