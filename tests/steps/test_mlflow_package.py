"""What MLflow keeps beside a model is the gate's own and checked whole: it decides what is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from beear_core.models.folder import list_files
from components.mlflow_store import package


@pytest.fixture(scope="module")
def built(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "p"
    package.build(tiny_model, out, name="chat", run_id="r", model_id="m-1")
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
    assert str(tiny_model) not in (built / "MLmodel").read_text(), "where it lay here is told nobody"


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
