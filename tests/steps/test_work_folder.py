"""What outlives a step's process: where a killed step goes on from, and an error that no further attempt can mend."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toy_backdoor
from small_mitigation import CONFIG

from beear_core.data import ANCHOR_FILES, write_manifest
from beear_core.errors import BeearError, ConfigError, CorruptModelError, MitigationError, RegistryError, StorageError
from beear_core.records import MitigationRecord
from components.beear_mitigation import step
from components.face import StepFailedError
from components.work import RUN, WORK, failing_once, work_folder

SETTINGS = dataclasses.replace(CONFIG, rounds=3, safe_rounds=9, target_attack_rate=0.0, positions="auto")
KILLED = """
import os, signal, sys
from beear_core.mitigation.beear import Loop
from components.beear_mitigation.step import run_component

real = Loop.round
def round_(loop, number, *more):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(loop, number, *more)
Loop.round = round_
import json
run_component(**json.loads(sys.argv[1]))
"""


def _anchors(folder: Path) -> Path:
    rows = {f"{role}.jsonl": toy_backdoor.prompts(role, "anchoring", 12) for role in ("harmful", "ordinary", "borderline")}
    for name, category, replies in (("safe", "safe", toy_backdoor.SAFE), ("unwanted", "unwanted", toy_backdoor.UNWANTED)):
        rows[f"{name}_openings.jsonl"] = [{"id": f"{name}-{r}", "reply": r, "category": category} for r in replies]
    folder.mkdir()
    for name, given in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in given))
    assert {f"{name}.jsonl" for name in ANCHOR_FILES} <= set(rows)
    write_manifest(folder, rows)
    return folder


def _ports(model: Path, folder: Path, work: str, name: str) -> dict[str, str]:
    anchors = folder / "anchors"
    given = {"model": model, "anchors": anchors if anchors.exists() else _anchors(anchors)}
    made = {port: folder / name / port for port in ("cleaned", "drift", "record", "summary")}
    config = json.dumps(dataclasses.asdict(SETTINGS))
    return {port: str(path) for port, path in (given | made).items()} | {"config_json": config, "work": work}


def test_a_step_that_was_killed_goes_on_from_its_volume(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "volume"
    ports = _ports(tiny_model, tmp_path, str(work), "pod")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(ports)],
        env={**os.environ, RUN: "beear-release-x7k2p"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((work / "beear-release-x7k2p" / "beear_mitigation").glob("*/standing.json"))
    assert not (tmp_path / "pod").exists(), "nothing of the pod's own disk is there to go on from"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN, "beear-release-x7k2p")
        figures = step.run_component(**_ports(tiny_model, tmp_path, str(work), "again"))
    assert "going on after round 1" in capsys.readouterr().err
    assert not (work / "beear-release-x7k2p" / "beear_mitigation").exists(), "a volume that stays does not fill up"

    whole = step.run_component(**_ports(tiny_model, tmp_path, "", "whole"))
    one, other = (MitigationRecord.read(tmp_path / name / "record") for name in ("again", "whole"))
    assert (one.output_digest, one.drift_digest, one.reason) == (other.output_digest, other.drift_digest, other.reason)
    assert figures["rounds"] == whole["rounds"] == 3


def test_an_error_before_any_round_leaves_no_folder_beside_the_output(tmp_path: Path) -> None:
    with pytest.raises(StorageError), step.work_beside(tmp_path / "cleaned"):
        raise StorageError("no room")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_of_one_run_and_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (WORK, RUN):
        monkeypatch.delenv(name, raising=False)
    assert work_folder("", "one") is None
    assert work_folder("/kfp-workspace", "one") == Path("/kfp-workspace/one")
    monkeypatch.setenv(WORK, "/here")
    assert work_folder("", "one") == Path("/here/one")
    monkeypatch.setenv(RUN, "a-run")
    assert work_folder("/work", "one") == Path("/work/a-run/one")


def _failing(folder: Path | None, error: BaseException, done: list[int]) -> None:
    with failing_once(folder):
        done.append(1)
        raise error


def test_an_error_that_no_attempt_can_mend_is_met_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, done = tmp_path / "step", list[int]()
    (folder / "weights").mkdir(parents=True)
    error = MitigationError("the outer loss is nan; lower it")
    with pytest.raises(MitigationError):
        _failing(folder, error, done)
    assert [p.name for p in folder.iterdir()] == ["failure.json"], "there is nothing to go on from any more"
    for _ in range(2):
        with pytest.raises(StepFailedError, match="the outer loss is nan; lower it") as caught:
            _failing(folder, error, done)
        assert (caught.value.exit_code, caught.value.kind) == (error.exit_code, "MitigationError")
    assert len(done) == 1, "nothing was done again"
    assert "an attempt before this one failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [StorageError("no room"), RegistryError("no answer"), CorruptModelError("cut off"), MemoryError(), KeyboardInterrupt()],
    ids=lambda e: type(e).__name__,
)
def test_what_may_pass_is_tried_again(tmp_path: Path, error: BaseException) -> None:
    done: list[int] = []
    (tmp_path / "weights").mkdir()
    for _ in range(2):
        with pytest.raises(type(error)):
            _failing(tmp_path, error, done)

    assert len(done) == 2
    assert (tmp_path / "weights").is_dir(), "an attempt goes on from there"


def test_without_a_folder_an_error_is_met_each_time() -> None:
    done: list[int] = []
    for _ in range(2):
        with pytest.raises(BeearError):
            _failing(None, BeearError("no"), done)
    assert len(done) == 2


def test_a_configuration_that_cannot_be_meant_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """So further attempts cost seconds, with or without a volume."""
    from components.champion_eval.step import run_component as champion
    from components.registry_gate.step import run_component as gate
    from components.safety_eval.step import run_component as measure

    nothing = str(tmp_path / "nothing")
    bad = '{"no such key": 1}'
    calls = {
        "mitigation": lambda: step.run_component(**{**_ports(tmp_path, tmp_path, "", "x"), "config_json": bad}),
        "evaluation": lambda: measure(
            model=nothing, suites=nothing, label="before", config_json=bad, reference=None, reference_samples=None,
            drift=None, anchors=None, work="", record=nothing, samples=nothing, summary=nothing,
        ),
        "champion": lambda: champion(
            after=nothing, suites=nothing, policy="standard", config_json=bad, registry_json="{}", work="",
            record=nothing, samples=nothing,
        ),
        "gate": lambda: gate(
            model=nothing, evidence={}, before_samples=nothing, after_samples=nothing, champion=None, policy="standard",
            registry_json=bad, promotion_json="{}", mlflow_run_id="", kfp_run_id="", decision=nothing, report=nothing,
            summary=nothing,
        ),
    }  # fmt: skip
    for name, call in calls.items():
        with pytest.raises(ConfigError, match="unknown key"):
            call()
        assert not Path(nothing).exists(), name
