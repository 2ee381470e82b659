"""Whatever goes wrong with any call of a promotion: running again ends right, and no wrong version is ever champion.

A proxy before a real MLflow server on PostgreSQL lets one call go wrong; the database tells where the alias ever was.
"""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from decided import Ground, Passed, decided, on_disk, register_like
from faulty_proxy import Call, Fault, FaultyProxy, faulty_proxy
from gate_processes import Ended, start
from gate_runs import registry_of
from registry_history import History
from reliability import FULL, note

EVERY: tuple[Fault, ...] = ("lost", "dropped", "late answer", "late request", "error", "killed before", "killed after")
FAULTS: tuple[Fault, ...] = EVERY if FULL else ("lost", "killed after")
ALIAS, VERSION = "POST registered-models/alias", "POST model-versions/create"
ALWAYS = {ALIAS, VERSION}
TIMEOUT_S = 2
_seconds = iter(range(1000, 10**6))


@dataclass(frozen=True)
class Point:
    """A call of a promotion. ``registered``: of one whose version is there already, which is logged by nobody."""

    registered: bool
    number: int
    call: Call


@dataclass
class Outcome:
    """One promotion with a fault, and the same once more without."""

    name: str
    call: str
    one: Passed
    first: Ended
    second: Ended
    seen: list[Call]

    def __str__(self) -> str:
        return f"{self.call}: {self.first.code} {self.first.text[-600:]}\nthen {self.second.code} {self.second.text[-600:]}"


class Bench:
    """Promotes with a fault in one call, each time a new decision under a new name that has a champion already."""

    def __init__(self, ground: Ground, history: History, proxy: FaultyProxy, folder: Path) -> None:
        self.ground, self.history, self.proxy, self.folder = ground, history, proxy, folder
        self.client = registry_of(ground.server.uri)

    def calls(self) -> list[Point]:
        """The calls of a promotion in which nothing goes wrong: up to the version, then those when there is one."""
        points = []
        for registered in (False, True):
            self.proxy.arm()
            ended, _, _ = self.promote("nothing", registered)
            assert ended.code == 0, ended.text
            calls = list(self.proxy.calls)
            end = len(calls) if registered else 1 + next(i for i, call in enumerate(calls) if call.name == VERSION)
            points += [Point(registered, i, call) for i, call in enumerate(calls[:end])]
        return points

    def promote(self, what: str, registered: bool, **environment: str) -> tuple[Ended, Passed, str]:
        """Promote through the proxy; gives how it ended, what was decided, and the model's name."""
        number = next(_seconds)
        name, server, first = f"fault-{number}", self.ground.server, self.ground.name
        self.client.create_registered_model(name)
        old = decided(self.ground.case, self.folder / f"{number} old", 1.0, name)
        self.client.set_registered_model_alias(name, "champion", register_like(server, first, name, old))
        one = decided(self.ground.case, self.folder / f"{number} {what}", number, name)
        if registered:
            register_like(server, first, name, one)
        return self.run(one, name, self.proxy.uri, **environment), one, name

    def run(self, one: Passed, name: str, uri: str, **environment: str) -> Ended:
        """Run the command once."""
        arguments = ["promote", str(one.folder), "--model", str(self.ground.case.model), "--name", name]
        given = {"MLFLOW_TRACKING_URI": uri, **environment}
        running = start(arguments, one.folder / "log", given, lock=self.ground.lock)
        self.proxy.victim(running.kill)
        ended = running.wait()
        (one.folder / "log").write_text("")
        return ended

    def outcome(self, point: Point, fault: Fault, **environment: str) -> Outcome:
        """Promote with a fault in one call, then once more without."""
        self.proxy.arm(point.number, fault)
        first, one, name = self.promote(fault, point.registered, **environment)
        self.proxy.settle()
        seen = list(self.proxy.calls)
        self.proxy.arm()
        second = self.run(one, name, self.ground.server.uri)
        return Outcome(name, f"{fault} {point.number} {point.call.name}", one, first, second, seen)

    def versions(self, outcome: Outcome) -> list[Any]:
        """The versions that were registered for its decision."""
        found = self.client.search_model_versions(f"name='{outcome.name}'")
        return [v for v in found if v.tags["decision_digest"] == outcome.one.made.decision.digest]

    def kept(self, version: Any) -> Path:
        """Where the server's disk holds a version's model."""
        model = self.client.get_logged_model(version.source.removeprefix("models:/"))
        return on_disk(self.ground.server, model.artifact_location) / "model"


