"""What the steps' pods are given: compiled into the pipeline as the file says, and nothing in it that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from command import beear
from rendered import OVERLAYS, ROOT, documented_secrets, find, rendered

from beear_core.errors import ConfigError
from pipelines.kubeflow.package import steps_of
from pipelines.pods import Pods, read_pods, with_pods

LOAD_A_MODEL = {"beear-mitigation", "safety-eval", "safety-eval-2", "champion-eval"}
Documents = tuple[dict[str, Any], dict[str, Any]]


def _file(overlay: str, folder: Path) -> Path:
    path = folder / "pods.yaml"
    path.write_text(find(rendered(overlay), "ConfigMap", "beear-release")["data"]["pods.yaml"])
    return path


@pytest.fixture(scope="module", params=OVERLAYS, ids=["local", "cluster"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Pods, Documents]:
    """The pods of an overlay as the command compiles them."""
    folder = tmp_path_factory.mktemp("pods")
    path = _file(request.param, folder)
    done = beear("pipeline", "compile", "--pods", path, "--out", "out.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    pipeline, platform = yaml.safe_load_all((folder / "out.yaml").read_text())
    return request.param, read_pods(path), (pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])


def _executors(pipeline: dict[str, Any]) -> dict[str, str]:
    """Each task's executor."""
    components = pipeline["components"]
    return {name: components[task["componentRef"]["name"]]["executorLabel"] for name, task in steps_of(pipeline).items()}


def test_each_step_has_what_the_file_says(compiled: tuple[str, Pods, Documents]) -> None:
    _, pods, (pipeline, platform) = compiled
    executors = _executors(pipeline)
    assert len(set(executors.values())) == len(executors) == 10, "no two steps share a pod's settings"
    for task, executor in executors.items():
        pod, given = pods.of(task), platform[executor]
        resources = pipeline["deploymentSpec"]["executors"][executor]["container"]["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == pod.cpu
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == pod.memory
        accelerator = {"resourceType": pod.accelerator, "resourceCount": str(pod.accelerators)}
        assert (accelerator.items() <= resources.get("accelerator", {}).items()) == (pod.accelerator is not None)
        assert given["securityContext"] == {"runAsUser": "1001", "runAsGroup": "0", "runAsNonRoot": True}
        assert given["emptyDirMounts"][0] == {"volumeName": "scratch", "mountPath": "/tmp", "sizeLimit": pod.scratch}
        assert given.get("nodeSelector", {}).get("labels", {}) == pod.node_selector
        assert [one["key"] for one in given.get("tolerations", [])] == [one.key for one in pod.tolerations]
        for field, name, key, wanted in (
            ("secretAsEnv", "secretName", "secretKey", pod.secrets),
            ("configMapAsEnv", "configMapName", "configMapKey", pod.config_maps),
        ):
            found = {one[name]: tuple(pair[key] for pair in one["keyToEnv"]) for one in given.get(field, [])}
            assert found == wanted
            assert all(pair[key] == pair["envVar"] for one in given.get(field, []) for pair in one["keyToEnv"])


def test_the_pipeline_is_the_same_but_for_its_pods(compiled: tuple[str, Pods, Documents]) -> None:
    _, _, (pipeline, _) = compiled
    plain = yaml.safe_load((ROOT / "pipelines" / "release.yaml").read_text())
    for one in (pipeline, plain):
        for task in steps_of(one).values():
            task.pop("retryPolicy", None)
            task.get("inputs", {}).get("parameters", {}).pop("work", None)
        for executor in one["deploymentSpec"]["executors"].values():
            executor["container"].pop("resources", None)
            executor["container"].pop("image")

    assert pipeline == plain


def test_every_name_that_a_step_is_given_exists(compiled: tuple[str, Pods, Documents]) -> None:
    overlay, pods, (pipeline, _) = compiled
    objects, secrets = rendered(overlay), documented_secrets()
    assert pods.service_account is not None
    find(objects, "ServiceAccount", pods.service_account)
    for task in _executors(pipeline):
        pod = pods.of(task)
        for name, keys in pod.config_maps.items():
            assert set(keys) <= set(find(objects, "ConfigMap", name)["data"])
        for name, keys in pod.secrets.items():
            assert set(keys) <= secrets[name]
        assert set(pod.secrets) == {"beear-mlflow", "beear-s3"}, "each step tells MLflow how it went"


def test_steps_that_load_a_model_go_to_the_accelerators_and_fit_the_limits(tmp_path: Path) -> None:
    pods, objects = read_pods(_file("overlays/cluster", tmp_path)), rendered("overlays/cluster")
    quota = find(objects, "ResourceQuota", "beear")["spec"]["hard"]
    most = find(objects, "LimitRange", "beear")["spec"]["limits"][0]["max"]["memory"]

    assert {task for task, pod in pods.steps.items() if pod.accelerator} == LOAD_A_MODEL
    for pod in [pods.every_step, *pods.steps.values()]:
        assert pod.cpu is not None
        assert pod.memory is not None
        assert _gib(pod.memory) <= _gib(most)
        # two releases at once, each with a step of the largest and one beside it
        assert 2 * 2 * int(pod.cpu) <= int(quota["requests.cpu"])
        assert 2 * 2 * _gib(pod.memory) <= _gib(quota["requests.memory"])
        assert 2 * 2 * pod.accelerators <= int(quota["requests.nvidia.com/gpu"])


def _gib(amount: str) -> int:
    return int(amount.removesuffix("Gi"))


def test_what_holds_for_every_step_is_overridden_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "pods.yaml"
    path.write_text("every_step: {cpu: 500m, memory: 4Gi}\nsteps: {registry-gate: {memory: 8Gi}}\n")
    pods = read_pods(path)

    assert (pods.of("registry-gate").cpu, pods.of("registry-gate").memory) == ("500m", "8Gi")
    assert (pods.of("model-intake").cpu, pods.of("model-intake").memory) == ("500m", "4Gi")


def test_a_step_that_the_pipeline_does_not_have_is_refused(tmp_path: Path) -> None:
    from pipelines.release import release_pipeline

    path = tmp_path / "pods.yaml"
    path.write_text("steps: {safety_eval: {cpu: '1'}}\n")

    with pytest.raises(ConfigError, match=r"no step is called safety_eval; the steps are .*safety-eval-2"):
        with_pods(release_pipeline, read_pods(path))
