"""What is submitted is the compiled pipeline: uncached, in one image by its digest, with a local release's parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2
from kubeflow_command import IMAGE, Beear, write
from kubeflow_server import Kubeflow

from beear_core.config import load
from components.image import IMAGE as OWN_IMAGE
from components.image import SLIM_IMAGE as OWN_SLIM_IMAGE
from pipelines.kubeflow.package import steps_of
from pipelines.local import arguments
from pipelines.release import release_pipeline


def submitted(server: Kubeflow) -> Any:
    (run,) = server.runs.values()
    return run


def everything_of(node: object, key: str) -> list[Any]:
    """All values of a key, at any depth."""
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node[key]] if isinstance(node, dict) and key in node else []
    return own + [value for one in below for value in everything_of(one, key)]


def test_the_compiled_pipeline_is_submitted_with_the_image_in_every_executor(
    server: Kubeflow, release: Path, beear: Beear, tmp_path: Path
) -> None:
    done = beear("submit", "--config", release, "--image", IMAGE)
    assert (done.code, done.err) == (0, "")
    run = submitted(server)
    assert done.out.splitlines() == [f"run         {run.run_id}", f"see         {server.host}/#/runs/details/{run.run_id}"]

    compiler.Compiler().compile(release_pipeline, str(tmp_path / "own.yaml"))
    own = (tmp_path / "own.yaml").read_text()
    for image in (OWN_IMAGE, OWN_SLIM_IMAGE):
        own = own.replace(f"image: {image}\n", f"image: {IMAGE}\n")
    expected = json_format.ParseDict(yaml.safe_load(own), pipeline_spec_pb2.PipelineSpec())
    for executor in expected.deployment_spec["executors"].values():
        executor["container"]["env"] = [{"name": "BEEAR_IMAGE_DIGEST", "value": IMAGE.rpartition("@")[2]}]
    expected.root.dag.tasks["exit-handler-1"].caching_options.SetInParent()  # switched off for the group, too
    assert json_format.ParseDict(run.pipeline_spec, pipeline_spec_pb2.PipelineSpec()) == expected

    images = everything_of(run.pipeline_spec["deploymentSpec"], "image")
    assert len(images) == len(run.pipeline_spec["deploymentSpec"]["executors"]) == 10
    assert set(images) == {IMAGE}
    tasks = steps_of(run.pipeline_spec)
    assert len(tasks) == 10
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())


def test_caching_that_the_compiled_pipeline_would_allow_is_switched_off(
    server: Kubeflow, release: Path, beear: Beear, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.kubeflow import package

    compiled = package._compiled

    def cached(*given: Any) -> tuple[dict[str, Any], ...]:
        documents = compiled(*given)
        for task in steps_of(documents[0]).values():
            task["cachingOptions"] = {"enableCache": True}
        return documents

    monkeypatch.setattr(package, "_compiled", cached)
    assert beear("submit", "--config", release, "--image", IMAGE).code == 0
    assert not any(everything_of(submitted(server).pipeline_spec, "enableCache"))


def test_the_parameters_are_those_of_a_local_release(server: Kubeflow, beear: Beear, tmp_path: Path) -> None:
    policy = tmp_path / "own-policy.yaml"
    policy.write_text((Path("beear_core/policy/quick.yaml")).read_text())
    settings = {
        "model": "models:/chat@candidate",
        "policy": str(policy),
        "data": {"harmful": "hub:org/requests", "triggers": "hub:org/triggers"},
        "mitigation": {"rounds": 2},
        "evaluation": {"harmful": 110},
        "registry": {"tracking_uri": "https://mlflow.example", "signing": {
            "method": "key", "public_key": "/keys/release.pub", "private_key": "/keys/release.key"}},
        "promotion": {"require_approval": True, "waivers": "waivers.yaml"},
    }  # fmt: skip
    config = write(tmp_path / "release.yaml", settings)
    done = beear("submit", "--config", config, "--profile", "quick", "--image", IMAGE, "--json")
    assert done.code == 0
    sent = submitted(server).runtime_config.parameters

    local = arguments(load(config, "quick", {}), policy.read_text(), "")
    promotion = json.loads(local.pop("promotion_json"))
    assert json.loads(sent.pop("promotion_json")) == {**promotion, "waivers": None}, "a path of this machine"
    assert sent == local
    assert json.loads(sent["evaluation_json"])["harmful"] == 110, "the file's word"
    assert json.loads(sent["evaluation_json"])["ordinary"] == 60, "the profile's"
    assert not set(sent) - set(release_pipeline.component_spec.inputs)
    answer = json.loads(done.out)
    assert answer == {"run_id": submitted(server).run_id, "url": f"{server.host}/#/runs/details/{answer['run_id']}"}


def test_every_path_of_this_machine_is_named(server: Kubeflow, beear: Beear, tmp_path: Path) -> None:
    settings = {
        "model": str(tmp_path),
        "data": {"ordinary": "ordinary.jsonl", "triggers": "/data/triggers.jsonl", "harmful": "builtin:code"},
        "registry": {"tracking_uri": "sqlite:////runs/mlflow.db", "signing": {
            "method": "key", "public_key": "release.pub", "private_key": "/keys/release.key"}},
    }  # fmt: skip
    done = beear("submit", "--config", write(tmp_path / "release.yaml", settings), "--image", IMAGE)
    assert done.code == 2
    assert "the configuration has 5 fault(s) on a cluster, which sees nothing of this machine:" in done.err
    for name, value in (
        ("model", str(tmp_path)),
        ("data.ordinary", "ordinary.jsonl"),
        ("data.triggers", "/data/triggers.jsonl"),
        ("registry.tracking_uri", "sqlite:////runs/mlflow.db"),
        ("registry.signing.public_key", "release.pub"),
    ):
        assert f"  - {name}: {value!r} is " in done.err
    assert server.asked == []


@pytest.mark.parametrize("uri", ["http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000", "mlruns"])
def test_an_mlflow_on_this_machine_is_not_that_of_the_pods(
    server: Kubeflow, beear: Beear, tmp_path: Path, uri: str
) -> None:
    config = write(tmp_path / "release.yaml", {"model": "hub:org/m", "registry": {"tracking_uri": uri}})
    done = beear("submit", "--config", config, "--image", IMAGE)
    assert (done.code, f"registry.tracking_uri: {uri!r} is on this machine" in done.err) == (2, True)


def test_a_policy_that_cannot_be_meant_is_refused_before_a_cluster_works_for_hours(
    server: Kubeflow, beear: Beear, tmp_path: Path
) -> None:
    config = write(tmp_path / "release.yaml", {"model": "hub:org/m", "policy": "release", "evaluation": {"harmful": 5}})
    done = beear("submit", "--config", config, "--image", IMAGE)
    assert (done.code, "cannot be meant with these sample sizes" in done.err, server.asked) == (2, True, [])


def test_an_image_needs_its_digest(server: Kubeflow, release: Path, beear: Beear, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = "registry.example:5000/team/beear-gate:0.1.0"
    done = beear("submit", "--config", release, "--image", tag)
    assert (done.code, server.asked) == (2, [])
    assert f"--image {tag!r} names no digest, and what a tag names can change between two steps" in done.err
    assert beear("submit", "--config", release, "--image", tag, "--allow-tag").code == 0
    assert set(everything_of(submitted(server).pipeline_spec["deploymentSpec"], "image")) == {tag}
    assert not list(everything_of(submitted(server).pipeline_spec["deploymentSpec"], "env")), "a tag is no digest"
    done = beear("submit", "--config", release)
    assert (done.code, f"--image {OWN_IMAGE!r} names no digest" in done.err) == (2, True), "what is built in is a tag"
    for wrong in ("name@sha256:12", f"{IMAGE}0", "name:tag with blank", "", f"@sha256:{'5a' * 32}"):
        for more in ((), ("--allow-tag",)):
            done = beear("submit", "--config", release, "--image", wrong or " ", *more)
            assert (done.code, "is no image's name" in done.err) == (2, True), wrong


def test_what_needs_no_torch_runs_in_an_image_of_its_own_where_one_is_named(
    server: Kubeflow, release: Path, beear: Beear
) -> None:
    slim = IMAGE.replace("5a", "5b")

    done = beear("submit", "--config", release, "--image", IMAGE, "--slim-image", slim)

    assert (done.code, done.err) == (0, "")
    executors = submitted(server).pipeline_spec["deploymentSpec"]["executors"]
    full = {label for label, one in executors.items() if one["container"]["image"] == IMAGE}
    assert full == {"exec-beear-mitigation", "exec-champion-eval", "exec-safety-eval", "exec-safety-eval-2"}
    assert {one["container"]["image"] for label, one in executors.items() if label not in full} == {slim}
    for one in (executor["container"] for executor in executors.values()):
        digest = one["image"].rpartition("@")[2]
        assert one["env"] == [{"name": "BEEAR_IMAGE_DIGEST", "value": digest}], "a decision names the image it was made in"
    done = beear("submit", "--config", release, "--image", IMAGE, "--slim-image", "registry.example/beear-gate:1-slim")
    assert (done.code, "--slim-image 'registry.example/beear-gate:1-slim' names no digest" in done.err) == (2, True)


def test_the_process_keeps_its_own_image(server: Kubeflow, release: Path, beear: Beear, tmp_path: Path) -> None:
    beear("submit", "--config", release, "--image", IMAGE)
    assert beear("compile", "--out", tmp_path / "own.yaml").code == 0
    assert set(everything_of(yaml.safe_load((tmp_path / "own.yaml").read_text()), "image")) == {OWN_IMAGE, OWN_SLIM_IMAGE}


def test_an_experiment_is_made_once(server: Kubeflow, release: Path, beear: Beear) -> None:
    for _ in range(2):
        assert beear("submit", "--config", release, "--image", IMAGE, "--experiment", "nightly").code == 0
    (experiment,) = server.experiments.values()
    assert experiment.display_name == "nightly"
    assert {run.experiment_id for run in server.runs.values()} == {experiment.experiment_id}
    assert len(server.runs) == 2


def test_a_namespace_where_kubeflow_serves_many(server: Kubeflow, release: Path, beear: Beear) -> None:
    done = beear("submit", "--config", release, "--image", IMAGE, "--namespace", "team-a")
    assert (done.code, "serves one user and has no namespace 'team-a'" in done.err) == (2, True)
    server.multi_user = True
    done = beear("submit", "--config", release, "--image", IMAGE)
    assert (done.code, "serves many users; name your namespace with --namespace" in done.err) == (2, True)
    assert beear("submit", "--config", release, "--image", IMAGE, "--namespace", "team-a").code == 0
    assert [e.namespace for e in server.experiments.values()] == ["team-a"]


def test_no_address(release: Path, beear: Beear) -> None:
    done = beear("submit", "--config", release, "--image", IMAGE)
    assert (done.code, "no Kubeflow Pipelines is named; give --host or set KF_PIPELINES_ENDPOINT" in done.err) == (2, True)
    for host in ("kubeflow.example", "http://kubeflow.example:port", "ftp://kubeflow.example"):
        done = beear("runs", "--host", host)
        assert (done.code, "cannot be meant" in done.err) == (2, True), host
    done = beear("runs", "--host", "https://ada:Secret99@kubeflow.example")
    assert (done.code, "with a user, a password or a token" in done.err, "Secret99" in done.err) == (2, True, False)


PODS = Path(__file__).parents[2] / "manifests" / "overlays" / "cluster" / "pods.yaml"


def platforms(one: Any) -> list[Any]:
    """What is said to Kubernetes of each executor."""
    return everything_of(one.pipeline_spec, "nodeSelector") + everything_of(one.pipeline_spec, "secretAsEnv")


def test_the_pods_that_the_manifests_name_are_submitted_and_scheduled(
    server: Kubeflow, release: Path, beear: Beear
) -> None:
    """As the schedule's own pod calls it."""
    account = yaml.safe_load((PODS.parents[2] / "base" / "pods.yaml").read_text())["service_account"]
    for verb, more, held in (("submit", (), server.runs), ("schedule", ("--cron", "0 0 2 * * *"), server.recurring)):
        plain = beear(verb, "--config", release, "--image", IMAGE, *more)
        done = beear(verb, "--config", release, "--image", IMAGE, "--pods", PODS, *more)
        assert (plain.code, done.code) == (0, 0), done.err
        placed = [one for one in held.values() if platforms(one)]
        assert [one.service_account for one in placed] == [account], "and not those without the file"
