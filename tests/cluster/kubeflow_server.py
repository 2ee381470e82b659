"""A Kubeflow Pipelines API on loopback, as far as runs and schedules need it.

Bodies are read and written through the types that KFP's own OpenAPI description was turned into: what they do not know, or
would write otherwise, is refused as the real server refuses it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as api

ROOT = "/apis/v2beta1"
_TYPES = api.ApiClient()
BEGAN = datetime(2027, 1, 1, tzinfo=UTC)


def written(model: Any) -> bytes:
    return json.dumps(_TYPES.sanitize_for_serialization(model)).encode()


def read(body: bytes, kind: str) -> Any:
    """A body as KFP's type; one that holds what the type does not know is refused."""
    model = _TYPES.deserialize(SimpleNamespace(data=body), kind)
    # int64 is a text in JSON, and a number is taken for it too
    given = {key: str(value) if type(value) is int else value for key, value in json.loads(body).items()}
    if _TYPES.sanitize_for_serialization(model) != given:
        raise Refused(400, f"the body is no {kind}")
    return model


class Refused(Exception):
    """An answer with an error's status, as the gateway writes it."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.body = json.dumps({"error": message, "code": 5, "message": message, "details": []}).encode()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def changes(self) -> bool:
        return self.method != "GET"


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Hook = Callable[[Request], "Answer | None"]


@dataclass
class Kubeflow:
    """What the server holds, everything that it was asked, and what the test lets it do instead of answering.

    ``before``, ``after``: called before and after a request is carried out; what they return is the answer.
    """

    multi_user: bool = False
    experiments: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurring: dict[str, Any] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    most_enabled: int = 0
    before: Hook | None = None
    after: Hook | None = None
    host: str = ""
    _made: int = 0

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.before and (instead := self.before(request)):
            return instead
        try:
            model = self._carry_out(request)
        except Refused as refused:
            return Answer(refused.body, refused.status)
        self.most_enabled = max(self.most_enabled, len(self.enabled()))
        if self.after and (instead := self.after(request)):
            return instead
        return Answer(b"{}" if model is None else written(model))

    def enabled(self) -> list[Any]:
        return [one for one in self.recurring.values() if one.mode == "ENABLE"]

    def changes(self) -> list[str]:
        return [f"{r.method} {r.path.removeprefix(ROOT)}" for r in self.asked if r.changes]

    def _carry_out(self, request: Request) -> Any:
        kind, _, rest = request.path.removeprefix(f"{ROOT}/").partition("/")
        handle = getattr(self, f"_{kind}", None)
        if not request.path.startswith(f"{ROOT}/") or handle is None:
            raise Refused(404, "Not Found")
        return handle(request, rest)

    def _healthz(self, request: Request, rest: str) -> Any:
        return api.V2beta1GetHealthzResponse(multi_user=self.multi_user)

    def _experiments(self, request: Request, rest: str) -> Any:
        if request.method == "POST":
            made = read(request.body, "V2beta1Experiment")
            self._check_namespace(made.namespace)
            made.experiment_id, made.created_at = self._new()
            self.experiments[made.experiment_id] = made
            return made
        self._check_namespace(request.query.get("namespace"))
        found = self._page(request, self.experiments)
        return api.V2beta1ListExperimentsResponse(experiments=found[0], next_page_token=found[1])

    def _runs(self, request: Request, rest: str) -> Any:
        if request.method == "POST":
            made = read(request.body, "V2beta1Run")
            if made.experiment_id not in self.experiments:
                raise Refused(404, f"Experiment {made.experiment_id} not found")
            made.run_id, made.created_at = self._new()
            made.state = "PENDING"
            self.runs[made.run_id] = made
            return made
        if rest:
            return self._one(self.runs, rest)
        if "experiment_id" not in request.query:
            self._check_namespace(request.query.get("namespace"))
        found = self._page(request, self.runs)
        return api.V2beta1ListRunsResponse(runs=found[0], next_page_token=found[1])

    def _recurringruns(self, request: Request, rest: str) -> Any:
        which, _, verb = rest.partition(":")
        if request.method == "POST" and not rest:
            made = read(request.body, "V2beta1RecurringRun")
            if len(made.trigger.cron_schedule.cron.split()) != 6:
                raise Refused(400, "Schedule cron is not supported")
            made.recurring_run_id, made.created_at = self._new()
            made.status = f"{made.mode}D"
            self.recurring[made.recurring_run_id] = made
            return made
        if not rest:
            self._check_namespace(request.query.get("namespace"))
            found = self._page(request, self.recurring)
            return api.V2beta1ListRecurringRunsResponse(recurring_runs=found[0], next_page_token=found[1])
        one = self._one(self.recurring, which)
        if request.method == "DELETE":
            if request.query.get("propagation_policy") != "ORPHAN":
                # as Kubernetes does by default: what the schedule began goes with it
                self.runs = {key: run for key, run in self.runs.items() if run.recurring_run_id != which}
            del self.recurring[which]
        else:
            one.mode = verb.upper()
            one.status = f"{one.mode}D"
        return None

    def _one(self, held: dict[str, Any], key: str) -> Any:
        if key not in held:
            raise Refused(404, f"ResourceNotFoundError: {key} not found.")
        return held[key]

    def _check_namespace(self, namespace: str | None) -> None:
        if bool(namespace) != self.multi_user:
            raise Refused(400, "In single-user mode, namespace must be empty, in multi-user mode it must be given")

    def _page(self, request: Request, held: dict[str, Any]) -> tuple[list[Any] | None, str | None]:
        found = list(held.values())
        for predicate in json.loads(request.query.get("filter") or "{}").get("predicates", ()):
            assert predicate["operation"] == 1, "equals"
            found = [one for one in found if getattr(one, predicate["key"]) == predicate["stringValue"]]
        if experiment := request.query.get("experiment_id"):
            found = [one for one in found if one.experiment_id == experiment]
        if request.query.get("sort_by") == "created_at desc":
            found.sort(key=lambda one: one.created_at, reverse=True)
        begin = int(request.query.get("page_token") or 0)
        end = begin + int(request.query.get("page_size") or 10)
        # the gateway leaves out what is empty
        return found[begin:end] or None, str(end) if end < len(found) else None

    def _new(self) -> tuple[str, datetime]:
        self._made += 1
        return f"00000000-0000-4000-8000-{self._made:012d}", BEGAN + timedelta(minutes=self._made)


class Dropped(Exception):
    """Raised by a hook: the connection ends without an answer."""


@contextmanager
def kubeflow(**given: Any) -> Iterator[Kubeflow]:
    """Serve one, until the block ends."""
    held = Kubeflow(**given)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer = held.answer(Request(self.command, parts.path, query, dict(self.headers), body))
            except Dropped:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in (("Content-Type", answer.kind), *answer.headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the base class names them so

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    held.host = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
