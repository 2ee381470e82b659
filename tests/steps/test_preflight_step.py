"""The pipeline's first step: looks from afar at real stores, all faults at once, and a run that is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gate_runs import registry_of
from servers import S3Server

from beear_core.config import ArtifactsConfig, ReleaseConfig
from beear_core.errors import ConfigError, ModelNotFoundError, RegistryError, StorageError, UnsafeModelError
from components.mlflow_store import steps
from components.mlflow_store.tracking import open_run
from components.preflight.looks import Finding, examine, looks_at
from components.preflight.step import run
from components.release_status.step import Ended
from components.release_status.step import run as leave_status
from components.storage import places

SECTIONS = ("data", "mitigation", "evaluation", "registry", "promotion", "artifacts")


def look(config: ReleaseConfig, part: str, uri: str = "") -> Finding:
    [finding] = examine(look for look in looks_at(config, uri) if look[0] == part)
    return finding


def begun(store: str, model: Path | str, **given: Any) -> str:
    """Run the step as the pipeline does, with an id of Kubeflow's unless it is given."""
    sections = dict.fromkeys(SECTIONS, "{}") | {"registry": json.dumps({"tracking_uri": store})}
    sections |= {name: given.pop(name) for name in SECTIONS if name in given}
    return run(str(model), given.pop("policy", "standard"), sections, **{"kfp_run_id": "a-run", **given})


def prefix(tmp_path: Path) -> str:
    return f"s3://ready/{tmp_path.name}"


# a model that is far away


def test_a_model_in_s3_is_looked_at_and_not_fetched(tiny_model: Path, s3: S3Server, tmp_path: Path) -> None:
    place = f"{prefix(tmp_path)}/model"
    places.upload_dir(tiny_model, place)
    finding = look(ReleaseConfig(model=place), "model")
    assert (finding.error, finding.detail) == (None, f"{place}: 6 files, 0 MiB")


def test_a_model_that_is_not_in_s3(s3: S3Server, tmp_path: Path) -> None:
    error = look(ReleaseConfig(model=f"{prefix(tmp_path)}/nowhere"), "model").error
    assert isinstance(error, ModelNotFoundError)
    assert "nothing lies below" in str(error)


def test_what_is_no_model_or_not_a_safe_one(s3: S3Server, tmp_path: Path) -> None:
    client = s3.client()
    client.put_object(Bucket="ready", Key=f"{tmp_path.name}/none/notes.txt", Body=b"x")
    client.put_object(Bucket="ready", Key=f"{tmp_path.name}/bad/pytorch_model.bin", Body=b"x")
    error = look(ReleaseConfig(model=f"{prefix(tmp_path)}/none"), "model").error
    assert isinstance(error, ModelNotFoundError)
    assert "holds 1 file and no config.json, so it is no model" in str(error)
    assert isinstance(look(ReleaseConfig(model=f"{prefix(tmp_path)}/bad"), "model").error, UnsafeModelError)


