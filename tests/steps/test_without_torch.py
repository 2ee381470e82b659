"""All that stands around the measurements runs where torch, transformers, accelerate and datasets are not: slim images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gate_evidence import Case
from gate_runs import NAME, champion, config
from without import MODEL_PACKAGES, without

from beear_core.models.folder import directory_digest
from beear_core.records import ReleaseRecord
from components.registry_gate.verification import verify


@pytest.mark.parametrize("name", MODEL_PACKAGES)
def test_they_are_really_missing(name: str, tmp_path: Path) -> None:
    done = without(MODEL_PACKAGES, "-c", f"import {name}", cwd=tmp_path)
    assert (done.returncode, f"No module named '{name}'" in done.stderr) == (1, True)
    assert without((), "-c", f"import importlib.util as u; assert u.find_spec('{name}')", cwd=tmp_path).returncode == 0


def test_the_gate_promotes_and_all_its_verbs_work(case: Case, store: str, tmp_path: Path) -> None:
    (tmp_path / "release.yaml").write_text(json.dumps({"registry": {"tracking_uri": store, "model_name": NAME}}))
    given = {"--model": case.model, "--out": "out", "--evidence": case.evidence["after"].parent, "--config": "release.yaml"}
    given |= {"--before-samples": case.before_samples, "--after-samples": case.after_samples}
    arguments = [part for pair in given.items() for part in pair]

    done = without(MODEL_PACKAGES, "-m", "components.registry_gate", *arguments, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stderr, "what is missing there is missed by nobody"
    release = ReleaseRecord.read(tmp_path / "out" / "release.json")
    assert (release.promoted, champion(store)) == (True, "1")
    assert verify(f"models:/{NAME}@champion", config(store)).passed
    for verb in (["replay", "out"], ["verify", f"models:/{NAME}@champion", "--config", "release.yaml"]):
        done = without(MODEL_PACKAGES, "-m", "pipelines.cli", *verb, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_what_it_registered_loads_and_answers(case: Case, store: str, tmp_path: Path) -> None:
    import mlflow

    test_the_gate_promotes_and_all_its_verbs_work(case, store, tmp_path)
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)
    chat = mlflow.transformers.load_model(f"models:/{NAME}@champion")
    assert chat("a river", max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith("a river")


def test_a_model_is_taken_over(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ("--model", tiny_model, "--out", "out", "--record", "record.json")
    done = without(MODEL_PACKAGES, "-m", "components.model_intake", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert directory_digest(tmp_path / "out") == directory_digest(tiny_model)


def test_data_is_validated(tmp_path: Path) -> None:
    done = without(MODEL_PACKAGES, "-m", "components.data_validation", "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "suites").is_dir()


def test_what_stands_before_and_after_the_others_runs(case: Case, store: str, tmp_path: Path) -> None:
    """The pre-flight as a command, the model and the records put away, and the status of a run that ended."""
    written = {"registry": {"tracking_uri": store, "model_name": NAME}, "artifacts": {"uri": str(tmp_path / "store")}}
    (tmp_path / "release.yaml").write_text(json.dumps(written))
    test_the_gate_promotes_and_all_its_verbs_work(case, store, tmp_path)
    (tmp_path / "release.yaml").write_text(json.dumps(written))
    status = (
        "from pathlib import Path; from components.release_status.step import Ended, run; "
        f"run(Ended('SUCCEEDED'), {json.dumps(json.dumps(written['registry']))}, "
        f"{json.dumps(json.dumps(written['artifacts']))}, Path('page.html'), kfp_run_id='a-run')"
    )
    for arguments in (
        ("-m", "components.preflight", "--config", "release.yaml", "--model", case.model),
        ("-m", "components.release_artifacts", "out", "--model", case.model, "--config", "release.yaml"),
        ("-c", status),
    ):
        done = without(MODEL_PACKAGES, *arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert (tmp_path / "page.html").is_file()
    (model,) = (tmp_path / "store" / "models").glob("*.release.json")
    assert ReleaseRecord.read(model).promoted
