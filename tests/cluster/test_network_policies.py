"""What may speak to what, by the policies as they are applied."""

from __future__ import annotations

from typing import Any

import pytest
from network import Network, Peer
from rendered import OVERLAYS, PIPELINE_POD, find, pods_of, rendered, selects

INTERNET = Peer(address="203.0.113.7")
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
KUBEFLOW = {
    "api": (Peer({"app": "ml-pipeline"}, "kubeflow"), 8888),
    "grpc": (Peer({"app": "ml-pipeline"}, "kubeflow"), 8887),
    "metadata": (Peer({"component": "metadata-grpc-server"}, "kubeflow"), 8080),
    "artifacts": (Peer({"app": "seaweedfs"}, "kubeflow"), 8333),
}
PORTS = (22, 53, 80, 443, 5000, 5432, 6443, 8080, 8333, 8443, 8887, 8888, 9000)


class Place:
    """An overlay, with its pods as the network sees them."""

    def __init__(self, overlay: str) -> None:
        self.objects = rendered(overlay)
        self.network = Network(self.objects)
        here = self.network.namespace
        found = {pods.owner.partition("/")[2]: Peer(pods.labels, here) for pods in pods_of(self.objects)}
        self.mlflow, self.schedule = found["mlflow"], found["release-schedule"]
        self.database = found.get("mlflow-db", Peer(address="192.0.2.10"))
        self.store = found.get("model-store", Peer(address="192.0.2.20"))
        self.s3_port = 8333 if "model-store" in found else 443
        self.kubernetes = Peer(address="192.0.2.30" if "cluster" in overlay else "172.18.0.2")
        self.kubernetes_ports = (443, 6443) if "cluster" in overlay else (6443, 8443)
        self.step = Peer(PIPELINE_POD, here)
        self.stranger = Peer({"app": "something-else"}, here)
        self.ours = {"mlflow": self.mlflow, "schedule": self.schedule, "step": self.step}
        self.ours |= {name: peer for name, peer in found.items() if name in ("mlflow-db", "model-store")}

    def reached_from(self, name: str) -> set[tuple[str, int]]:
        """Everything that a pod can reach, but for DNS."""
        targets: dict[str, Peer] = {**self.ours, "stranger": self.stranger, "database": self.database, "s3": self.store}
        targets |= {"kubernetes": self.kubernetes, "internet": INTERNET}
        targets |= {f"kubeflow-{name}": peer for name, (peer, _) in KUBEFLOW.items()}
        aliases = {"mlflow-db", "model-store", "kubeflow-grpc"}  # the same pods by another name
        return {
            (target, port)
            for target, peer in targets.items()
            for port in PORTS
            if target not in aliases and self.network.allows(self.ours[name], peer, port)
        }


@pytest.fixture(params=OVERLAYS, ids=["local", "cluster"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


def test_a_step_reaches_mlflow_s3_kubeflow_and_the_cluster_and_nothing_else(place: Place) -> None:
    assert place.reached_from("step") == {
        ("mlflow", 5000),
        ("s3", place.s3_port),
        ("kubeflow-api", 8887),
        ("kubeflow-api", 8888),
        ("kubeflow-metadata", 8080),
        ("kubeflow-artifacts", 8333),
        ("kubeflow-artifacts", 9000),
        *(("kubernetes", port) for port in place.kubernetes_ports),
    }


def test_mlflow_reaches_its_database_and_s3_and_nothing_else(place: Place) -> None:
    assert place.reached_from("mlflow") == {("database", 5432), ("s3", place.s3_port)}


def test_the_schedule_reaches_kubeflows_api_and_nothing_else(place: Place) -> None:
    assert place.reached_from("schedule") == {("kubeflow-api", 8888)}


def test_mlflow_is_reached_by_steps_alone(place: Place) -> None:
    elsewhere = Peer(PIPELINE_POD, "another-team")

    reaching = [one for one in (*place.ours.values(), place.stranger, elsewhere, INTERNET) if _to_mlflow(place, one)]

    assert reaching == [place.step]


def _to_mlflow(place: Place, source: Peer) -> bool:
    return source is not place.mlflow and place.network.allows(source, place.mlflow, 5000)


def test_steps_and_the_schedule_are_reached_by_nobody(place: Place) -> None:
    for target in (place.step, place.schedule) if place.network.namespace == "beear" else (place.schedule,):
        for source in (*place.ours.values(), place.stranger, INTERNET):
            assert not any(place.network.allows(source, target, port) for port in PORTS)


def test_the_stores_inside_reach_nothing_and_are_reached_on_one_port_each() -> None:
    place = Place("overlays/local")
    assert place.reached_from("mlflow-db") == place.reached_from("model-store") == set()
    open_to = {
        (source, target, port)
        for source, one in place.ours.items()
        for target in ("mlflow-db", "model-store")
        for port in PORTS
        if place.network.allows(one, place.ours[target], port)
    }
    assert open_to == {("mlflow", "mlflow-db", 5432), ("mlflow", "model-store", 8333), ("step", "model-store", 8333)}
    assert not place.network.allows(place.stranger, place.database, 5432)


def test_everything_can_ask_for_names(place: Place) -> None:
    for peer in place.ours.values():
        assert place.network.allows(peer, DNS, 53, "UDP")
        assert place.network.allows(peer, DNS, 53, "TCP")
        assert not place.network.allows(peer, INTERNET, 53, "UDP"), "names are a way out, too"


def test_without_the_default_denial_the_network_is_open() -> None:
    """The evaluator itself: what no policy selects is open."""
    general = ("beear-default-deny", "beear-dns")
    objects = [one for one in rendered("overlays/cluster") if one["metadata"]["name"] not in general]
    place, network = Place("overlays/cluster"), Network(objects)

    assert network.allows(place.stranger, place.step, 22)
    assert not place.network.allows(place.stranger, place.step, 22)


def test_kubeflow_by_itself_is_left_alone() -> None:
    """In its namespace the policies hold for our pods and for steps, not for what Kubeflow consists of."""
    place = Place("overlays/local")
    for peer, port in KUBEFLOW.values():
        assert place.network.allows(peer, INTERNET, 443)
        assert place.network.allows(INTERNET, peer, port)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_selector_of_a_policy_selects_something(overlay: str) -> None:
    objects = rendered(overlay)
    network = Network(objects)
    pods: list[dict[str, str]] = [found.labels for found in pods_of(objects)] + [PIPELINE_POD]
    for policy in network.policies:
        assert any(selects(policy["spec"]["podSelector"], labels) for labels in pods), policy["metadata"]["name"]
        for peer in _inner_peers(policy["spec"]):
            assert any(selects(peer["podSelector"], labels) for labels in pods), policy["metadata"]["name"]
    assert find(objects, "NetworkPolicy", "beear-default-deny")["spec"]["policyTypes"] == ["Ingress", "Egress"]


def _inner_peers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    rules = [*spec.get("ingress", []), *spec.get("egress", [])]
    peers = [peer for rule in rules for peer in (*rule.get("to", []), *rule.get("from", []))]
    return [peer for peer in peers if "podSelector" in peer and "namespaceSelector" not in peer]
