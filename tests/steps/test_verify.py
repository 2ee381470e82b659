"""A released model is compared with its decision: bytes, signature, tags, and all that MLflow keeps beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gate_evidence import Case
from gate_runs import NAME, config, gate, registry_of, versions
from signing_keys import key_pair

from beear_core.config import RegistryConfig, SigningConfig
from beear_core.errors import ConfigError, EvidenceError, ModelNotFoundError
from components.registry_gate.verification import verify

pytestmark = pytest.mark.usefixtures("own_mlflow")
CHAMPION = f"models:/{NAME}@champion"


@pytest.fixture
def signing(tmp_path: Path) -> SigningConfig:
    return key_pair(tmp_path, "release")


@pytest.fixture
def registry(case: Case, store: str, signing: SigningConfig, tmp_path: Path) -> RegistryConfig:
    """A signed champion; what is registered lies in ``tmp_path``."""
    settings = replace(config(store), signing=signing)
    gate(case, store, tmp_path / "out", registry=settings)
    return settings


def package(tmp_path: Path) -> Path:
    (found,) = tmp_path.rglob("artifacts/MLmodel")
    return found.parent


@pytest.fixture
def model(registry: RegistryConfig, tmp_path: Path) -> Path:
    """The released model as somebody copied it out of the registry."""
    return Path(shutil.copytree(package(tmp_path) / "model", tmp_path / "copy"))


def test_what_was_released_holds_its_papers_and_is_signed(case: Case, registry: RegistryConfig, model: Path) -> None:
    papers = {"README.md", "bom.cdx.json", "decision.json", "model.sig"}
    assert {p.name for p in model.iterdir()} == {p.name for p in case.model.iterdir()} | papers
    for place, version in ((str(model), None), (CHAMPION, "1"), (f"models:/{NAME}/1", "1")):
        found = verify(place, registry)
        assert (found.passed, found.signed, found.version, found.faults) == (True, "yes", version, ())
        assert found.decision_digest == versions(registry.tracking_uri or "")[0].tags["decision_digest"]
    unasked = verify(str(model), replace(registry, signing=None))
    assert (unasked.passed, unasked.signed) == (True, "not checked")


def test_extra_missing_and_changed_files_are_three_lists(registry: RegistryConfig, model: Path) -> None:
    (model / "extra.py").write_text("print()")
    (model / "generation_config.json").unlink()
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1] + b"x")
    for settings in (registry, replace(registry, signing=None)):
        found = verify(str(model), settings)
        assert not found.passed
        assert found.extra == ("extra.py",)
        assert found.missing == ("generation_config.json",)
        assert found.changed == ("model.safetensors",)


@pytest.mark.parametrize("name", ["README.md", "bom.cdx.json"])
def test_the_papers_are_covered_too(registry: RegistryConfig, model: Path, name: str) -> None:
    (model / name).write_text("the safest model there is")
    found = verify(str(model), replace(registry, signing=None))
    assert (found.passed, found.changed) == (False, (name,))


def test_an_altered_decision_is_none(registry: RegistryConfig, model: Path) -> None:
    path = model / "decision.json"
    path.write_text(path.read_text().replace('"passed":true', '"passed": true', 1))
    found = verify(str(model), registry)
    assert (found.passed, found.changed, found.decision_digest) == (False, ("decision.json",), "")
    path.unlink()
    with pytest.raises(EvidenceError, match=r"holds no decision.json: it was not released by this gate"):
        verify(str(model), registry)


def test_another_decision_well_formed_does_not_verify(registry: RegistryConfig, model: Path) -> None:
    """Spelt as a gate spells it, and about these bytes; only the signature tells."""
    path = model / "decision.json"
    path.write_text(path.read_text().replace('"policy":"standard"', '"policy":"strictest"'))
    assert verify(str(model), replace(registry, signing=None)).passed
    found = verify(str(model), registry)
    assert (found.passed, found.signed) == (False, "not checked")
    assert "is not what was signed (changed: decision.json)" in found.faults[0]


def test_a_signature_by_somebody_else(registry: RegistryConfig, model: Path, tmp_path: Path) -> None:
    found = verify(str(model), replace(registry, signing=key_pair(tmp_path, "other")))
    assert not found.passed
    assert "it is by somebody else, or was altered" in found.faults[0]
    (model / "model.sig").unlink()
    assert "was not signed, or lost it" in verify(str(model), registry).faults[0]


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda root: (root / "requirements.txt").write_text("evil==1"), "requirements.txt asks for evil==1"),
        (lambda root: (root / "sitecustomize.py").write_text(""), "sitecustomize.py is extra"),
        (lambda root: (root / "model" / "config.json").write_text("{}"), "changed: config.json"),
        (
            lambda root: (root / "components/tokenizer/tokenizer.json").write_text("{}"),
            "tokenizer.json is not the model's own",
        ),
    ],
)
def test_a_version_is_looked_at_whole(
    registry: RegistryConfig, tmp_path: Path, alter: Callable[[Path], object], said: str
) -> None:
    alter(package(tmp_path))
    found = verify(CHAMPION, registry)
    assert not found.passed
    assert said in "; ".join(found.faults)


@pytest.mark.parametrize("tag", ["decision_digest", "model_digest", "verdict"])
def test_tags_that_somebody_changed(registry: RegistryConfig, tag: str) -> None:
    registry_of(registry.tracking_uri or "").set_model_version_tag(NAME, "1", tag, "another")
    found = verify(CHAMPION, registry)
    assert (found.passed, found.faults) == (False, (f"the tag {tag} is another",))


def test_a_refused_version_is_no_released_model(refused: Case, store: str, signing: SigningConfig, tmp_path: Path) -> None:
    settings = replace(config(store), signing=signing)
    gate(refused, store, tmp_path / "no", registry=settings)
    found = verify(f"models:/{NAME}/1", settings)
    assert (found.passed, found.signed) == (False, "no")
    assert found.faults[0].startswith("its decision is a refusal: ")


def test_what_is_not_there(registry: RegistryConfig, tmp_path: Path) -> None:
    for place in (f"models:/{NAME}/9", f"models:/{NAME}@nobody", "models:/nothing@champion", str(tmp_path / "nowhere")):
        with pytest.raises(ModelNotFoundError):
            verify(place, registry)
    with pytest.raises(ConfigError, match="cannot be verified where it is; name a folder or models:/name@alias"):
        verify("s3://bucket/model", registry)


def test_keys_that_do_not_fit_stop_the_gate_before_it_decides(
    case: Case, store: str, signing: SigningConfig, tmp_path: Path
) -> None:
    other = key_pair(tmp_path, "other")
    mixed = replace(signing, public_key=other.public_key)
    with pytest.raises(ConfigError, match="does not verify by this configuration"):
        gate(case, store, tmp_path / "out", registry=replace(config(store), signing=mixed))
    assert not (tmp_path / "out").exists()


def test_the_command(registry: RegistryConfig, model: Path, tmp_path: Path) -> None:
    from command import beear

    assert registry.signing
    done = beear("verify", model, "--public-key", registry.signing.public_key, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["signed"]) == (0, "yes"), done.stderr
    (model / "extra.py").write_text("")
    no = beear("verify", model, cwd=tmp_path)
    assert no.returncode == 3
    assert "is NOT what was decided on" in no.stdout
    assert "extra       extra.py" in no.stdout
    assert beear("verify", tmp_path / "nowhere", cwd=tmp_path).returncode == 2
