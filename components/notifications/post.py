"""Post one message to several services; a process of its own, run by its path, because it may hang and then is killed.

Reads ``{"urls", "title", "body"}`` from standard input and writes one line ``{"url": number, "sent": bool | null}`` for
each service as soon as it is known; null: no service has such a URL. Nothing else is printed: libraries name URLs, and
these hold secrets.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from threading import Lock, Thread
from typing import Any, TextIO

NOT_INSTALLED = 3
"""Exit code: Apprise is missing."""


def main() -> int:
    """Post what standard input says; returns the exit code."""
    told = json.load(sys.stdin)
    out = _only_results()
    logging.disable(logging.CRITICAL)
    try:
        import apprise
    except ImportError:
        return NOT_INSTALLED
    lock = Lock()

    def post(number: int, url: str) -> None:
        sent = _sent(apprise, url, told["title"], told["body"])
        with lock:
            out.write(json.dumps({"url": number, "sent": sent}) + "\n")
            out.flush()

    threads = [Thread(target=post, args=pair, daemon=True) for pair in enumerate(told["urls"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _only_results() -> TextIO:
    """Keep standard output for the results; what others print there is dropped."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return out


def _sent(apprise: Any, url: str, title: str, body: str) -> bool | None:
    try:
        service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if service is None:
            return None
        sender = apprise.Apprise()
        sender.add(service)
        return bool(sender.notify(title=title, body=body, body_format="text"))
    except Exception:  # noqa: BLE001
        # whatever a service's plugin raises: the message was not sent, and more must not be said
        return False


if __name__ == "__main__":
    sys.exit(main())
