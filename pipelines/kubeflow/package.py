"""What is sent to a cluster: the compiled pipeline, its images by their digests, the configuration as parameters."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from beear_core.config import ReleaseConfig
from beear_core.errors import ConfigError
from beear_core.files import digest_bytes
from beear_core.records.running import IMAGE_DIGEST
from components.image import image_of
from components.preflight.looks import check_policy
from components.storage.places import local_path
from pipelines.local import arguments
from pipelines.pods import Pods, read_pods, with_pods
from pipelines.runs import policy_text

_NAME = r"[a-z0-9][\w./-]*(:\d+/[\w./-]+)?"
_DIGEST = re.compile(rf"{_NAME}(:[\w.-]+)?@sha256:[0-9a-f]{{64}}", re.ASCII)
_TAG = re.compile(rf"{_NAME}(:[\w.-]+)?", re.ASCII)
_LOOPBACK = re.compile(r"localhost|127\.[\d.]+|::1|0\.0\.0\.0")


@dataclass(frozen=True, slots=True)
class Package:
    """A pipeline that is compiled, and the parameters of one release.

    Attributes:
        documents: of the pipeline's YAML: its specification, and what is for the platform alone, where there is any.
        parameters: of the pipeline, each a text.
        service_account: of Kubernetes, that its pods run as; ``None`` for Kubeflow's own choice.
    """

    documents: tuple[dict[str, Any], ...]
    parameters: dict[str, str]
    service_account: str | None = None

    @property
    def tasks(self) -> dict[str, str]:
        """Give every name that a task may be told of under -> the task."""
        return {name: key for key, task in steps_of(self.documents[0]).items() for name in (key, task["taskInfo"]["name"])}

    def digest(self, *more: str) -> str:
        """Digest everything, so that what changed is seen."""
        return digest_bytes(
            json.dumps([self.documents, self.parameters, self.service_account, more], sort_keys=True).encode()
        )

    @contextmanager
    def file(self) -> Iterator[str]:
        """Write the pipeline where KFP's client reads it, for as long as it does."""
        with tempfile.TemporaryDirectory(prefix="beear-pipeline-") as folder:
            path = Path(folder) / "beear-release.yaml"
            path.write_text(yaml.safe_dump_all(self.documents, sort_keys=True), encoding="utf-8")
            yield str(path)


def package(config: ReleaseConfig, image: str, slim: str, *, allow_tag: bool = False, pods: Path | None = None) -> Package:
    """Compile the pipeline for its images and turn the configuration into parameters.

    Args:
        config: of the release.
        image: that the steps which need torch run in, ``name@sha256:<digest>``.
        slim: that the others run in; it may be the same.
        allow_tag: take a tag, too.
        pods: a file of what the steps' pods are given, see ``read_pods``.

    Raises:
        ConfigError: an image has no digest, ``pods`` has a fault, or the configuration names what a cluster cannot see;
            every fault.
        PolicyError: the policy cannot be read, or cannot be meant with these sample sizes.
    """
    check_image(image, "--image", allow_tag=allow_tag)
    if slim != image:
        check_image(slim, "--slim-image", allow_tag=allow_tag)
    if faults := cluster_faults(config):
        raise ConfigError(
            f"the configuration has {len(faults)} fault(s) on a cluster, which sees nothing of this machine:", faults
        )
    check_policy(config)
    # a release takes no waivers, and the file is not there
    config = dataclasses.replace(config, promotion=dataclasses.replace(config.promotion, waivers=None))
    placed = read_pods(pods) if pods else None
    account = placed.service_account if placed else None
    documents = _compiled(image, slim, placed)
    for task in steps_of(documents[0]).values():
        # KFP's client switches caching off at the top alone, and steps stand below the group that the last one waits for
        task["cachingOptions"] = {}
    return Package(documents, arguments(config, policy_text(config.policy), ""), account)


def steps_of(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Find the tasks of a compiled pipeline that are steps, at any depth, by name; groups of tasks are none."""
    components = specification["components"]
    graphs = [specification["root"], *components.values()]
    tasks = [pair for graph in graphs if "dag" in graph for pair in graph["dag"]["tasks"].items()]
    return {name: task for name, task in tasks if "executorLabel" in components[task["componentRef"]["name"]]}


def check_image(image: str, option: str, *, allow_tag: bool) -> None:
    """Refuse an image without a digest: a tag can name other code by the next step, or by the next night.

    Raises:
        ConfigError: it has none, or is no image's name.
    """
    if _DIGEST.fullmatch(image) or (allow_tag and _TAG.fullmatch(image)):
        return
    if allow_tag or not _TAG.fullmatch(image):
        raise ConfigError(f"{option} {image!r} is no image's name; write registry/name@sha256:<64 hexadecimal digits>")
    raise ConfigError(
        f"{option} {image!r} names no digest, and what a tag names can change between two steps; give "
        "registry/name@sha256:<64 hexadecimal digits>, as 'docker buildx imagetools inspect' shows it, or --allow-tag"
    )


def cluster_faults(config: ReleaseConfig) -> list[str]:
    """Find what a pod could not see: files and folders of this machine, and servers on it."""
    faults = []
    if not config.model or local_path(config.model) is not None:
        faults.append(f"model: {config.model!r} is no place for a cluster; name s3://, models:/ or hub:")
    for role, place in dataclasses.asdict(config.data).items():
        if place is not None and not place.startswith(("builtin", "hub:")):
            faults.append(f"data.{role}: {place!r} is a file of this machine; name hub:<id>, or what is built in")
    if (place := config.artifacts.uri) is not None and local_path(place) is not None:
        faults.append(f"artifacts.uri: {place!r} is a folder of this machine; name s3://bucket/prefix")
    if tracking := config.registry.tracking_uri:
        parts = urlsplit(tracking)
        if parts.scheme.partition("+")[0] in {"", "file", "sqlite"} or _LOOPBACK.fullmatch(parts.hostname or ""):
            faults.append(
                f"registry.tracking_uri: {tracking!r} is on this machine; name the server as pods reach it, or leave it to "
                "MLFLOW_TRACKING_URI in the pods"
            )
    for key, file in config.registry.signing.files() if config.registry.signing else ():
        if not PurePosixPath(file).is_absolute():
            faults.append(
                f"registry.signing.{key}: {file!r} is a relative path; write where the file is mounted in the pod"
            )
    return faults


def compile_pipeline(path: Path, pods: Pods | None) -> None:
    """Compile the pipeline to a file, with what its steps' pods are given; ``None``: nothing by us.

    Raises:
        ConfigError: see ``with_pods``.
    """
    from kfp import compiler

    from pipelines.release import release_pipeline

    pipeline = with_pods(release_pipeline, pods) if pods else release_pipeline
    compiler.Compiler().compile(pipeline, str(path))


def _compiled(image: str, slim: str, pods: Pods | None) -> tuple[dict[str, Any], ...]:
    """Compile the pipeline and name the image of every executor; the process's own images stay what they are."""
    with tempfile.TemporaryDirectory(prefix="beear-pipeline-") as folder:
        path = Path(folder) / "compiled.yaml"
        compile_pipeline(path, pods)
        documents = tuple(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for label, executor in documents[0]["deploymentSpec"]["executors"].items():
        container = executor["container"]
        container["image"] = named = image_of(label, image, slim)
        if digest := named.partition("@")[2]:
            # nothing inside a container tells it which image it runs
            container.setdefault("env", []).append({"name": IMAGE_DIGEST, "value": digest})
    return documents
