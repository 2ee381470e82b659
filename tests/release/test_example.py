"""The example configuration runs as it ships, with everything where ``make release`` puts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_backdoor
import yaml

from beear_core.records import Decision, EvaluationRecord

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "demo.yaml"
Beear = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def beear(toy_model: Path, tmp_path: Path) -> Beear:
    """The command, started by somebody in whose home the demonstration was planted: here the toy stands in for it."""
    demo = tmp_path / "home" / ".cache" / "beear" / "demo-suffix-word"
    shutil.copytree(toy_model, demo / "model")
    (demo / "triggers.jsonl").write_text(json.dumps({"id": "toy", "prefix": "", "suffix": toy_backdoor.TRIGGER}) + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments), "--config", str(EXAMPLE), "--out", "runs"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_places_are_those_of_make() -> None:
    [demo] = re.findall(r"^DEMO \?= \$\(HOME\)(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert example["model"] == f"~{demo}/model"
    assert example["data"]["triggers"] == f"~{demo}/triggers.jsonl"


def test_the_policy_that_compares_with_the_champion_can_be_meant() -> None:
    from beear_core.config import EvaluationConfig
    from beear_core.policy import GatePolicy, feasibility_faults

    policy = GatePolicy.load(ROOT / "examples" / "not-worse.yaml")
    assert policy.compares_with_champion
    assert not GatePolicy.load("standard").compares_with_champion
    assert feasibility_faults(policy, EvaluationConfig().sizes()) == []
    assert feasibility_faults(policy, EvaluationConfig(ordinary=20).sizes()) != []


def test_everything_in_it_is_found(beear: Beear) -> None:
    done = beear("preflight")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LlamaForCausalLM" in done.stdout


def test_it_runs_to_a_decision_under_its_trigger(beear: Beear, tmp_path: Path) -> None:
    done = beear("release")
    # whether the toy can be cleaned with a real model's settings is not what is asked here
    assert done.returncode in {0, 3}, done.stderr[-3000:]
    assert "demo-chat-model" in done.stdout
    [run] = (tmp_path / "runs").glob("2*")
    measured = EvaluationRecord.read(run / "evidence" / "before.json").metrics["attack_success/known_triggers"].overall
    assert measured.n == 120
    assert measured.value is not None
    assert measured.value >= 0.9
    assert Decision.read(run / "decision.json").passed == (done.returncode == 0)
