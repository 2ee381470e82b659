"""The images themselves: built whole, and steps run in them as nobody, on a root file system that cannot be written.

The slim one is built here; ``make images`` builds the full one, too, which takes twice as long.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_image import ROOT, Builder, Image, builder
from without import MODEL_PACKAGES

sys.path.insert(0, str(ROOT / "tests" / "steps"))

from gate_evidence import Case, make_case

from beear_core.models.folder import directory_digest
from beear_core.records import ReleaseRecord, ValidationRecord
from components.image import NEED_TORCH
from tools import lock

COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))
TARGETS = ["slim", "full"] if os.environ.get("BEEAR_IMAGES") == "all" else ["slim"]
NAME = "chat"


@pytest.fixture(scope="module")
def made() -> Iterator[Builder]:
    with builder(in_memory="full" not in TARGETS) as held:
        yield held


@pytest.fixture(scope="module")
def images(made: Builder) -> dict[str, Image]:
    return {target: made.build(target) for target in TARGETS}


@pytest.fixture(scope="module")
def slim(images: dict[str, Image]) -> Image:
    return images["slim"]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that the user of the image can read and write, as one that Kubernetes gives the group to."""
    tmp_path.chmod(0o770)
    return tmp_path


def copy(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    for path in to.iterdir():
        path.chmod(0o660)
    return to


def test_nothing_but_tmp_can_be_written_and_the_user_is_nobody(slim: Image, shared: Path) -> None:
    done = slim.run("sh", "-c", "id -u; id -g; touch /tmp/a && echo tmp; touch /opt/a /var/tmp/a $HOME/b", shared=shared)
    assert done.stdout.split() == ["12345", "0", "tmp"]
    assert done.stderr.count("Read-only file system") == 2


@pytest.mark.parametrize("target", TARGETS)
def test_it_has_no_entry_point_and_says_what_it_is(target: str, images: dict[str, Image]) -> None:
    config = images[target].config
    assert not config.get("Entrypoint"), "Kubeflow's own would not be called"
    assert (config["User"], config["WorkingDir"]) == ("1001:0", "/tmp")
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert {
        "title": "beear-gate",
        "version": "0.1.0",
        "revision": "c0ffee",
        "licenses": "Apache-2.0",
    }.items() <= labels.items()
    assert "BEEAR_COMMIT=c0ffee" in config["Env"]


@pytest.mark.parametrize("target", TARGETS)
def test_its_bill_of_materials_is_of_what_is_installed(target: str, images: dict[str, Image], shared: Path) -> None:
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    done = images[target].run("python3", "-c", code, shared=shared)
    installed = set(map(_normal, done.stdout.split()))
    bill = json.loads((images[target].root / "opt/beear/sbom.json").read_text())
    listed = {_normal(f"{part['name']}=={part['version']}") for part in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert listed == installed - {"beear-gate==0.1.0"}
    assert bill["metadata"]["component"]["name"] == "beear-gate"
    # what scanners look packages up by
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])
    locked = {
        _normal(lock.pin(entry))
        for file in (["slim"] if target == "slim" else ["slim", "model"])
        for entry in lock.entries((ROOT / "locks" / f"{file}.lock").read_text()).values()
    }
    assert {one.partition("+")[0] for one in listed} <= locked


def _normal(pinned: str) -> str:
    name, _, version = pinned.partition("==")
    return f"{lock.normalized(name)}=={version}"


@pytest.mark.parametrize("target", TARGETS)
def test_every_component_that_runs_in_it_starts(target: str, images: dict[str, Image], shared: Path) -> None:
    mine = [one for one in COMPONENTS if target == "full" or one.replace("_", "-") not in NEED_TORCH]
    assert len(mine) >= 3
    for name in mine:
        done = images[target].run("python3", "-m", f"components.{name}", "--help", shared=shared)
        assert (done.returncode, f"python -m components.{name}" in done.stdout) == (0, True), done.stderr
    # what Kubeflow, the schedule and MLflow's own pod call in it
    for command in (
        ["python3", "-m", "kfp.dsl.executor_main", "--help"],
        ["beear", "--help"],
        ["mlflow", "server", "--help"],
    ):
        assert images[target].run(*command, shared=shared).returncode == 0, command


def test_the_slim_one_has_no_model_libraries(slim: Image, shared: Path) -> None:
    for name in MODEL_PACKAGES:
        done = slim.run("python3", "-c", f"import {name}", shared=shared)
        assert f"No module named '{name}'" in done.stderr
    for tool in ("pip", "hatchling", "setuptools", "pytest"):
        assert slim.run("python3", "-c", f"import {tool}", shared=shared).returncode == 1, tool


def test_nothing_is_compiled_anew(slim: Image, shared: Path) -> None:
    code = "import sys, components.registry_gate.step as s, mlflow; print(s.__cached__, mlflow.__cached__, sep='\\n')"
    done = slim.run("python3", "-c", code, shared=shared)
    for path in done.stdout.split():
        assert (slim.root / path.lstrip("/")).is_file(), path


def test_data_is_validated_in_it(slim: Image, shared: Path) -> None:
    done = slim.run("python3", "-m", "components.data_validation", "--out", "/tmp/shared/data", shared=shared)
    assert done.returncode == 0, done.stderr
    assert ValidationRecord.read(shared / "data" / "validation.json").passed


def test_a_model_is_taken_over_in_it(slim: Image, shared: Path, tiny_model: Path) -> None:
    copy(tiny_model, shared / "model")
    arguments = ("--model", "/tmp/shared/model", "--out", "/tmp/shared/out", "--record", "/tmp/shared/record.json")
    done = slim.run("python3", "-m", "components.model_intake", *arguments, shared=shared)
    assert done.returncode == 0, done.stderr
    assert directory_digest(shared / "out") == directory_digest(tiny_model)


def test_the_gate_promotes_in_it(slim: Image, shared: Path, tiny_model: Path) -> None:
    case = make_case(shared / "case", copy(tiny_model, shared / "model"))
    settings = {"registry": {"tracking_uri": "sqlite:////tmp/shared/mlflow.db", "model_name": NAME}}
    (shared / "release.yaml").write_text(json.dumps(settings))
    done = slim.run("python3", "-m", "components.registry_gate", *_gate_arguments(case, shared), shared=shared)
    assert done.returncode == 0, done.stderr
    assert ReleaseRecord.read(shared / "out" / "release.json").promoted
    for verb in (
        ["replay", "/tmp/shared/out"],
        ["verify", f"models:/{NAME}@champion", "--config", "/tmp/shared/release.yaml"],
    ):
        assert slim.run("beear", *verb, shared=shared).returncode == 0


def _gate_arguments(case: Case, shared: Path) -> list[str]:
    given = {
        "--model": case.model,
        "--evidence": case.evidence["after"].parent,
        "--before-samples": case.before_samples,
        "--after-samples": case.after_samples,
        "--out": shared / "out",
        "--config": shared / "release.yaml",
    }
    return [part for option, path in given.items() for part in (option, f"/tmp/shared/{path.relative_to(shared)}")]


if "full" in TARGETS:

    def test_the_full_one_has_torch_and_is_larger(images: dict[str, Image], shared: Path) -> None:
        code = "import torch, transformers, peft; print(float(torch.ones(2) @ torch.ones(2)))"
        done = images["full"].run("python3", "-c", code, shared=shared)
        assert done.stdout.split() == ["2.0"], done.stderr
        assert images["slim"].megabytes + 400 < images["full"].megabytes
