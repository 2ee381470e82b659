"""The Pod Security Standards' profile "restricted", written down again from the standard, field by field.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
Every control of "baseline" and of "restricted" for Linux.
"""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP_TYPES = {"RuntimeDefault", "Localhost"}
APPARMOR_TYPES = {None, "RuntimeDefault", "Localhost"}


def violations(spec: Spec) -> list[str]:
    """Everything that a namespace which enforces "restricted" would refuse a pod for, by the field's path."""
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"volumes[{volume['name']}]" for volume in spec.get("volumes", []) if not set(volume) - {"name"} <= VOLUMES]
    pod = spec.get("securityContext") or {}
    found += [f"securityContext.{fault}" for fault in _shared(pod)]
    found += [f"sysctls[{one['name']}]" for one in pod.get("sysctls", []) if one["name"] not in SYSCTLS]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found += [f"{kind}[{container['name']}].{fault}" for fault in _of_container(container, pod)]
    return found


def _shared(context: Spec) -> list[str]:
    """Look at what may stand at a pod and at a container."""
    selinux = context.get("seLinuxOptions") or {}
    found = []
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        found.append("seLinuxOptions")
    if context.get("runAsUser") == 0:
        found.append("runAsUser is root")
    if (context.get("appArmorProfile") or {}).get("type") not in APPARMOR_TYPES:
        found.append("appArmorProfile")
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        found.append("windowsOptions.hostProcess")
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in SECCOMP_TYPES:
        found.append("seccompProfile")
    return found


def _of_container(container: Spec, pod: Spec) -> list[str]:
    own = container.get("securityContext") or {}
    found = _shared(own)
    capabilities = own.get("capabilities") or {}
    if own.get("privileged"):
        found.append("privileged")
    if own.get("allowPrivilegeEscalation") is not False:
        found.append("allowPrivilegeEscalation")
    if "ALL" not in capabilities.get("drop", []):
        found.append("capabilities.drop")
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        found.append("capabilities.add")
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        found.append("runAsNonRoot")
    if not own.get("seccompProfile", pod.get("seccompProfile")):
        found.append("seccompProfile is not set")
    if own.get("procMount") not in (None, "Default"):
        found.append("procMount")
    found += [f"hostPort {port['hostPort']}" for port in container.get("ports", []) if port.get("hostPort")]
    handlers = [container.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += list((container.get("lifecycle") or {}).values())
    if any((handler.get(way) or {}).get("host") for handler in handlers for way in ("httpGet", "tcpSocket")):
        found.append("a probe or hook names a host")
    return found
