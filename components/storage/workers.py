"""Threads that work together: where one fails, the others begin nothing more, and its error is the one that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event, Lock
from types import TracebackType
from typing import Any, Self


class Workers:
    """``n`` threads, until the end of a ``with`` block."""

    def __init__(self, n: int) -> None:
        self._pool, self._stop, self._lock = ThreadPoolExecutor(n), Event(), Lock()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._stop.set()
        self._pool.shutdown(cancel_futures=kind is not None)

    def check(self) -> None:
        """Give up what is being done, inside a thread, if another one failed.

        Raises:
            CancelledError: so it is.
        """
        if self._stop.is_set():
            raise CancelledError

    def begin(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called by the next thread that is free."""
        return self._pool.submit(self._run, work, arguments)

    def wait(self, begun: Iterable[Future[Any]]) -> list[Any]:
        """Wait for what was begun and return the results; raises the first error of any thread."""
        results = []
        for future in begun:
            try:
                results.append(future.result())
            except (Exception, CancelledError):
                if self._error is not None:
                    raise self._error from None
                raise
        return results

    def _run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.check()
        try:
            return work(*arguments)
        except BaseException as error:
            with self._lock:
                if self._error is None and not isinstance(error, CancelledError):
                    self._error = error
            self._stop.set()
            raise