def test_s3_without_credentials(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert isinstance(look(ReleaseConfig(model=f"{prefix(tmp_path)}/model"), "model").error, StorageError)


def test_a_version_that_mlflow_does_not_have(store: str) -> None:
    error = look(ReleaseConfig(model="models:/nobody@champion"), "model", store).error
    assert isinstance(error, ModelNotFoundError)


# the place of artifacts


def test_a_place_that_can_be_written_is_left_as_it_was(s3: S3Server, tmp_path: Path) -> None:
    for uri in (prefix(tmp_path), str(tmp_path / "store")):
        assert look(ReleaseConfig(artifacts=ArtifactsConfig(uri=uri)), "artifacts").detail == uri
    assert "Contents" not in s3.client().list_objects_v2(Bucket="ready", Prefix=f"{tmp_path.name}/")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_place_that_may_only_be_read(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment(read_only=True).items():
        monkeypatch.setenv(name, value)
    error = look(ReleaseConfig(artifacts=ArtifactsConfig(uri=prefix(tmp_path))), "artifacts").error
    assert isinstance(error, StorageError)
    assert "AccessDenied" in str(error)


# the step


def test_the_run_bears_kubeflows_id_and_the_configuration(tiny_model: Path, store: str) -> None:
    told: list[str] = []
    run_id = begun(store, tiny_model, opened=told.append)
    found = registry_of(store).get_run(run_id)
    assert told == [run_id]
    assert (found.info.status, found.data.tags[steps.KFP_RUN]) == ("RUNNING", "a-run")
    assert found.data.params["model"] == str(tiny_model)
    assert [item.path for item in registry_of(store).list_artifacts(run_id)] == ["configuration.json"]


def test_another_attempt_goes_on_in_the_same_run(tiny_model: Path, store: str) -> None:
    first = begun(store, tiny_model)
    tracker = steps.find_pipeline_run(store, "beear-release", "", "a-run")
    assert tracker is not None
    steps.end_pipeline_run(tracker, failed=True)
    assert registry_of(store).get_run(first).info.status == "FAILED"
    assert begun(store, tiny_model) == first
    assert registry_of(store).get_run(first).info.status == "RUNNING"
    assert begun(store, tiny_model, kfp_run_id="another") != first


def test_a_run_that_is_given_is_attached_to_and_never_ended(tiny_model: Path, store: str, tmp_path: Path) -> None:
    given = open_run(store, "elsewhere").run_id
    assert begun(store, tiny_model, mlflow_run_id=given) == given
    registry = json.dumps({"tracking_uri": store})
    for state in ("FAILED", "SUCCEEDED"):
        leave_status(Ended(state), registry, "{}", tmp_path / "page", mlflow_run_id=given, kfp_run_id="a-run")
        assert registry_of(store).get_run(given).info.status == "RUNNING"


def test_every_fault_is_said_at_once_and_the_run_is_there(tmp_path: Path, store: str, s3: S3Server) -> None:
    told: list[str] = []
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="found 3 faults") as caught:
        begun(
            store,
            f"{prefix(tmp_path)}/nowhere",
            policy="no-such-policy",
            artifacts=json.dumps({"uri": str(tmp_path / "file" / "store")}),
            opened=told.append,
        )
    for part in ("no-such-policy", "nothing lies below", "file/store: Not a directory"):
        assert part in str(caught.value)
    assert registry_of(store).get_run(told[0]).info.status == "RUNNING", "the last step ends it"


def test_sections_that_cannot_be_read_are_all_named(tiny_model: Path, store: str) -> None:
    told: list[str] = []
    with pytest.raises(ConfigError) as caught:
        begun(store, tiny_model, data='{"x": 1}', artifacts='{"uri": "hub:x"}', opened=told.append)
    assert "data configuration has 1 fault" in str(caught.value)
    assert "'hub:x' cannot be written to; name a folder or s3://bucket/prefix" in str(caught.value)
    assert told


def test_mlflow_that_does_not_answer_is_one_fault(tiny_model: Path, store: str) -> None:
    with pytest.raises(RegistryError, match="looking for the pipeline's run"):
        begun("http://127.0.0.1:9", tiny_model)


# what the last step makes of it


def test_where_nothing_can_be_left_the_last_step_fails(tmp_path: Path) -> None:
    registry = json.dumps({"tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(StorageError, match=r"could be left nowhere: MLflow's run was not read: MLflow at"):
        leave_status(Ended("FAILED"), registry, "{}", tmp_path / "page", kfp_run_id="a-run")
    assert "FAILED" in (tmp_path / "page").read_text()


@pytest.mark.parametrize(
    ("word", "state"),
    [("SUCCEEDED", "succeeded"), ("COMPLETE", "succeeded"), ("CANCELED", "canceled"), ("FAILED", "failed")],
)
def test_kubeflows_words(word: str, state: str, store: str, tmp_path: Path) -> None:
    registry = json.dumps({"tracking_uri": store})
    left = leave_status(Ended(word, "why"), registry, "{}", tmp_path / "page", kfp_run_id="a-run")
    assert (left.state, left.kfp_run_id) == (state, "a-run")
    assert left.message == ("no step says why; Kubeflow says: why" if state == "failed" else "")
    status = registry_of(store).get_run(left.mlflow_run_id).info.status
    assert status == ("FINISHED" if state == "succeeded" else "FAILED")
