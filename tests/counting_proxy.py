"""A proxy on loopback that counts the bytes that pass, and can let no more of them pass than it is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class CountingProxy:
    """``up``: bytes from clients to the server; ``down``: back. At ``hold_up`` or ``hold_down`` nothing passes any more."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._changed = threading.Condition()
        self.up = self.down = self._cuts = 0
        self.hold_up = self.hold_down = 1 << 60
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Count from zero, and hold nothing back."""
        with self._changed:
            self.up = self.down = 0
            self.hold_up = self.hold_down = 1 << 60
            self._changed.notify_all()

    def cut(self) -> None:
        """End every connection, as when the server went away: what is held back is lost. Then count from zero."""
        with self._changed:
            self._cuts += 1
        self.reset()

    def wait_until_held(self, limit_s: float = 120) -> None:
        """Wait until a limit is reached."""
        until = time.monotonic() + limit_s
        while self.up < self.hold_up and self.down < self.hold_down:
            if time.monotonic() > until:
                raise TimeoutError(f"only {self.up} bytes went up and {self.down} down")
            time.sleep(0.02)

    def close(self) -> None:
        self.reset()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                for one, other, way in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._pass, args=(one, other, way), daemon=True).start()

    def _pass(self, reader: socket.socket, writer: socket.socket, way: str) -> None:
        cuts = self._cuts
        with suppress(OSError):
            while data := reader.recv(1 << 16):
                while data:
                    count = self._let(way, len(data), cuts)
                    writer.sendall(data[:count])
                    data = data[count:]
        for end in (reader, writer):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _let(self, way: str, wanted: int, cuts: int) -> int:
        """Wait until some bytes may pass, count them, and tell how many; an OSError where the connection was cut."""

        def room() -> int:
            return int(getattr(self, f"hold_{way}") - getattr(self, way))

        with self._changed:
            self._changed.wait_for(lambda: self._cuts != cuts or room() > 0)
            if self._cuts != cuts:
                raise ConnectionAbortedError
            count = min(wanted, room())
            setattr(self, way, getattr(self, way) + count)
            return count


@contextmanager
def counting_proxy(target: str) -> Iterator[CountingProxy]:
    """Run a proxy in front of a server."""
    proxy = CountingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
