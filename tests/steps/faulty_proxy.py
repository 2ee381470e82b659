"""An HTTP proxy on loopback before a real server, that lets one call go wrong and remembers all of them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["dropped", "lost", "late answer", "late request", "error", "altered", "killed before", "killed after"]
"""What happens to a call:

- dropped: the connection ends before the server has heard of it.
- lost: the server acts, and the connection ends without an answer.
- late answer: the server acts, and the answer comes when nobody waits for it any more.
- late request: the server hears of it, and acts, when nobody waits for the answer any more.
- error: HTTP 500, and the server has not heard of it.
- altered: one byte of what is sent is another when it arrives.
- killed before, killed after: whoever called is killed before the server hears of it, or when it has acted.
"""


@dataclass(frozen=True)
class Call:
    """One request as it came, and the status that the server answered; 0 where it was not asked."""

    method: str
    path: str
    body: bytes
    status: int

    @property
    def name(self) -> str:
        """What it does, the same in each run: identifiers are left out."""
        path = urlsplit(self.path).path.split("/mlflow", 1)[-1]
        parts = [part for part in path.split("/") if part and not part.startswith("m-") and len(part) != 32]
        return f"{self.method} {'/'.join(part for part in parts if not part.isdigit())}"

    @property
    def changes(self) -> bool:
        """Whether it is meant to change something."""
        return self.method != "GET" and not self.path.split("?")[0].endswith("/search")

    def json(self) -> dict[str, Any]:
        """What it says."""
        return dict(json.loads(self.body or b"{}"))


@dataclass
class FaultyProxy:
    """The proxy: ``uri`` is where it answers; ``calls`` is what came since it was armed last, in order.

    ``late_s``: how late an answer or a request is.
    """

    upstream: str
    late_s: float = 3.0
    calls: list[Call] = field(default_factory=list)
    uri: str = ""
    _plan: tuple[int, Fault] | None = None
    _kill: Callable[[], None] | None = None
    _arrived: int = 0
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, number: int | None = None, fault: Fault = "lost") -> None:
        """Forget all calls, and let the one that is ``number``, counted from 0, go wrong; ``None`` for no one."""
        self.settle()
        with self._lock:
            self.calls, self._arrived = [], 0
            self._plan = None if number is None else (number, fault)

    def victim(self, kill: Callable[[], None]) -> None:
        """Say how to kill whoever calls."""
        self._kill = kill

    def settle(self) -> None:
        """Wait until late calls are over, too."""
        while self._under_way:
            time.sleep(0.02)

    def fault_of_next(self) -> Fault | None:
        """Count a call that came, and say what is to go wrong with it."""
        with self._lock:
            number, self._arrived = self._arrived, self._arrived + 1
            self._under_way += 1
            return self._plan[1] if self._plan and self._plan[0] == number else None

    def over(self, call: Call) -> None:
        """Remember a call that was dealt with."""
        with self._lock:
            self.calls.append(call)
            self._under_way -= 1

    def kill(self) -> None:
        """Kill whoever calls."""
        if self._kill:
            self._kill()


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy before the server at ``upstream``."""
    proxy = FaultyProxy(upstream)

    class Handler(_Handler):
        through = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.uri = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    through: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault, status = self.through.fault_of_next(), 0
        try:
            status = self._with(fault, body)
        finally:
            self.through.over(Call(self.command, self.path, body, status))

    def _with(self, fault: Fault | None, body: bytes) -> int:
        if fault == "killed before":
            self.through.kill()
        if fault in {"dropped", "killed before"}:
            self.close_connection = True
            return 0
        if fault == "error":
            self._answer(500, {}, b'{"error_code": "INTERNAL_ERROR", "message": "a fault of the proxy"}')
            return 0
        if fault == "late request":
            time.sleep(self.through.late_s)
        if fault == "altered":
            body = body[:-1] + bytes([body[-1] ^ 1])
        status, headers, answer = self._forward(body)
        if fault == "late answer":
            time.sleep(self.through.late_s)
        if fault == "killed after":
            self.through.kill()
        if fault in {"lost", "killed after"}:
            self.close_connection = True
        else:
            self._answer(status, headers, answer)
        return status

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.through.upstream).netloc, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "connection"}}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kept = {
                k: v
                for k, v in answer.getheaders()
                if k.lower() in {"content-type", "content-disposition", "www-authenticate"}
            }
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        # who waited no longer has closed its end
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


for _verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_verb}", _Handler.any)
