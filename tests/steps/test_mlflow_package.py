"""What MLflow keeps beside a model is the gate's own and checked whole: it decides what is loaded."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from beear_core.models.folder import list_files
from beear_core.records import Environment
from components.mlflow_store import package

HERE = Environment.here()


@pytest.fixture(scope="module")
def built(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tiny_model, tmp_path_factory.mktemp("package") / "p", HERE)


def build(model: Path, out: Path, measured: Environment) -> Path:
    package.build(model, out, name="chat", run_id="r", model_id="m-1", measured=measured)
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "p"))


def faults(root: Path) -> list[str]:
    return package.faults(root, list_files(root))


def test_it_is_the_model_and_loads_as_one(built: Path, tiny_model: Path) -> None:
    import mlflow
    from transformers import pipeline

    assert faults(built) == []
    assert list_files(built / "model") == list_files(tiny_model)
    ours = mlflow.transformers.load_model(str(built))
    plain = pipeline("text-generation", model=str(tiny_model))
    said = [p("a river", max_new_tokens=5, do_sample=False)[0]["generated_text"] for p in (ours, plain)]
    assert said[0] == said[1]
    told = [path.read_text() for path in built.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert not any(str(tiny_model.parent) in text for text in told), "where it lay here is told nobody"


def test_it_answers_as_any_model_of_mlflow(built: Path) -> None:
    import mlflow

    said = mlflow.pyfunc.load_model(str(built)).predict("a river")
    assert isinstance(said[0], str)
    assert said[0].startswith("a river")


def test_it_is_what_mlflow_itself_would_write(built: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Less what only differs by the moment, and by what is meant: see the comments."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text = Schema([ColSpec(DataType.string)])
    mlflow.transformers.save_model(
        transformers_model=str(tiny_model),
        path=str(tmp_path / "p"),
        task="text-generation",
        mlflow_model=Model(artifact_path="model", run_id="r", model_id="m-1"),
        signature=ModelSignature(inputs=text, outputs=text),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("torch", "transformers", "accelerate")],
    )

    names = [{path.relative_to(root).as_posix() for path in root.rglob("*")} for root in (built, tmp_path / "p")]
    # its guess at a licence; and it writes the tokenizer anew where ours are the model's own files
    assert names[0] - {f"components/tokenizer/{name}" for name in ("config.json", "generation_config.json")} == names[1] - {
        "LICENSE.txt"
    }
    ours, theirs = (values_of(root) for root in (built, tmp_path / "p"))
    flavor = theirs["MLmodel"]["flavors"]["transformers"]
    assert flavor.pop("source_model_name") == str(tiny_model)  # a path of this machine
    assert ours["MLmodel"]["flavors"]["transformers"].pop("source_model_name") == "chat"
    assert flavor.pop("tokenizer_type") == "TokenizersBackend"  # transformers' own name of what it loads
    assert ours["MLmodel"]["flavors"]["transformers"].pop("tokenizer_type") == "AutoTokenizer"
    assert ours == theirs


def values_of(root: Path) -> dict[str, Any]:
    """What is beside the model, without time, size and identity, and without the versions of what builds packages."""
    values = {name: yaml.safe_load((root / name).read_text()) for name in ("MLmodel", "conda.yaml", "python_env.yaml")}
    for name in ("model_size_bytes", "model_uuid", "utc_time_created"):
        assert values["MLmodel"].pop(name)
    tools = re.compile(r"(pip|setuptools|wheel)(<=|==)[\d.]+")
    for name, key in (("conda.yaml", "dependencies"), ("python_env.yaml", "build_dependencies")):
        values[name][key] = [tools.sub(r"\1", one) if isinstance(one, str) else one for one in values[name][key]]
    return values | {"requirements.txt": (root / "requirements.txt").read_text()}


def test_it_is_loaded_with_what_the_model_was_measured_with(tiny_model: Path, tmp_path: Path) -> None:
    versions = {"torch": "2.99.1+cu130", "transformers": "5.98.0"}
    measured = dataclasses.replace(HERE, python="3.12.99", versions=versions)
    root = build(tiny_model, tmp_path / "p", measured)

    assert faults(root) == []
    asked = (root / "requirements.txt").read_text().splitlines()
    # what the record does not tell of is of this release
    assert asked[1:] == ["torch==2.99.1", "transformers==5.98.0", f"accelerate=={version('accelerate')}"]
    conda = yaml.safe_load((root / "conda.yaml").read_text())["dependencies"]
    assert conda == ["python=3.12.99", "pip", {"pip": asked}]
    assert yaml.safe_load((root / "python_env.yaml").read_text())["python"] == "3.12.99"


def described(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def alter(root: Path) -> None:
        values = yaml.safe_load((root / "MLmodel").read_text())
        change(values)
        (root / "MLmodel").write_text(yaml.safe_dump(values))

    return alter


def added(name: str, text: str) -> Callable[[Path], None]:
    def alter(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with (root / name).open("a") as file:
            file.write(text)

    return alter


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (added("code/run_me.py", "print()"), "code/run_me.py is extra"),
        (added("components/tokenizer/extra.json", "{}"), "components/tokenizer/extra.json is not the model's own"),
        (
            added("components/tokenizer/chat_template.jinja", "x"),
            "components/tokenizer/chat_template.jinja is not the model's own",
        ),
        (added("requirements.txt", "\nevil==1.0\n"), "requirements.txt asks for evil==1.0"),
        (
            added("requirements.txt", "\n--extra-index-url http://x\n"),
            "requirements.txt asks for --extra-index-url http://x",
        ),
        (
            added("requirements.txt", "\ntorch @ http://x/torch.whl\n"),
            "requirements.txt asks for torch @ http://x/torch.whl",
        ),
        (added("conda.yaml", "variables: {A: b}\n"), "conda.yaml says variables"),
        (added("python_env.yaml", "- evil==1\n"), "python_env.yaml says dependencies"),
        (lambda root: (root / "conda.yaml").write_text("channels: [evil]\nname: mlflow-env\n"), "conda.yaml says channels"),
        (
            lambda root: (root / "conda.yaml").write_text(
                "channels: [conda-forge]\nname: mlflow-env\ndependencies: [{pip: [evil==1]}]\n"
            ),
            "conda.yaml asks for ['evil==1']",
        ),
        (
            described(lambda m: m["flavors"]["python_function"].update(loader_module="evil")),
            "python_function.loader_module: evil",
        ),
        (
            described(lambda m: m["flavors"]["python_function"].update(code="code")),
            "MLmodel says python_function.code: code",
        ),
        (
            described(lambda m: m["flavors"]["transformers"].update(model_binary="other")),
            "transformers.model_binary: other",
        ),
        (described(lambda m: m["flavors"]["transformers"].update(peft_adaptor="x")), "transformers.peft_adaptor: x"),
        (described(lambda m: m["flavors"].update(sklearn={})), "MLmodel has the flavor sklearn"),
        (described(lambda m: m["flavors"].pop("transformers")), "MLmodel lacks the flavor transformers"),
        (described(lambda m: m.update(metadata={"a": 1})), "MLmodel says metadata"),
        (lambda root: (root / "MLmodel").unlink(), "there is no MLmodel"),
        (lambda root: (root / "MLmodel").write_text("- : ["), "MLmodel names no flavors"),
    ],
)
def test_whatever_stands_beside_the_model_is_named(alter: Callable[[Path], object], said: str, copy: Path) -> None:
    assert faults(copy) == []
    alter(copy)
    assert said in "; ".join(faults(copy))
