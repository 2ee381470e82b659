"""What Kubernetes gives the steps' pods: settings and secrets as variables, processors, memory, accelerators, nodes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from beear_core.config import parse, read_yaml
from beear_core.config.kinds import STRICT, Count
from beear_core.config.reading import merge
from beear_core.errors import ConfigError

_USER, _GROUP = 1001, 0  # the image's own
Amount = Annotated[str, Field(pattern=r"^[1-9]\d*(Mi|Gi|Ti)$")]
Processors = Annotated[str, Field(pattern=r"^([1-9]\d*m?|\d+\.\d+)$")]


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint of nodes that a step's pod puts up with, as Kubernetes has it."""

    __pydantic_config__ = STRICT
    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


@dataclass(frozen=True, kw_only=True)
class StepPod:
    """The pod of one step.

    Attributes:
        cpu: processors, ``4`` or ``500m``; asked for and not exceeded.
        memory: likewise, ``16Gi``.
        scratch: size of ``/tmp``, where caches and copies of models lie.
        accelerator: a resource of nodes, ``nvidia.com/gpu``.
        accelerators: how many of it.
        node_selector: labels of the nodes that may run it.
        tolerations: of taints of these nodes.
        config_maps: name -> keys that become variables of the same name.
        secrets: the same of secrets.
    """

    __pydantic_config__ = STRICT
    cpu: Processors | None = None
    memory: Amount | None = None
    scratch: Amount = "32Gi"
    accelerator: str | None = None
    accelerators: Count = 1
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    config_maps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    secrets: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pods:
    """The pods of a pipeline.

    Attributes:
        service_account: that they run as; ``None`` for Kubeflow's own choice.
        every_step: what holds where a step says nothing else.
        steps: task of the pipeline -> its pod, with what holds for every step filled in.
    """

    __pydantic_config__ = STRICT
    service_account: str | None = None
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
    from kfp import dsl
    from kfp.dsl import pipeline_context

    spec = pipeline.pipeline_spec

    @functools.wraps(pipeline.pipeline_func)
    def placed(*given: Any, **named: Any) -> None:
        pipeline.pipeline_func(*given, **named)
        # steps alone, without the group that the last one waits for
        tasks = pipeline_context.Pipeline.get_default_pipeline().tasks
        if unknown := sorted(set(pods.steps) - set(tasks)):
            raise ConfigError(f"no step is called {', '.join(unknown)}; the steps are {', '.join(sorted(tasks))}")
        for name, task in tasks.items():
            _place(task, pods.of(name))

    component = pipeline.component_spec
    return dsl.pipeline(
        name=spec.pipeline_info.name,
        display_name=spec.pipeline_info.display_name or None,
        description=component.description,
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
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_GROUP, run_as_non_root=True)
