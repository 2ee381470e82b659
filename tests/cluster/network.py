"""Who may speak to whom, as Kubernetes reads NetworkPolicies.

A pod that none selects is open, one that some select is closed but for what they name, and a connection has to be
allowed at both ends.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from rendered import Object, selects


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod with labels in a namespace, or an address outside the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "beear"
    address: str | None = None


class Network:
    """What the policies of some objects allow.

    ``namespace``: that they stand in. Pods of other namespaces are taken for open, because their policies are not ours.
    """

    def __init__(self, objects: list[Object]) -> None:
        self.policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
        (self.namespace,) = {one["metadata"]["namespace"] for one in self.policies}

    def allows(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Tell whether a connection can be made."""
        return self._passes("Egress", source, target, port, protocol) and self._passes(
            "Ingress", target, source, port, protocol
        )

    def _passes(self, direction: str, own: Peer, other: Peer, port: int, protocol: str) -> bool:
        if own.address is not None or own.namespace != self.namespace:
            return True
        holding = [
            policy["spec"]
            for policy in self.policies
            if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], own.labels)
        ]
        rules = [rule for spec in holding for rule in spec.get(direction.lower(), [])]
        return not holding or any(self._names(rule, direction, other, port, protocol) for rule in rules)

    def _names(self, rule: Object, direction: str, other: Peer, port: int, protocol: str) -> bool:
        peers = rule.get("to" if direction == "Egress" else "from")
        ports = rule.get("ports")
        return (not peers or any(self._is(peer, other) for peer in peers)) and (
            not ports or {"protocol": protocol, "port": port} in ports
        )

    def _is(self, peer: dict[str, Any], other: Peer) -> bool:
        if "ipBlock" in peer:
            return other.address is not None and ipaddress.ip_address(other.address) in ipaddress.ip_network(
                peer["ipBlock"]["cidr"]
            )
        if other.address is not None:
            return False
        where = peer.get("namespaceSelector")
        here = (
            other.namespace == self.namespace
            if where is None
            else selects(where, {"kubernetes.io/metadata.name": other.namespace})
        )
        return here and selects(peer.get("podSelector", {}), other.labels)
