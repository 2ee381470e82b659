"""Data validation as a component, as a command and in a pipeline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from validation_data import good_data, write

from beear_core.data import load_anchors, load_suites
from beear_core.errors import ConfigError, DataError
from beear_core.records import ValidationRecord
from components.data_validation.step import run_component


def component(config_json: str, folder: Path) -> dict[str, float]:
    names = {"anchors": "anchors", "suites": "suites", "record": "record", "page": "page.html"}
    return run_component(config_json=config_json, **{port: str(folder / name) for port, name in names.items()})


def test_the_face_hands_on_figures(tmp_path: Path) -> None:
    config = write(good_data(), tmp_path / "in")
    figures = component(json.dumps(vars(config)), tmp_path)
    assert figures == {"rules": figures["rules"], "warnings": 0.0, "rows": 216.0}
    assert ValidationRecord.read(tmp_path / "record").passed


def test_the_face_raises_after_record_and_page(tmp_path: Path) -> None:
    data = good_data()
    data["harmful"][3]["prompt"] = "short"
    config = write(data, tmp_path / "in")
    with pytest.raises(DataError, match="harmful, prompt_length: 1 of 68"):
        component(json.dumps(vars(config)), tmp_path)
    assert not ValidationRecord.read(tmp_path / "record").passed
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "mapping"), ('{"harmfull": "x"}', "harmfull")])
def test_the_face_refuses_a_bad_configuration(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        component(text, tmp_path)


def test_the_component_leaves_its_error_for_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from components.data_validation.component import data_validation

    monkeypatch.setenv("BEEAR_ERROR_FILE", str(tmp_path / "error.json"))
    outputs = {n: SimpleNamespace(path=str(tmp_path / n)) for n in ("anchors", "suites", "record", "page", "metrics")}
    with pytest.raises(SystemExit) as end:
        data_validation.python_func('{"harmful": "none.jsonl"}', **outputs)
    error = json.loads((tmp_path / "error.json").read_text())
    assert (end.value.code, error["error"], error["exit_code"]) == (1, "DataError", 1)
    assert "none.jsonl does not exist" in error["message"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.data_validation", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


def test_the_command(tmp_path: Path) -> None:
    config = write(good_data(), tmp_path / "in")
    file = tmp_path / "release.yaml"
    file.write_text(json.dumps({"data": vars(config)}))
    # pods may have no home that can be written
    done = command("--config", str(file), "--out", str(tmp_path / "out"), "--json", HOME="/nonexistent")
    assert (done.returncode, ValidationRecord.parse(done.stdout.encode()).passed) == (0, True)
    assert load_anchors(tmp_path / "out" / "anchors").harmful
    Path(config.safe_openings).write_text('{"id": "1", "reply": "Sure!"}\n')
    refused = command("--config", str(file), "--out", str(tmp_path / "out"))
    assert refused.returncode == 3
    assert "critical: safe_openings, openings_refuse: 1 of 1" in refused.stderr
    Path(config.safe_openings).write_text("x")
    broken_file = command("--config", str(file), "--out", str(tmp_path / "out"))
    assert (broken_file.returncode, broken_file.stdout) == (1, "")
    assert "safe_openings.jsonl, line 1: not JSON" in broken_file.stderr


def test_the_command_refuses_bad_usage(tmp_path: Path) -> None:
    assert command("--help").returncode == 0
    assert command().returncode == 2
    file = tmp_path / "release.yaml"
    file.write_text("data: 3\n")
    wrong = command("--config", str(file), "--out", str(tmp_path / "out"))
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_in_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp import dsl, local

    from components.data_validation.component import data_validation

    @dsl.pipeline(name="validate")
    def pipeline(config_json: str) -> None:
        data_validation(config_json=config_json)

    config = write(good_data(), tmp_path / "in")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"))
    pipeline(config_json=json.dumps(vars(config)))
    # the runner's own status is no evidence: what was written is
    (anchors,) = (tmp_path / "out").glob("*/data-validation/anchors")
    assert len(load_anchors(anchors).harmful) == 34
    assert len(load_suites(anchors.parent / "suites").harmful) == 32
    assert ValidationRecord.read(anchors.parent / "record").passed
    assert (anchors.parent / "page").read_text().startswith("<!DOCTYPE html>")
