"""A volume, shared memory, time limits, more tries, pull secrets: what Kubeflow's own protobuf reads of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb
from kfp.pipeline_spec import pipeline_spec_pb2
from rendered import ROOT, find, rendered

from beear_core.errors import ConfigError
from pipelines.kubeflow.package import compile_pipeline
from pipelines.pods import Pods, read_pods

KEEP_SOMETHING = {"beear-mitigation", "safety-eval", "safety-eval-2", "champion-eval"}
"""Steps that leave something on the volume: weights to go on from, replies in full."""
FULL = """
image_pull_secrets: [mirror, other]
every_step: {memory: 8Gi, timeout: 90m}
steps:
  beear-mitigation:
    accelerator: nvidia.com/gpu
    accelerators: 4
    shared_memory: 4Gi
    timeout: 1d
    retries: {times: 2, wait: 5m, factor: 3}
  registry-gate: {retries: {times: 1}}
"""
CLAIM = "volume: {claim: models, path: /models}\n"
MADE = "volume: {size: 200Gi, storage_class: fast, access_mode: ReadWriteMany}\n"


class Compiled:
    """A pipeline with its pods, each document parsed by the protobuf of Kubeflow."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "pods.yaml").write_text(text)
        self.pods: Pods = read_pods(folder / "pods.yaml")
        compile_pipeline(folder / "out.yaml", self.pods)
        pipeline, platform = yaml.safe_load_all((folder / "out.yaml").read_text())
        self.spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
        self.platform = json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec()).platforms["kubernetes"]
        graphs = [self.spec.root.dag, *(component.dag for component in self.spec.components.values())]
        found = {name: task for graph in graphs for name, task in graph.tasks.items()}
        self.tasks = {n: t for n, t in found.items() if self.spec.components[t.component_ref.name].executor_label}

    def pod(self, task: str) -> pb.KubernetesExecutorConfig:
        executor = self.spec.components[self.tasks[task].component_ref.name].executor_label
        found = json_format.MessageToDict(self.platform.deployment_spec.executors[executor])
        return json_format.ParseDict(found, pb.KubernetesExecutorConfig())

    def parameter(self, task: str, name: str) -> str:
        return self.tasks[task].inputs.parameters[name].runtime_value.constant.string_value


