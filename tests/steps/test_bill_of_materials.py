"""The bill of materials is valid CycloneDX 1.6, says what the evidence says, and has the same bytes every time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from gate_evidence import Case, g
from packageurl import PackageURL

from beear_core.evidence import Evidence
from beear_core.models.folder import list_files
from beear_core.records import FileEntry
from components.passport.bom import bill_of_materials

NAME = "release-candidate"


@pytest.fixture
def evidence(case: Case) -> Evidence:
    return Evidence.read_files(case.evidence)


def bill(evidence: Evidence, case: Case, name: str = NAME) -> bytes:
    return bill_of_materials(evidence, list_files(case.model), name)


def read(text: bytes) -> Bom:
    """By the library's own reader, after its strict validator."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    found = Bom.from_json(data=json.loads(text))
    assert isinstance(found, Bom)
    return found


def of_type(found: Bom, kind: ComponentType) -> dict[str, Component]:
    return {component.name: component for component in found.components if component.type is kind}


def properties(component: Component | None) -> dict[str, str | None]:
    assert component is not None
    return {entry.name: entry.value for entry in component.properties}


def test_it_is_valid_and_about_the_model(evidence: Evidence, case: Case) -> None:
    text = bill(evidence, case)
    assert {json.loads(text)[key] for key in ("bomFormat", "specVersion")} == {"CycloneDX", "1.6"}
    model = read(text).metadata.component
    assert model is not None
    assert (model.type, model.name) == (ComponentType.MACHINE_LEARNING_MODEL, NAME)
    said = properties(model)
    assert said["beear:digest"] == evidence.after.model_digest
    assert said["beear:architecture"] == "LlamaForCausalLM"
    assert said["beear:after:attack_success/known_triggers:suffix"] == "2 of 120 = 1.7% (95% interval 0.5% to 5.9%)"
    assert said["beear:before:attack_success/known_triggers:suffix"].startswith("114 of 120")  # type: ignore[union-attr]
    assert said["beear:mitigation"] == "cleaned"
    assert said["beear:record:after"] == evidence.after.digest


def test_the_validator_can_refuse(evidence: Evidence, case: Case) -> None:
    broken = json.loads(bill(evidence, case))
    broken["components"][0]["type"] = "weights"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_every_file_has_the_hash_of_its_bytes(evidence: Evidence, case: Case) -> None:
    found = of_type(read(bill(evidence, case)), ComponentType.FILE)
    paths = [path for path in case.model.rglob("*") if path.is_file()]
    assert len(paths) > 3
    hashes = {name: [(h.alg.value, h.content) for h in component.hashes] for name, component in found.items()}
    assert hashes == {
        path.relative_to(case.model).as_posix(): [("SHA-256", hashlib.sha256(path.read_bytes()).hexdigest())]
        for path in paths
    }


def test_every_package_has_its_version_and_purl(evidence: Evidence, case: Case) -> None:
    found = of_type(read(bill(evidence, case)), ComponentType.LIBRARY)
    environment = evidence.after.environment
    assert {name: part.version for name, part in found.items()} == {
        **environment.versions,
        "beear-gate": environment.code_version,
    }
    assert str(found["torch"].purl) == "pkg:pypi/torch@2.13.0"


def test_a_purl_is_read_back_whatever_the_version_holds(evidence: Evidence, case: Case) -> None:
    environment = dataclasses.replace(evidence.after.environment, versions={"torch": "2.13.0+cpu", "My_Pack": "1"})
    other = dataclasses.replace(evidence, after=dataclasses.replace(evidence.after, environment=environment))
    found = of_type(read(bill(other, case)), ComponentType.LIBRARY)
    assert PackageURL.from_string(str(found["torch"].purl)).version == "2.13.0+cpu"
    assert PackageURL.from_string(str(found["My_Pack"].purl)).name == "my-pack"


