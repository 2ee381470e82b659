"""What Kubernetes gives the steps' pods: settings, processors, memory, accelerators, nodes, a volume, time, more tries."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beear_core.config import parse, read_yaml
from beear_core.config.kinds import STRICT, Count
from beear_core.config.reading import merge
from beear_core.errors import ConfigError
from components.work import RUN
from pipelines.pod_parts import Amount, Duration, Name, Processors, Retries, Toleration, Volume, bytes_of, seconds_of

_USER, _GROUP = 1001, 0  # the image's own


@dataclass(frozen=True, kw_only=True)
class StepPod:
    """The pod of one step.

    Attributes:
        cpu: processors, ``4`` or ``500m``; asked for and not exceeded.
        memory: likewise, ``16Gi``.
        scratch: size of ``/tmp``, where caches and copies of models lie.
        accelerator: a resource of nodes, ``nvidia.com/gpu``.
        accelerators: how many of it; several need ``shared_memory``.
        shared_memory: size of ``/dev/shm``, in memory, through which processes of one pod exchange tensors.
        node_selector: labels of the nodes that may run it.
        tolerations: of taints of these nodes.
        config_maps: name -> keys that become variables of the same name.
        secrets: the same of secrets.
        timeout: ``6h``; an attempt that takes longer is ended, and has failed.
        retries: how often and when a pod that failed is made anew.
    """

    __pydantic_config__ = STRICT
    cpu: Processors | None = None
    memory: Amount | None = None
    scratch: Amount = "32Gi"
    accelerator: str | None = None
    accelerators: Count = 1
    shared_memory: Amount | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    config_maps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    secrets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    timeout: Duration | None = None
    retries: Retries | None = None

    def __post_init__(self) -> None:
        if self.accelerators > 1 and self.shared_memory is None:
            raise ValueError(
                f"accelerators is {self.accelerators} without shared_memory, and the 64 MiB that a pod has by itself end "
                "work on several accelerators; give shared_memory, for instance 16Gi"
            )
        if self.memory and self.shared_memory and bytes_of(self.shared_memory) >= bytes_of(self.memory):
            raise ValueError(
                f"shared_memory is {self.shared_memory}, and counts towards memory, which is {self.memory}; give less "
                "of the one or more of the other"
            )
        if self.retries and self.timeout is None:
            raise ValueError(
                "retries without timeout: Kubeflow bounds all attempts together, which takes to know how long one may be; "
                "give timeout, for instance 6h"
            )


@dataclass(frozen=True, kw_only=True)
class Pods:
    """The pods of a pipeline.

    Attributes:
        service_account: that they run as; ``None`` for Kubeflow's own choice.
        image_pull_secrets: with the credentials of the image's registry.
        volume: for what is to outlive a pod, of the steps that load a model; without, nothing does.
        every_step: what holds where a step says nothing else.
        steps: task of the pipeline -> its pod, with what holds for every step filled in.
    """

    __pydantic_config__ = STRICT
    service_account: str | None = None
    image_pull_secrets: tuple[Name, ...] = ()
    volume: Volume | None = None
    every_step: StepPod = field(default_factory=StepPod)
    steps: dict[str, StepPod] = field(default_factory=dict)

    def of(self, task: str) -> StepPod:
        """Give the pod of a task."""
        return self.steps.get(task, self.every_step)


def read_pods(path: Path) -> Pods:
    """Read a file of pods.

    Raises:
        ConfigError: it cannot be read, or with every fault of it.
    """
    values = read_yaml(path)
    common, steps = values.get("every_step"), values.get("steps")
    if isinstance(common, Mapping) and isinstance(steps, Mapping):
        values["steps"] = {name: merge(common, own) if isinstance(own, Mapping) else own for name, own in steps.items()}
    return parse(Pods, values, str(path))


def with_pods(pipeline: Any, pods: Pods) -> Any:
    """Make the same pipeline, whose steps run in such pods.

    Args:
        pipeline: what ``@dsl.pipeline`` made.
        pods: of its steps.

    Raises:
        ConfigError: a step is named that the pipeline does not have.
    """
    from kfp import dsl, kubernetes
    from kfp.dsl import pipeline_context

    @functools.wraps(pipeline.pipeline_func)
    def placed(*given: Any, **named: Any) -> None:
        pipeline.pipeline_func(*given, **named)
        # steps alone, without the group that the last one waits for
        tasks = pipeline_context.Pipeline.get_default_pipeline().tasks
        if unknown := sorted(set(pods.steps) - set(tasks)):
            raise ConfigError(f"no step is called {', '.join(unknown)}; the steps are {', '.join(sorted(tasks))}")
        for name, task in tasks.items():
            _place(task, pods.of(name))
            if pods.image_pull_secrets:
                kubernetes.set_image_pull_secrets(task, list(pods.image_pull_secrets))
            if pods.volume and "work" in (task.component_spec.inputs or {}):
                _mount(task, pods.volume)

    spec, component = pipeline.pipeline_spec, pipeline.component_spec
    return dsl.pipeline(
        name=spec.pipeline_info.name,
        display_name=spec.pipeline_info.display_name or None,
        description=component.description,
        pipeline_config=dsl.PipelineConfig(workspace=_workspace(pods.volume)),
    )(placed)


def _place(task: Any, pod: StepPod) -> None:
    from kfp import kubernetes

    if pod.cpu:
        task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    if pod.memory:
        task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.accelerator:
        task.set_accelerator_type(pod.accelerator).set_accelerator_limit(pod.accelerators)
    for label, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for one in pod.tolerations:
        kubernetes.add_toleration(task, one.key, one.operator, one.value, one.effect)
    for name, keys in pod.config_maps.items():
        kubernetes.use_config_map_as_env(task, name, {key: key for key in keys})
    for name, keys in pod.secrets.items():
        kubernetes.use_secret_as_env(task, name, {key: key for key in keys})
    kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=pod.scratch)
    if pod.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", pod.shared_memory)
    if pod.timeout:
        kubernetes.set_timeout(task, seconds_of(pod.timeout))
    if pod.timeout and pod.retries:
        again = pod.retries
        task.set_retry(again.times, again.wait, again.factor, f"{again.in_all(seconds_of(pod.timeout))}s")
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_GROUP, run_as_non_root=True)


def _workspace(volume: Volume | None) -> Any:
    """Describe the claim that Kubeflow makes for a run; ``None``: none is made."""
    from kfp import dsl

    if volume is None or volume.size is None:
        return None
    patch: dict[str, Any] = {"accessModes": [volume.access_mode]}
    if volume.storage_class:
        patch["storageClassName"] = volume.storage_class
    return dsl.WorkspaceConfig(size=volume.size, kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch=patch))


def _mount(task: Any, volume: Volume) -> None:
    """Mount the volume, and name it to the step, which takes the place as its parameter ``work``."""
    from kfp import dsl, kubernetes

    if volume.claim is None:
        # Kubeflow mounts it where a parameter names it
        task.inputs["work"] = dsl.WORKSPACE_PATH_PLACEHOLDER
        return
    kubernetes.mount_pvc(task, volume.claim, volume.path)
    # Argo gives each pod of a run this label, those of a later attempt too; a claim that is there serves many runs
    kubernetes.use_field_path_as_env(task, RUN, "metadata.labels['workflows.argoproj.io/workflow']")
    task.inputs["work"] = volume.path