@pytest.fixture(scope="module", params=["", CLAIM, MADE], ids=["no volume", "a claim", "one for the run"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Compiled]:
    return request.param, Compiled(tmp_path_factory.mktemp("parts"), request.param + FULL)


def test_shared_memory_is_in_memory_where_it_is_asked_for_and_nowhere_else(compiled: tuple[str, Compiled]) -> None:
    _, found = compiled
    for task in found.tasks:
        mounts = {m.mount_path: (m.volume_name, m.medium, m.size_limit) for m in found.pod(task).empty_dir_mounts}
        assert mounts.pop("/tmp") == ("scratch", "", "32Gi")
        wanted = {"/dev/shm": ("shared-memory", "Memory", "4Gi")} if task == "beear-mitigation" else {}
        assert mounts == wanted


def test_time_limits_and_tries_are_those_of_each_step(compiled: tuple[str, Compiled]) -> None:
    _, found = compiled
    limits = {task: found.pod(task).active_deadline_seconds for task in found.tasks}
    assert limits == {task: 86400 if task == "beear-mitigation" else 90 * 60 for task in found.tasks}
    tries = {t: found.tasks[t].retry_policy for t in found.tasks if found.tasks[t].HasField("retry_policy")}
    assert set(tries) == {"beear-mitigation", "registry-gate"}
    mitigation, gate = tries["beear-mitigation"], tries["registry-gate"]
    assert (mitigation.max_retry_count, mitigation.backoff_duration.seconds, mitigation.backoff_factor) == (2, 300, 3.0)
    assert (gate.max_retry_count, gate.backoff_duration.seconds, gate.backoff_factor) == (1, 60, 2.0)
    for task, policy in tries.items():
        # Argo counts from the start of the first attempt, and ends the last one where the time is over
        attempts = policy.max_retry_count + 1
        waits = sum(policy.backoff_duration.seconds * policy.backoff_factor**n for n in range(policy.max_retry_count))
        assert policy.backoff_max_duration.seconds >= attempts * limits[task] + waits


def test_every_pod_may_pull_the_image(compiled: tuple[str, Compiled]) -> None:
    _, found = compiled
    assert all([s.secret_name for s in found.pod(t).image_pull_secret] == ["mirror", "other"] for t in found.tasks)


def test_the_volume_is_mounted_where_something_is_kept_and_nowhere_else(compiled: tuple[str, Compiled]) -> None:
    kind, found = compiled
    workspace = found.platform.pipelineConfig.workspace
    patch = json_format.MessageToDict(workspace.kubernetes.pvc_spec_patch)
    if kind == MADE:
        assert (workspace.size, patch) == ("200Gi", {"accessModes": ["ReadWriteMany"], "storageClassName": "fast"})
    else:
        assert not found.platform.pipelineConfig.HasField("workspace")
    place = {"": "", CLAIM: "/models", MADE: "{{$.workspace_path}}"}[kind]
    label = "metadata.labels['workflows.argoproj.io/workflow']"
    for task in found.tasks:
        keeps, pod = task in KEEP_SOMETHING, found.pod(task)
        assert found.parameter(task, "work") == (place if keeps else ""), "Kubeflow mounts its own where this names it"
        mounted = [(m.constant, m.mount_path, m.sub_path) for m in pod.pvc_mount]
        assert mounted == ([("models", "/models", "")] if keeps and kind == CLAIM else [])
        named = [(f.name, f.field_path) for f in pod.field_path_as_env]
        assert named == ([("BEEAR_RUN", label)] if keeps and kind == CLAIM else []), "a claim serves many runs"


def test_the_overlays_bound_every_attempt_and_the_cluster_keeps_what_a_killed_step_goes_on_from() -> None:
    for folder in ("base", "overlays/cluster"):
        pods = read_pods(ROOT / "manifests" / folder / "pods.yaml")
        assert all(pod.timeout and pod.retries for pod in (pods.every_step, *pods.steps.values()))
    assert pods.volume is not None
    assert pods.volume.size is not None
    assert all(pod.shared_memory for pod in pods.steps.values() if pod.accelerator)
    quota = find(rendered("overlays/cluster"), "ResourceQuota", "beear")["spec"]["hard"]
    assert int(quota["persistentvolumeclaims"]) >= 2, "one for each of two releases"


GPUS = "every_step: {memory: 16Gi}\nsteps: {safety-eval: {accelerator: nvidia.com/gpu, accelerators: 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GPUS + "}}", r"steps\.safety-eval: .*accelerators is 2 without shared_memory.*; give shared_memory"),
        (GPUS + ", shared_memory: 16Gi}}", r"steps\.safety-eval: .*shared_memory is 16Gi, and counts towards memory"),
        ("every_step: {timeout: soon}", r"every_step\.timeout: .*'soon' cannot be read here; write .*as 2h"),
        ("every_step: {timeout: 3600}", r"every_step\.timeout: .*valid string"),
        ("every_step: {timeout: 0h}", r"every_step\.timeout: .*'0h'"),
        ("every_step: {shared_memory: 1G}", r"every_step\.shared_memory: .*'1G' cannot be read here; write .*as 16Gi"),
        ("every_step: {retries: {times: 2}}", r"every_step: .*retries without timeout: .*give timeout"),
        ("every_step: {timeout: 1h, retries: 2}", r"every_step\.retries"),
        ("every_step: {timeout: 1h, retries: {times: 11}}", r"every_step\.retries\.times: .*10 .*given: 11"),
        ("every_step: {timeout: 1h, retries: {times: 1, factor: 1.5}}", r"every_step\.retries\.factor"),
        ("every_step: {timeout: 1h, retries: {times: 1, pause: 1m}}", r"every_step\.retries\.pause: unknown key"),
        ("volume: {}", r"volume: .*give either claim, .*or size"),
        ("volume: {claim: a, size: 1Gi}", r"volume: .*give either claim, .*or size"),
        ("volume: {claim: a, storage_class: fast}", r"volume: .*claim names one that is there; leave them out"),
        ("volume: {size: 1Gi, path: /models}", r"volume: .*path is /models, and Kubeflow mounts .*; leave it out"),
        ("volume: {claim: a, path: work}", r"volume\.path: .*'work' cannot be read here; write an absolute path"),
        ("volume: {claim: a, path: /tmp/work}", r"volume: .*path is /tmp/work, where the system .*; choose another"),
        ("volume: {claim: Mine}", r"volume\.claim: .*'Mine' cannot be read here"),
        ("volume: {size: 1Gi, access_mode: Once}", r"volume\.access_mode"),
        ("image_pull_secrets: mirror", r"image_pull_secrets"),
        ("image_pull_secrets: ['a b']", r"image_pull_secrets\.0: .*'a b' cannot be read here"),
        ("every_step: {memory: 16 gigabytes}", r"every_step\.memory"),
        ("every_step: {memory: 16}", r"every_step\.memory"),
        ("every_step: {cpu: '0'}", r"every_step\.cpu"),
        ("every_step: {accelerators: 0}", r"every_step\.accelerators"),
        ("steps: {registry-gate: {gpu: 1}}", r"steps\.registry-gate\.gpu: unknown key"),
        ("steps: {registry-gate: many}", r"steps\.registry-gate"),
        ("steps: {registry-gate: {tolerations: [{operator: Perhaps}]}}", r"steps\.registry-gate\.tolerations\.0\.operator"),
        ("service_account: [a, b]", "service_account"),
        ("nodes: 3", "nodes: unknown key"),
    ],
)
def test_a_fault_names_file_step_key_value_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pods.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"pods\.yaml has 1 fault") as caught:
        read_pods(path)

    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_step_can_do_without_what_every_step_has(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(
        "every_step: {timeout: 1h, retries: {times: 1}}\nsteps: {registry-gate: {retries: null}}"
    )
    pods: Any = read_pods(tmp_path / "pods.yaml")

    assert pods.of("registry-gate").retries is None
    assert pods.of("model-intake").retries.times == 1
