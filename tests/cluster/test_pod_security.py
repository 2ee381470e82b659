"""Every pod meets the profile "restricted", and the check itself finds every way of breaking it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from pod_security import violations
from rendered import FOLDERS, OVERLAYS, Pods, pods_of, rendered

OWN_IMAGE = "beear-gate"


def _every_pod() -> list[Any]:
    return [pytest.param(folder, id=folder.rpartition("/")[2]) for folder in FOLDERS]


@pytest.mark.parametrize("folder", _every_pod())
def test_every_pod_meets_the_restricted_profile(folder: str) -> None:
    found = {pods.owner: violations(pods.spec) for pods in pods_of(rendered(folder))}

    assert len(found) >= 2
    assert not [(owner, faults) for owner, faults in found.items() if faults]


@pytest.mark.parametrize("folder", _every_pod())
def test_every_pod_is_stricter_than_the_profile(folder: str) -> None:
    for pods in pods_of(rendered(folder)):
        context = pods.spec["securityContext"]
        assert context["runAsUser"] > 0, pods.owner  # the image's own user is not trusted to be any
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pods.spec["automountServiceAccountToken"] is False, "nothing that stands here speaks to Kubernetes"
        assert pods.spec["enableServiceLinks"] is False
        for container in pods.containers:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, pods.owner
            assert own["capabilities"] == {"drop": ["ALL"]}
            if OWN_IMAGE in container["image"]:
                assert (context["runAsUser"], context["runAsGroup"]) == (1001, 0), "as the Dockerfile says"
            assert _mounts(container)["/tmp"] in _empty_dirs(pods), "caches and temporary files go there"


@pytest.mark.parametrize("folder", _every_pod())
def test_every_container_says_what_it_needs_and_what_it_may_take(folder: str) -> None:
    for pods in pods_of(rendered(folder)):
        for container in pods.containers:
            for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
                assert set(amounts) == {"cpu", "memory", "ephemeral-storage"}, (pods.owner, container["name"])
        for volume in pods.spec.get("volumes", []):
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], (pods.owner, volume)


def _mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def _empty_dirs(pods: Pods) -> set[str]:
    return {volume["name"] for volume in pods.spec["volumes"] if "emptyDir" in volume}


Change = Callable[[dict[str, Any]], object]


def _at_container(**fields: Any) -> Change:
    return lambda spec: spec["containers"][0]["securityContext"].update(fields)


def _at_pod(**fields: Any) -> Change:
    return lambda spec: spec["securityContext"].update(fields)


def _without(place: str, name: str) -> Change:
    def change(spec: dict[str, Any]) -> None:
        context = spec["securityContext"] if place == "pod" else spec["containers"][0]["securityContext"]
        del context[name]

    return change


def _volume(**source: Any) -> Change:
    return lambda spec: spec["volumes"].append({"name": "more", **source})


def _container(**fields: Any) -> Change:
    return lambda spec: spec["containers"][0].update(fields)


_ELSEWHERE = {"host": "192.0.2.1", "port": 1}
BREAKS: dict[str, tuple[str, Change]] = {
    # baseline
    "hostNetwork": ("hostNetwork is set", lambda spec: spec.update(hostNetwork=True)),
    "hostPID": ("hostPID is set", lambda spec: spec.update(hostPID=True)),
    "hostIPC": ("hostIPC is set", lambda spec: spec.update(hostIPC=True)),
    "privileged": ("privileged", _at_container(privileged=True)),
    "capabilities.add": ("capabilities.add", _at_container(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]})),
    "hostPath": ("volumes[more]", _volume(hostPath={"path": "/"})),
    "hostPort": ("hostPort 5000", _container(ports=[{"containerPort": 5000, "hostPort": 5000}])),
    "probe host": ("a probe or hook names a host", _container(livenessProbe={"httpGet": _ELSEWHERE})),
    "hook host": (
        "a probe or hook names a host",
        _container(lifecycle={"preStop": {"tcpSocket": _ELSEWHERE}}),
    ),
    "appArmor of the pod": ("securityContext.appArmorProfile", _at_pod(appArmorProfile={"type": "Unconfined"})),
    "appArmor of a container": ("appArmorProfile", _at_container(appArmorProfile={"type": "Unconfined"})),
    "seLinux type": ("securityContext.seLinuxOptions", _at_pod(seLinuxOptions={"type": "spc_t"})),
    "seLinux user": ("seLinuxOptions", _at_container(seLinuxOptions={"user": "system_u"})),
    "seLinux role": ("seLinuxOptions", _at_container(seLinuxOptions={"role": "system_r"})),
    "procMount": ("procMount", _at_container(procMount="Unmasked")),
    "sysctl": ("sysctls[kernel.msgmax]", _at_pod(sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
    "windows": ("securityContext.windowsOptions.hostProcess", _at_pod(windowsOptions={"hostProcess": True})),
    # restricted
    "nfs": ("volumes[more]", _volume(nfs={"server": "192.0.2.1", "path": "/"})),
    "iscsi": ("volumes[more]", _volume(iscsi={"targetPortal": "192.0.2.1"})),
    "escalation allowed": ("allowPrivilegeEscalation", _at_container(allowPrivilegeEscalation=True)),
    "escalation not said": ("allowPrivilegeEscalation", _without("container", "allowPrivilegeEscalation")),
    "non-root not said": ("runAsNonRoot", _without("pod", "runAsNonRoot")),
    "non-root false": ("runAsNonRoot", _at_pod(runAsNonRoot=False)),
    "non-root undone": ("runAsNonRoot", _at_container(runAsNonRoot=False)),
    "root user": ("securityContext.runAsUser is root", _at_pod(runAsUser=0)),
    "root user of a container": ("runAsUser is root", _at_container(runAsUser=0)),
    "seccomp not said": ("seccompProfile is not set", _without("pod", "seccompProfile")),
    "seccomp unconfined": ("securityContext.seccompProfile", _at_pod(seccompProfile={"type": "Unconfined"})),
    "seccomp undone": ("seccompProfile", _at_container(seccompProfile={"type": "Unconfined"})),
    "capabilities kept": ("capabilities.drop", _without("container", "capabilities")),
    "capabilities dropped one by one": ("capabilities.drop", _at_container(capabilities={"drop": ["NET_RAW", "CHOWN"]})),
    "capabilities added": (
        "capabilities.add",
        _at_container(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "SYS_PTRACE"]}),
    ),
}


@pytest.mark.parametrize(("fault", "change"), BREAKS.values(), ids=BREAKS)
def test_one_field_that_breaks_the_profile_is_found(fault: str, change: Change) -> None:
    for overlay in OVERLAYS:
        for pods in pods_of(rendered(overlay)):
            spec = copy.deepcopy(pods.spec)
            spec.setdefault("volumes", [])
            change(spec)
            found = violations(spec)
            # what is said at the pod is missing at each of its containers
            assert {one.removeprefix(f"{_container_of(one)}.") for one in found} == {fault}, pods.owner


def _container_of(fault: str) -> str:
    return fault.partition(".")[0] if fault.startswith(("containers[", "initContainers[")) else ""


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_other_kinds_of_containers_are_looked_at_too(kind: str) -> None:
    (pods, *_) = pods_of(rendered("base"))
    spec = copy.deepcopy(pods.spec)
    spec[kind] = [{"name": "more", "image": "more:1"}]

    found = violations(spec)

    assert found == [f"{kind}[more].allowPrivilegeEscalation", f"{kind}[more].capabilities.drop"]


def test_what_the_profile_allows_is_not_a_fault() -> None:
    (pods, *_) = pods_of(rendered("base"))
    spec = copy.deepcopy(pods.spec)
    context = spec["containers"][0]["securityContext"]
    context["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    context["seccompProfile"] = {"type": "Localhost", "localhostProfile": "gate.json"}
    context["runAsNonRoot"] = True
    spec["securityContext"] = {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}

    assert violations(spec) == []
