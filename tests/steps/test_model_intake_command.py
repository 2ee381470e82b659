"""Intake as a command, as a component and in a pipeline."""

# no "from __future__ import annotations" here: kfp reads the annotations of the pipeline below
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beear_core.models.folder import check_folder, directory_digest
from beear_core.records import IntakeRecord
from components.command import start_step
from components.model_intake import step
from components.model_intake.__main__ import intake


def main(*arguments: object) -> int:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        start_step(intake, "model_intake", [str(a) for a in arguments])
    return int(ended.value.code or 0)


def test_the_command_prints_the_record(candidate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main("--model", candidate, "--out", tmp_path / "out", "--record", tmp_path / "r.json", "--json")
    printed = capsys.readouterr().out.encode()
    assert code == 0
    record = IntakeRecord.read(tmp_path / "r.json")
    assert IntakeRecord.parse(printed) == record
    assert main("--model", candidate, "--out", tmp_path / "again") == 0
    told = capsys.readouterr().out
    assert record.model_digest in told
    assert f"{record.parameters:,} parameters" in told


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [("/nowhere", 2, "error: model folder /nowhere does not exist"), ("ftp://x/y", 2, "is of an unknown kind")],
)
def test_the_command_ends_with_the_error_and_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, code: int, message: str
) -> None:
    assert main("--model", model, "--out", tmp_path / "out") == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_an_unsafe_model_ends_the_command_with_1(candidate: Path, tmp_path: Path) -> None:
    (candidate / "a.pkl").write_bytes(b"x")
    assert main("--model", candidate, "--out", tmp_path / "out") == 1


def test_help_is_fast_and_loads_little() -> None:
    began = time.monotonic()
    code = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        "try: runpy.run_module('components.model_intake', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'mlflow', 'boto3', 'kfp', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Exit codes" in done.stdout
    assert time.monotonic() - began < 5


def test_the_step_loads_no_torch_for_a_local_folder(candidate: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from components.model_intake.step import run; "
        f"run({str(candidate)!r}, Path({str(tmp_path / 'out')!r})); "
        "assert not {'torch', 'mlflow', 'boto3', 'kfp', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Artifact:
    """What the face needs of a KFP artifact."""

    def __init__(self, path: Path) -> None:
        self.path, self.logged = str(path), dict[str, float]()

    def log_metric(self, name: str, value: float) -> None:
        self.logged[name] = value


def test_the_face_calls_the_step(candidate: Path, tmp_path: Path) -> None:
    from components.model_intake.component import model_intake

    model, record, metrics = (Artifact(tmp_path / name) for name in ("model", "record", "metrics"))
    model_intake.python_func(str(candidate), "", model, record, metrics)
    written = IntakeRecord.read(Path(record.path))
    assert written.model_digest == directory_digest(Path(model.path))
    assert metrics.logged["parameters"] == written.parameters


def test_the_face_reports_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.model_intake.component import model_intake

    monkeypatch.setenv("BEEAR_ERROR_FILE", str(tmp_path / "error.json"))
    parts = [Artifact(tmp_path / name) for name in ("model", "record", "metrics")]
    with pytest.raises(SystemExit) as ended:
        model_intake.python_func("/nowhere", "", *parts)
    assert ended.value.code == 2
    assert json.loads((tmp_path / "error.json").read_text())["error"] == "ModelNotFoundError"
    assert not (tmp_path / "model").exists()


def test_in_a_pipeline_of_the_local_runner(candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp import dsl, local

    from components.model_intake.component import model_intake

    monkeypatch.setenv("PYTHONPATH", str(Path(step.__file__).parents[2]))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))

    @dsl.pipeline(name="intake")  # type: ignore[untyped-decorator]
    def pipeline(model_uri: str) -> dsl.Model:
        task = model_intake(model_uri=model_uri, expected_digest="")
        return task.outputs["model"]

    result = pipeline(model_uri=str(candidate))
    check_folder(Path(result.output.path))
