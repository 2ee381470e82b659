"""What is wrong with a place or a configuration ends a command with a message and an exit code before anything is done."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beear_core.errors import ConfigError, StorageError
from pipelines import cli, runs

Beear = Callable[..., tuple[int, str]]
MODEL = ("--model", "hub:org/model")  # looked at when it is fetched


@pytest.fixture
def beear(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Beear:
    """The command in this process: (exit code, what was printed); any error that is not a user's comes through."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["beear", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def flat(text: str) -> str:
    """Without the lines and line ends of a table, which breaks long texts."""
    return re.sub(r"[│\s]", "", text)


@pytest.fixture(params=["proc", "file", "read-only"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be made."""
    if request.param == "proc":
        yield Path("/proc/x/runs")
    elif request.param == "file":
        (tmp_path / "file").write_text("x")
        yield tmp_path / "file" / "runs"
    else:
        from disk import mounted

        with mounted(tmp_path / "disk", "ro,size=64k") as disk:
            yield disk / "runs"


def test_where_nothing_can_be_written(beear: Beear, unwritable: Path) -> None:
    for verb in ("preflight", "release"):
        code, text = beear(verb, *MODEL, "--out", unwritable)
        assert code == 1
        assert flat(text).count(flat(f"cannot write to {unwritable}: ")) == 1, "one fault is said once"
        assert flat("choose another folder with --out") in flat(text)


def test_where_a_pipeline_cannot_be_written(beear: Beear, unwritable: Path) -> None:
    code, text = beear("pipeline", "compile", "--out", unwritable / "release.yaml")
    assert (code, "choose a file in a writable folder" in text) == (1, True)
    code, text = beear("pipeline", "compile", "--out", "release.txt")
    assert (code, "--out is 'release.txt'; name a file that ends in .yaml" in text) == (2, True)


def test_where_a_cleaned_model_cannot_be_written(beear: Beear, unwritable: Path, tmp_path: Path) -> None:
    code, text = beear("mitigate", "--model", tmp_path, "--anchors", tmp_path, "--out", unwritable / "cleaned")
    assert (code, f"error: cannot write {unwritable / 'cleaned'}: " in text) == (1, True)


def test_a_disk_that_is_gone_after_the_preflight(unwritable: Path) -> None:
    with pytest.raises(StorageError, match="cannot write /.*; free space or choose another folder with --out"):
        runs._new_folder(unwritable)


@pytest.mark.parametrize(
    ("uri", "shown"),
    # what is no number may be a password whose host was forgotten
    [("http://host:port/x", "http://host:***"), ("http://host:99999/x", "http://host:99999/x")],
)
def test_a_port_that_is_none(beear: Beear, uri: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text(f"registry: {{tracking_uri: '{uri}'}}\n")
    for verb in ("preflight", "release", "promote"):
        given = (tmp_path,) if verb == "promote" else ("--out", "runs")
        code, text = beear(verb, *given, *MODEL, "--config", "c.yaml")
        assert (code, "- registry.tracking_uri: " in text) == (2, True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for verb in ("preflight", "release"):
        code, text = beear(verb, *MODEL, "--out", "runs")
        assert (code, flat(f"MLflow's URI '{shown}' cannot be meant") in flat(text)) == (2, True)


@pytest.mark.parametrize("value", ["7", "[1]", "builtin"])
def test_a_section_that_is_none(beear: Beear, value: str, tmp_path: Path) -> None:
    steps = {
        "data": ("validate", "--out", "v"),
        "registry": ("gate", "--model", "m", "--evidence", "e", "--out", "g"),
        "mitigation": ("mitigate", "--model", "m", "--anchors", "a", "--out", "g"),
        "evaluation": ("evaluate", "--model", "m", "--suites", "s", "--samples", "s.jsonl"),
    }
    for section, command in steps.items():
        (tmp_path / "c.yaml").write_text(f"{section}: {value}\n")
        for arguments in (command, ("release", *MODEL, "--out", "runs")):
            code, text = beear(*arguments, "--config", "c.yaml")
            assert (code, f"- {section}: must be a section; write its keys below it" in text) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"], "nothing was begun"


def test_names_that_look_like_markup(beear: Beear) -> None:
    code, text = beear("preflight", "--model", "[/foo]", "--triggers", "[/bar].jsonl", "--out", "[/runs]")
    assert code == 2
    assert flat("model folder [/foo] does not exist") in flat(text)
    assert flat("[/bar].jsonl does not exist") in flat(text)
    code, text = beear("policy", "check", "[/foo]")
    assert (code, "[/foo]" in text) == (2, True)
    code, text = beear("release", "--profile", "[/foo]")
    assert (code, "[/foo]" in text) == (2, True)


def test_two_faults_are_both_said(beear: Beear) -> None:
    with pytest.raises(ConfigError, match="found 2 faults"):
        runs.run(cli._config(None, cli.Profile.quick, {"model": "/nowhere"}), Path("/proc/x/runs"), keep=False)
