"""What may be done with Kubernetes, by whom: as little as the pipeline's pods need, and each right says what for."""

from __future__ import annotations

import re

import pytest
from rendered import FOLDERS, MANIFESTS, name_of, pods_of, rendered, schedule_of

BY_KUBEFLOW = {"kfp-launcher", "mlpipeline-minio-artifact"}
every_folder = pytest.mark.parametrize("folder", FOLDERS)


@every_folder
def test_rights_are_named_one_by_one_and_end_at_the_namespace(folder: str) -> None:
    objects = rendered(folder)
    accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    roles = {one["metadata"]["name"]: one["rules"] for one in objects if one["kind"] == "Role"}

    assert not [name_of(one) for one in objects if one["kind"].startswith("Cluster")]
    for one in objects:
        if one["kind"] == "RoleBinding":
            assert one["roleRef"]["kind"] == "Role"
            assert one["roleRef"]["name"] in roles
            assert {(subject["kind"], subject["name"] in accounts) for subject in one["subjects"]} == {
                ("ServiceAccount", True)
            }
    for rules in roles.values():
        for rule in rules:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert not {"pods/exec", "pods/attach", "nodes", "serviceaccounts/token"} & set(rule["resources"])
            # Kubernetes' own objects: single ones by their names, and none is listed
            if "" in rule["apiGroups"]:
                assert set(rule["resourceNames"]) <= BY_KUBEFLOW
                assert rule["verbs"] == ["get"]


def test_every_verb_says_what_it_is_for() -> None:
    lines = (MANIFESTS / "base" / "accounts.yaml").read_text().splitlines()
    granted = 0
    for number, line in enumerate(lines):
        if found := re.search(r"^    verbs: \[(.*)\]", line):
            above = " ".join(_comment_above(lines, number))
            for verb in found[1].split(", "):
                granted += 1
                assert re.search(rf"\b{verb}\b[^:]*:", above), f"line {number + 1}: {verb}"
    assert granted == sum(len(rule["verbs"]) for one in rendered("base") if one["kind"] == "Role" for rule in one["rules"])


def _comment_above(lines: list[str], number: int) -> list[str]:
    found: list[str] = []
    while lines[number - 1].lstrip().startswith("#"):
        number -= 1
        found.insert(0, lines[number])
    return found


@every_folder
def test_what_runs_is_given_the_account_that_is_meant_for_it(folder: str) -> None:
    accounts = {pods.owner: pods.spec.get("serviceAccountName", "default") for pods in pods_of(rendered(folder))}

    assert accounts.pop("Deployment/mlflow") == "mlflow"
    assert accounts.pop("CronJob/release-schedule") == "beear-scheduler"
    assert set(accounts.values()) <= {"default"}
    token = schedule_of(rendered(folder))["volumes"]
    (source,) = [volume["projected"]["sources"][0] for volume in token if "projected" in volume]
    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org", "Kubernetes itself takes no such token"
