"""The manifests render, hold to Kubernetes' own schemas, name only what is there, and give away no more than is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from rendered import (
    DOCS,
    FOLDERS,
    MANIFESTS,
    OVERLAYS,
    ROOT,
    documented_secrets,
    find,
    name_of,
    pods_of,
    references,
    rendered,
    rendered_text,
    schedule_of,
    selects,
)

FILES = sorted(path for path in MANIFESTS.rglob("*.yaml"))
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
every_folder = pytest.mark.parametrize("folder", FOLDERS)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def _validate(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "all.yaml"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@every_folder
def test_every_object_holds_to_kubernetes_own_schemas(folder: str, tmp_path: Path) -> None:
    done = _validate(rendered_text(folder), tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_misspelt_field_is_found(tmp_path: Path) -> None:
    done = _validate(rendered_text("base").replace("maxUnavailable: 1", "maxUnavailible: 1"), tmp_path)

    assert done.returncode != 0
    assert "maxUnavailible" in done.stdout + done.stderr


@every_folder
def test_every_object_stands_in_one_namespace_and_is_ours_by_its_label(folder: str) -> None:
    objects = rendered(folder)
    namespaces = {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"}

    assert namespaces == ({"kubeflow"} if folder == "overlays/local" else {"beear"})
    assert {one["metadata"]["labels"]["app.kubernetes.io/part-of"] for one in objects} == {"beear-gate"}
    assert len({name_of(one) for one in objects}) == len(objects)


@pytest.mark.parametrize("folder", ["base", "overlays/cluster"])
def test_the_namespace_admits_restricted_pods_alone(folder: str) -> None:
    labels = find(rendered(folder), "Namespace", "beear")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_in_kubeflows_own_namespace_nothing_rules_what_is_not_ours() -> None:
    kinds = {one["kind"] for one in rendered("overlays/local")}

    assert not kinds & {"Namespace", "ResourceQuota", "LimitRange"}


@every_overlay
def test_every_name_that_a_pod_refers_to_exists(overlay: str) -> None:
    objects, secrets = rendered(overlay), documented_secrets()
    there = {(one["kind"], one["metadata"]["name"]): set(one.get("data", {})) for one in objects}
    there |= {("Secret", name): keys for name, keys in secrets.items()}
    there[("ServiceAccount", "default")] = set()
    for pods in pods_of(objects):
        volumes = {volume["name"] for volume in pods.spec.get("volumes", [])} | set(pods.claims)
        for container in pods.containers:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, pods.owner
        for reference in references(pods):
            assert (reference.kind, reference.name) in there, (pods.owner, reference)
            assert set(reference.keys) <= there[(reference.kind, reference.name)], (pods.owner, reference)


@every_overlay
def test_every_documented_secret_is_used(overlay: str) -> None:
    used = {one.name for pods in pods_of(rendered(overlay)) for one in references(pods) if one.kind == "Secret"}
    by_steps = {"beear-s3", "beear-mlflow"}
    inside = {"mlflow-db", "model-store"}

    assert used | by_steps | inside == set(documented_secrets())
    assert (inside <= used) == (overlay == "overlays/local")


@every_folder
def test_every_selector_selects_pods_of_one_kind(folder: str) -> None:
    objects = rendered(folder)
    pods = pods_of(objects)
    for one in objects:
        match one["kind"]:
            case "Service":
                selector = {"matchLabels": one["spec"]["selector"]}
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet":
                selector = one["spec"]["selector"]
            case _:
                continue
        assert len([found for found in pods if selects(selector, found.labels)]) == 1, name_of(one)


@every_folder
def test_every_service_and_probe_reaches_a_port_that_is_there(folder: str) -> None:
    objects = rendered(folder)
    for one in objects:
        if one["kind"] == "Service":
            (pods,) = [p for p in pods_of(objects) if one["spec"]["selector"].items() <= p.labels.items()]
            named = {port["name"] for container in pods.containers for port in container.get("ports", [])}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= named, name_of(one)
            assert one["spec"].get("type", "ClusterIP") == "ClusterIP"
        if one["kind"] == "StatefulSet":
            find(objects, "Service", one["spec"]["serviceName"])
    for pods in pods_of(objects):
        for container in pods.spec["containers"]:
            named = {port["name"] for port in container.get("ports", [])}
            probes = [
                container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe in container
            ]
            assert len(probes) == (0 if pods.owner.startswith("CronJob") else 3), pods.owner
            assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= named


@every_overlay
def test_every_host_that_is_named_is_a_service(overlay: str) -> None:
    objects = rendered(overlay)
    services = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Service"}
    endpoints = find(objects, "ConfigMap", "beear-endpoints")["data"]
    named = re.findall(r"://(?:[^@/]*@)?([\w.-]+):(\d+)", yaml.safe_dump(endpoints) + _example_secrets())
    inside = {(host, int(port)) for host, port in named if "." not in host}

    assert ("mlflow-server", 5000) in inside
    for host, port in inside - ({("mlflow-db", 5432)} if overlay == "overlays/cluster" else set()):
        assert port in [one["port"] for one in services[host]["spec"]["ports"]]


@every_overlay
def test_no_services_name_makes_a_variable_that_mlflow_reads(overlay: str) -> None:
    """Kubernetes tells each pod of every service by variables: one called mlflow would set MLFLOW_PORT to an address."""
    source = "".join(path.read_text() for path in _package("mlflow").rglob("*.py"))
    for one in rendered(overlay):
        if one["kind"] == "Service":
            prefix = one["metadata"]["name"].upper().replace("-", "_")
            assert not re.search(rf'"{prefix}_(PORT|SERVICE_HOST|SERVICE_PORT)', source), one["metadata"]["name"]
    assert '"MLFLOW_PORT"' in source


def _package(name: str) -> Path:
    import importlib.util

    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@every_folder
def test_no_image_can_change_under_its_name(folder: str) -> None:
    images = [container["image"] for pods in pods_of(rendered(folder)) for container in pods.containers]
    for image in images:
        name, _, tag = image.rpartition("/")[2].partition(":")
        pinned = re.search(r"@sha256:[0-9a-f]{64}$", image) or re.fullmatch(r"\d+\.\d+(\.\d+)?(-[a-z]+)?", tag)
        assert name, image
        assert pinned, f"{image}: neither a digest nor a whole version"
    if folder == "overlays/cluster":
        assert all("@sha256:" in image for image in images)


@every_overlay
def test_the_recurring_run_is_scheduled_in_the_image_that_schedules_it_and_in_one_with_torch(overlay: str) -> None:
    (container,) = schedule_of(rendered(overlay))["containers"]
    images = {one["name"]: one["value"] for one in container["env"]}

    assert images["BEEAR_SLIM_IMAGE"] == container["image"]
    if overlay == "overlays/cluster":
        assert re.fullmatch(r"registry\.example/beear-gate@sha256:0{64}", images["BEEAR_IMAGE"])
    else:
        assert f"{images['BEEAR_IMAGE']}-slim" == container["image"]


@every_folder
def test_the_schedule_runs_only_when_told_to_and_never_twice_at_once(folder: str) -> None:
    spec = find(rendered(folder), "CronJob", "release-schedule")["spec"]

    assert spec["suspend"] is True
    assert spec["concurrencyPolicy"] == "Forbid"


@every_folder
def test_the_configuration_that_recurs_is_one_that_a_release_takes(folder: str, tmp_path: Path) -> None:
    from beear_core.config import load
    from components.storage.places import local_path

    path = tmp_path / "release.yaml"
    path.write_text(find(rendered(folder), "ConfigMap", "beear-release")["data"]["release.yaml"])
    settings = load(path, "release", {})

    assert local_path(settings.model) is None, "a pod sees no file of another machine"
    assert settings.registry.tracking_uri is None, "it is told by MLFLOW_TRACKING_URI"


def test_no_secret_stands_in_the_manifests() -> None:
    for folder in FOLDERS:
        assert not [name_of(one) for one in rendered(folder) if one["kind"] == "Secret"]
    for path in sorted((MANIFESTS / "secrets.example").iterdir()):
        for line in path.read_text().splitlines():
            value = re.search(r"(?:password|secret\w*|_KEY(?:_ID)?)\"?\s*[=:]\s*(.*)", line, re.IGNORECASE)
            assert value is None or "<" in value[1], f"{path.name}: {line}"


def test_nothing_that_can_be_set_by_overlay_is_left_from_the_examples() -> None:
    """The cluster overlay reaches nothing until it is filled in: documentation's addresses, an image that is none."""
    text = rendered_text("overlays/cluster")
    addresses = re.findall(r"cidr: ([\d.]+)", text)

    assert addresses
    assert all(address.startswith("192.0.2.") for address in addresses)
    assert set(re.findall(r"@sha256:(\w+)", text)) == {"0" * 64}
    assert "https://s3.example" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_every_file_is_part_of_something_that_is_rendered(path: Path) -> None:
    kustomizations = [yaml.safe_load(one.read_text()) for one in path.parent.glob("kustomization.yaml")]
    named = str(kustomizations)

    assert path.name == "kustomization.yaml" or path.name in named
    assert all(
        len(line) <= 132 for line in path.read_text().splitlines() if "://" not in line and "ALLOWED_HOSTS" not in line
    )


def test_the_pages_steps_name_what_is_there() -> None:
    for name in re.findall(r"manifests/[\w./-]+", DOCS):
        assert (ROOT / name.rstrip(".")).exists(), name
    headings = re.findall(r"^## (.*)", DOCS, re.MULTILINE)
    assert [one for one, two in pairwise(headings) if one == two] == []
    objects = {name_of(one) for folder in FOLDERS for one in rendered(folder)}
    for one in objects:
        kind, _, name = one.partition("/")
        plain = re.sub(r"-[0-9a-z]{10}$", "", name) if kind == "ConfigMap" else name
        assert f"`{plain}`" in DOCS, f"docs/cluster.md says nothing of {one}"


def _example_secrets() -> str:
    return "".join(path.read_text() for path in sorted((MANIFESTS / "secrets.example").iterdir()))
