"""Eight processes promote at once, one is killed in each round: what comes out is one serial order, and nobody waits long.

The order is told by the database itself (``registry_history``), not by what the processes say.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from decided import Ground, Passed, decided, register_like
from gate_processes import Ended, Running, Stop, start
from gate_runs import registry_of
from mlflow.tracking import MlflowClient
from registry_history import History
from reliability import FULL, note

PROCESSES, ROUNDS = 8, 50 if FULL else 4
ROUNDS_OF_A_MODEL = 5  # a model with many versions makes every look slower, which is not what is tested here
LOST = ("somebody else promoted meanwhile", "which was promoted since its decision")
TOO_LATE = (
    "somebody else took over the promotion",
    "took so long that only",
)  # on a machine that is slower than the margin
MOVE = "set_registered_model_alias"
STOPS = [
    (MOVE, 1, "after"),
    ("create_registered_model", 1, "after"),
    ("set_model_version_tag", 2, "after"),
    (MOVE, 1, "during"),
    ("delete_registered_model", 1, "before"),
    ("set_model_version_tag", 1, "before"),
    ("set_registered_model_tag", 1, "after"),
    (MOVE, 1, "before"),
    ("set_registered_model_tag", 1, "before"),
    ("create_registered_model", 1, "during"),
    ("set_model_version_tag", 1, "after"),
    ("set_model_version_tag", 1, "during"),
    ("set_registered_model_tag", 1, "during"),
    ("delete_registered_model", 1, "after"),
    ("set_model_version_tag", 2, "during"),
    ("delete_registered_model", 1, "during"),
    ("set_model_version_tag", 2, "before"),
]


@dataclass
class Model:
    """One registered model, and what became of the promotions of its versions."""

    name: str
    expiry: float
    ended: dict[str, Ended] = field(default_factory=dict)
    killed: dict[str, Stop] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)
    blocked: list[float] = field(default_factory=list)


@pytest.fixture(scope="module")
def race(ground: Ground, history: History, tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """All rounds, run once; the tests below look at what they left."""
    runner = _Rounds(ground, history, tmp_path_factory.mktemp("race"))
    for number in range(ROUNDS):
        runner.round(number)
    return runner.models


class _Rounds:
    def __init__(self, ground: Ground, history: History, folder: Path) -> None:
        self.ground, self.history, self.folder = ground, history, folder
        self.models: list[Model] = []
        self.client, self.random = registry_of(ground.server.uri), random.Random(0)
        self.other = _logged_otherwise(self.client, ground, folder)

    def _start(self, one: Passed, name: str, stop: Stop) -> Running:
        arguments = ["promote", str(one.folder), "--model", str(self.ground.case.model), "--name", name]
        environment = {"MLFLOW_TRACKING_URI": self.ground.server.uri}
        return start(arguments, one.folder / "log", environment, stop=stop, lock=self.ground.lock)

    def round(self, number: int) -> None:
        """Let eight processes promote a version each, of which one in three rounds has other bytes; one is killed."""
        if number % ROUNDS_OF_A_MODEL == 0:
            self.models.append(Model(f"race-{number}", self.ground.lock["expiry"]))
            self.client.create_registered_model(self.models[-1].name)
        model, folder = self.models[-1], self.folder / str(number)
        ones: dict[str, Passed] = {}
        for i in range(PROCESSES):
            one = decided(self.ground.case, folder / str(i), 10.0 + number * PROCESSES + i, model.name)
            source = self.other if number % 3 == 0 and i == 2 else ""
            version = register_like(self.ground.server, self.ground.name, model.name, one, source)
            ones[version] = one
            model.altered |= {version} if source else set()
        call, which, when = STOPS[number % len(STOPS)]
        stop = Stop(call, which, when, folder / "token")
        order = self.random.sample(sorted(ones), PROCESSES)
        running = {version: self._start(ones[version], model.name, stop) for version in order}
        model.ended |= {version: process.wait() for version, process in running.items()}
        dead = [version for version in order if model.ended[version].code == -9]
        model.killed |= dict.fromkeys(dead, stop)
        assert len(dead) == 1, f"one of each round is killed, by {stop}"
        since = json.loads(stop.token.read_text())["at"]
        later = [at for at in self.history.epochs(model.name) if at > since]
        if later:
            model.blocked.append(min(later) - since)


def _logged_otherwise(client: MlflowClient, ground: Ground, folder: Path) -> str:
    """Log a model folder that nobody decided on; gives its URI."""
    (folder / "other" / "model").mkdir(parents=True)
    (folder / "other" / "model" / "config.json").write_text("{}")
    run = client.get_run(client.get_model_version(ground.name, "1").run_id)
    client.log_artifacts(run.info.run_id, str(folder / "other"), "other")
    return f"{run.info.artifact_uri}/other"


def test_results_equal_one_serial_order(race: list[Model], history: History, ground: Ground) -> None:
    promotions = 0
    for model in race:
        order = [move.version for move in history.moves(model.name)]
        assert None not in order, "and nothing was put back"
        assert len(set(order)) == len(order)
        tags = {v.version: v.tags for v in registry_of(ground.server.uri).search_model_versions(f"name='{model.name}'")}
        epochs = [int(tags[version]["promotion"]) for version in order]
        assert epochs == sorted(set(epochs)), "the epochs in the tags tell the order in which the alias moved"
        assert [tags[version]["replaced_version"] for version in order] == ["none", *order[:-1]], "one line, no branch"
        assert [int(version or 0) for version in order] == sorted(int(version or 0) for version in order)
        promotions += len(order)
    assert promotions >= ROUNDS / 2
    note("race", rounds=ROUNDS, processes=PROCESSES, promotions=promotions, points=min(ROUNDS, len(STOPS)))


def test_who_said_promoted_was_and_who_lost_changed_nothing(race: list[Model], history: History) -> None:
    lost = altered = too_late = 0
    for model in race:
        champions = {move.version for move in history.moves(model.name)}
        for version, ended in model.ended.items():
            if version in model.killed:
                continue
            if ended.code == 0:
                assert version in champions
                continue
            assert ended.code == 1, ended.text
            assert version not in champions
            if any(words in ended.text for words in TOO_LATE):
                too_late += 1
                continue
            assert not history.noted(model.name, version, "promotion"), ended.text
            assert not history.noted(model.name, version, "replaced_version"), ended.text
            if version in model.altered:
                altered += 1
                assert "holds no decision.json" in ended.text
            else:
                lost += 1
                assert any(words in ended.text for words in LOST), ended.text
    assert lost > ROUNDS
    assert altered == sum(len(model.altered - model.killed.keys()) for model in race) > 0
    note("race", lost=lost, altered=altered, too_late=too_late)


def test_every_champion_holds_the_bytes_that_were_decided_on(race: list[Model], history: History) -> None:
    for model in race:
        for move in history.moves(model.name):
            assert move.version not in model.altered
            text = model.ended[move.version or ""].text
            assert "verify the registered model: done" in text, "and had been verified before"


def test_a_killed_one_is_champion_only_where_it_had_moved_the_alias(race: list[Model], history: History) -> None:
    moved = 0
    for model in race:
        champions = {move.version for move in history.moves(model.name)}
        for version, stop in model.killed.items():
            point = (stop.call, stop.when)
            if stop.call in {"create_registered_model", "set_model_version_tag"} or point == (MOVE, "before"):
                assert version not in champions, point
            elif point == (MOVE, "after"):
                assert version in champions, point
            moved += version in champions
    note("race", killed_after_moving=moved)


def test_a_killed_holder_blocks_for_the_expiry_at_most(race: list[Model]) -> None:
    shares = [seconds / model.expiry for model in race for seconds in model.blocked]
    assert max(shares) > 0.5, "somebody had to wait"
    # beyond it: one pause, and calls that all eight make on one core
    assert max(shares) < 1.6
    longest = max(race, key=lambda model: max(model.blocked, default=0.0))
    note("race", blocked_s=round(max(longest.blocked), 1), expiry_s=round(longest.expiry, 1))