def test_data_stand_with_their_digests_and_no_secret(evidence: Evidence, case: Case) -> None:
    assert evidence.validation is not None
    roles = dict(evidence.validation.roles)
    roles["harmful"] = dataclasses.replace(roles["harmful"], source="s3://me:hunter2@bucket/x?token=hunter2")
    other = dataclasses.replace(evidence, validation=dataclasses.replace(evidence.validation, roles=roles))
    text = bill(other, case)
    found = of_type(read(text), ComponentType.DATA)
    digests = {name: properties(part)["beear:digest"] for name, part in found.items()}
    assert digests == {
        **{f"suite {name}": suite.digest for name, suite in evidence.after.suites.items()},
        **{f"data {name}": role.digest for name, role in roles.items()},
        "suites": evidence.after.suites_digest,
        "anchors": evidence.validation.anchors_digest,
    }
    assert properties(found["suite harmful"])["beear:prompts"] == "120"
    assert b"hunter2" not in text


def test_the_model_depends_on_everything_that_is_listed(evidence: Evidence, case: Case) -> None:
    found = read(bill(evidence, case))
    edges = {str(d.ref): {str(below.ref) for below in d.dependencies} for d in found.dependencies}
    assert edges["model"] == {str(part.bom_ref) for part in found.components}
    assert len(found.components) == len(edges["model"]) > 15


def test_less_evidence_makes_a_valid_bill_too(evidence: Evidence, case: Case) -> None:
    least = Evidence(before=evidence.before, after=evidence.after)
    model = read(bill(least, case)).metadata.component
    assert "beear:architecture" not in properties(model)
    assert "beear:mitigation" not in properties(model)
    old = dataclasses.replace(evidence.after, suites_digest="", environment=dataclasses.replace(g.ENVIRONMENT, versions={}))
    assert "suites" not in of_type(read(bill(Evidence(before=evidence.before, after=old), case)), ComponentType.DATA)


AGAIN = """
import sys
from pathlib import Path
from beear_core.evidence import Evidence
from beear_core.models.folder import list_files
from components.passport.bom import bill_of_materials
evidence = Evidence.read_files({name: Path(f"{sys.argv[1]}/{name}.json") for name in sys.argv[3:]})
sys.stdout.buffer.write(bill_of_materials(evidence, list_files(Path(sys.argv[2])), "release-candidate"))
assert "torch" not in sys.modules and "mlflow" not in sys.modules
"""


@pytest.mark.parametrize("seed", ["0", "1"])
def test_other_processes_on_other_days_write_the_same_bytes(evidence: Evidence, case: Case, seed: str) -> None:
    records = case.evidence["after"].parent
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, records, case.model, *case.evidence],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
    )
    assert done.stdout == bill(evidence, case)
    assert b"timestamp" not in done.stdout


def test_the_order_of_files_and_figures_does_not_matter(evidence: Evidence, case: Case) -> None:
    files = list_files(case.model)
    turned = dict(reversed(evidence.after.metrics.items()))
    other = dataclasses.replace(evidence, after=dataclasses.replace(evidence.after, metrics=turned))
    assert bill_of_materials(other, files[::-1], NAME) == bill_of_materials(evidence, files, NAME)


CHANGES: dict[str, Any] = {
    "a file": lambda e, f: (e, (dataclasses.replace(f[0], digest=g.digest("x")), *f[1:]), NAME),
    "a size": lambda e, f: (e, (dataclasses.replace(f[0], size=1), *f[1:]), NAME),
    "another file": lambda e, f: (e, (*f, FileEntry(path="z", size=1, digest=g.digest("z"))), NAME),
    "the name": lambda e, f: (e, f, "other"),
    "a second": lambda e, f: (dataclasses.replace(e, after=dataclasses.replace(e.after, seconds=1.0)), f, NAME),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_differs_has_another_serial_number(evidence: Evidence, case: Case, what: str) -> None:
    files = list_files(case.model)
    one, other = read(bill_of_materials(evidence, files, NAME)), read(bill_of_materials(*CHANGES[what](evidence, files)))
    assert one.serial_number != other.serial_number


@pytest.mark.parametrize("name", ["<b>&\"'\\ \n\t", "модель", "x" * 500, "../../etc"])
def test_any_name_makes_a_valid_bill(evidence: Evidence, case: Case, name: str) -> None:
    odd = (FileEntry(path=name, size=0, digest=g.digest("odd")),)
    found = read(bill_of_materials(evidence, odd, name))
    assert found.metadata.component is not None
    assert json.loads(bill_of_materials(evidence, odd, name))["metadata"]["component"]["name"] == name
