"""How far a long step is and how long it still takes, on standard error.

A terminal shows a bar; a log (a pod, a pipe) gets a line every few seconds, because bars are unreadable there.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

T = TypeVar("T")
LINE_EVERY_S = 5.0


def say(text: str) -> None:
    """Write one line to standard error, at once: standard output is for results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Warn users through the logger ``beear``, whose handler a program may replace."""
    if not _LOGGER.handlers:
        _LOGGER.addHandler(_Lines())
        _LOGGER.propagate = False
    _LOGGER.warning(text)


class _Lines(logging.Handler):
    """``warning: ...`` on whatever standard error is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


_LOGGER = logging.getLogger("beear")


class Progress:
    """One long piece of work of ``total`` equal parts.

    Args:
        label: what is being done, in a few words.
        total: how many parts.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, max(total, 1), 0
        self._note = ""
        self._began = self._printed = 0.0
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        self._began = self._printed = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Bar(
                # names and paths are shown as they are: "[/foo]" is no markup
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
                transient=False,
            )
            self._task = self._bar.add_task(self.label, total=self.total, note="")
            self._bar.start()
        else:
            self._print("started")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._print(f"done in {_clock(time.monotonic() - self._began)}")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more parts as done; ``note`` is a figure worth seeing (a loss, a rate)."""
        self.done = min(self.done + n, self.total)
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=self._note)
            return
        now = time.monotonic()
        if now - self._printed >= LINE_EVERY_S and self.done < self.total:
            self._printed = now
            left = (now - self._began) / self.done * (self.total - self.done)
            self._print(f"{self.done}/{self.total}, {_clock(left)} left")

    def extend(self, n: int) -> None:
        """Add ``n`` parts to do that were not foreseen."""
        self.total += n
        if self._bar is not None:
            self._bar.update(self._task, total=self.total)

    def _print(self, text: str) -> None:
        note = f"  {self._note}" if self._note else ""
        say(f"{self.label}: {text}{note}")


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Iterate over items and show progress."""
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Announce a piece of work that has no parts, and say how long it took."""
    began = time.monotonic()
    say(f"{label} ...")
    yield
    say(f"{label}: done in {_clock(time.monotonic() - began)}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