@pytest.fixture(scope="module")
def bench(ground: Ground, history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with faulty_proxy(ground.server.uri) as proxy:
        proxy.late_s = TIMEOUT_S + 1.0
        yield Bench(ground, history, proxy, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def points(bench: Bench) -> list[Point]:
    found = bench.calls()
    note("faults", calls=len(found), changing=sum(point.call.changes for point in found))
    return found


def chosen(points: list[Point], fault: Fault) -> list[Point]:
    """All calls; or those that move the alias or make the version, and of the other kinds some for each of the faults."""
    if FULL:
        return points
    kinds = {(point.registered, point.call.name): point for point in reversed(points)}
    turn = FAULTS.index(fault)
    return [
        point
        for place, point in enumerate(kinds.values())
        if point.call.name in ALWAYS or (place + turn) % (9 if point.call.changes else 29) == 0
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_in_any_call_running_again_ends_right(bench: Bench, points: list[Point], fault: Fault) -> None:
    came_out: Counter[str] = Counter()
    wrong = []
    for point in chosen(points, fault):
        late = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_S)} if "late" in fault else {}
        outcome = bench.outcome(point, fault, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **late)
        try:
            check(bench, outcome, killed="killed" in fault)
        except AssertionError as error:
            wrong.append(str(error))  # a sweep takes long, and is to find all that goes wrong
        came_out[{0: "done", 1: "error", -9: "killed"}[outcome.first.code]] += 1
    assert not wrong, "\n\n".join(wrong)
    assert came_out["killed" if "killed" in fault else "error"] > 0
    note("faults", **{fault: dict(came_out)})


def check(bench: Bench, outcome: Outcome, *, killed: bool) -> None:
    assert outcome.first.code in ({-9} if killed else {0, 1}), outcome
    assert "Traceback" not in outcome.first.text, outcome
    assert outcome.first.code != 1 or "error: " in outcome.first.text, outcome
    assert outcome.second.code == 0, outcome
    (version,) = bench.versions(outcome)
    moves = [move.version for move in bench.history.moves(outcome.name)]
    assert set(moves) == {"1", version.version}, (moves, outcome)
    assert (moves[0], moves[-1]) == ("1", version.version), (moves, outcome)
    decided_on = bench.ground.case.model
    names = sorted(path.name for path in decided_on.iterdir())
    assert filecmp.cmpfiles(decided_on, bench.kept(version), names, shallow=False) == (names, [], []), outcome
    for i, call in enumerate(outcome.seen):
        if call.name == ALIAS and call.json()["version"] != "1":
            read = {before.path.rsplit("/", 1)[-1] for before in outcome.seen[:i] if before.method == "GET"}
            assert read >= set(names), f"the alias moved before all was read back: {outcome}"


def test_bytes_that_changed_on_the_way_are_never_champion(bench: Bench, points: list[Point]) -> None:
    sent = [point for point in points if point.call.method == "PUT" and "/artifacts/model/" in point.call.path]
    assert len(sent) >= 5
    tried = [point for i, point in enumerate(sent) if FULL or i % 3 == 0 or point.call.path.endswith("/decision.json")]
    for point in tried:
        outcome = bench.outcome(point, "altered")
        assert (outcome.first.code, outcome.second.code) == (1, 1), outcome
        name = point.call.path.rsplit("/", 1)[-1]
        assert "is not what was decided on" in outcome.first.text
        assert f"changed: {name}" in outcome.first.text
        assert [move.version for move in bench.history.moves(outcome.name)] == ["1"]
    note("faults", altered={"refused": len(tried)})


def test_a_version_is_registered_once_though_the_answer_was_lost_and_the_client_asked_again(
    bench: Bench, points: list[Point]
) -> None:
    (point,) = (point for point in points if point.call.name == VERSION)
    outcome = bench.outcome(point, "lost", MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="0")
    assert outcome.first.code == outcome.second.code == 0, outcome
    assert len(bench.versions(outcome)) == 1
