"""A model as MLflow keeps it: the folder in ``model/``, and beside it how MLflow is to load it.

What stands beside it can change what the model does (another tokenizer, code to run first, packages to install), so it is
built here from the model's own files alone, and checked whole when it is read back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import yaml

from beear_core.models.folder import needed, read_config
from beear_core.records import Environment, FileEntry

MODEL = "model"
_TOKENIZER = "components/tokenizer"
_DESCRIPTION, _REQUIREMENTS, _CONDA, _VIRTUALENV = "MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml"
_TOP = frozenset({_DESCRIPTION, _REQUIREMENTS, _CONDA, _VIRTUALENV, "LICENSE.txt"})
_PACKAGES = ("torch", "transformers", "accelerate")
# by these names transformers takes the class that the files beside them name, and runs no code of theirs
_ANY_TOKENIZER, _ANY_MODEL = "AutoTokenizer", "AutoModelForCausalLM"
_PINNED = re.compile(r"(mlflow|torch|transformers|accelerate)==\d[\w.+]*")
_BUILT_WITH = re.compile(r"(pip|setuptools|wheel)((==|<=)\d[\w.]*)?")
_PYTHON = re.compile(r"(python=)?\d+\.\d+\.\d+")
_WORD = re.compile(r"[\w.+-]*")
_FLAVORS: Mapping[str, Mapping[str, Any]] = {
    "python_function": {
        "env": {"conda": _CONDA, "virtualenv": _VIRTUALENV},
        "loader_module": "mlflow.transformers",
        "python_version": _PYTHON,
    },
    "transformers": {
        "code": None,
        "components": ["tokenizer"],
        "instance_type": "TextGenerationPipeline",
        "model_binary": MODEL,
        "pipeline_model_type": _WORD,
        "source_model_name": _WORD,
        "task": "text-generation",
        "tokenizer_type": _WORD,
        "torch_dtype": None,
        "transformers_version": _WORD,
    },
}
_FREE = frozenset(
    {"artifact_path", "is_signature_from_type_hint", "mlflow_version", "model_id", "model_size_bytes", "model_uuid"}
    | {"prompts", "run_id", "signature", "type_hint_from_example", "utc_time_created"}
)
"""Of the description: what tells where it came from and what goes in and out, and loads nothing."""


def build(folder: Path, out: Path, *, name: str, run_id: str, model_id: str, measured: Environment) -> None:
    """Write a model folder as MLflow's transformers flavour keeps it, without torch or transformers.

    Args:
        folder: of the model, with all that is to stand beside its files.
        out: a new folder.
        name: of the registered model.
        run_id: the run that it comes from.
        model_id: of the logged model.
        measured: where the model was measured; that is what it is to be loaded with.
    """
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.utils.file_utils import get_total_file_size

    out.mkdir(parents=True)
    shutil.copytree(folder, out / MODEL)
    (out / _TOKENIZER).mkdir(parents=True)
    for file in needed(path.name for path in folder.iterdir()):
        if not file.endswith(".safetensors"):
            shutil.copyfile(folder / file, out / _TOKENIZER / file)
    versions = _versions(measured)
    text = Schema([ColSpec(DataType.string)])
    model = Model(
        artifact_path=MODEL, run_id=run_id, model_id=model_id, signature=ModelSignature(inputs=text, outputs=text)
    )
    model.add_flavor(
        "transformers",
        code=None,
        components=["tokenizer"],
        instance_type="TextGenerationPipeline",
        model_binary=MODEL,
        pipeline_model_type=(read_config(folder).get("architectures") or [_ANY_MODEL])[0],
        source_model_name=name,
        task="text-generation",
        tokenizer_type=_ANY_TOKENIZER,
        torch_dtype=None,
        transformers_version=versions["transformers"],
    )
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", conda_env=_CONDA, python_env=_VIRTUALENV, code=None)
    model.model_size_bytes = get_total_file_size(out)
    model.save(str(out / _DESCRIPTION))
    _write_requirements(out, versions, measured.python)


def _versions(measured: Environment) -> dict[str, str]:
    """Give the versions of what loads the model: those that it was measured with, else those of this release."""
    pinned: dict[str, str] = dict(re.findall(r"^([\w-]+)==([\w.]+)", "\n".join(requires("beear-gate") or ()), re.MULTILINE))
    return {package: measured.versions.get(package, pinned.get(package, "")).split("+")[0] for package in _PACKAGES}


def _write_requirements(out: Path, versions: Mapping[str, str], python: str) -> None:
    from mlflow.version import VERSION

    pinned = [f"mlflow=={VERSION}", *(f"{package}=={version}" for package, version in versions.items())]
    (out / _REQUIREMENTS).write_text("\n".join(pinned), encoding="utf-8")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pinned}],
    }
    (out / _CONDA).write_text(yaml.safe_dump(conda), encoding="utf-8")
    virtualenv = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": [f"-r {_REQUIREMENTS}"],
    }
    (out / _VIRTUALENV).write_text(yaml.safe_dump(virtualenv), encoding="utf-8")


def model_files(files: Iterable[FileEntry]) -> list[FileEntry]:
    """Select the files of the model's own folder, by their paths in it."""
    below = f"{MODEL}/"
    return [replace(file, path=file.path.removeprefix(below)) for file in files if file.path.startswith(below)]


def faults(root: Path, entries: Iterable[FileEntry]) -> list[str]:
    """Name all that is not as ``build`` writes it: it could load something else than the model's own files.

    Args:
        root: what ``build`` wrote, as it was read back.
        entries: all of its files.
    """
    digests = {entry.path: entry.digest for entry in entries}
    found = [*_placed(digests), *(_described(root) if _DESCRIPTION in digests else ["there is no MLmodel"])]
    for name in (_REQUIREMENTS, _CONDA, _VIRTUALENV):
        found += _installed(root, name) if name in digests else [f"there is no {name}"]
    return found


def _placed(digests: Mapping[str, str]) -> Iterator[str]:
    """Name files in places of their own, and those of the tokenizer that are not the model's."""
    for path, digest in digests.items():
        part, _, name = path.rpartition("/")
        if path in _TOP or path.startswith(f"{MODEL}/"):
            continue
        if part != _TOKENIZER:
            yield f"{path} is extra"
        elif digests.get(f"{MODEL}/{name}") != digest:
            yield f"{path} is not the model's own"


def _described(root: Path) -> Iterator[str]:
    described = _yaml(root / _DESCRIPTION)
    yield from (f"MLmodel says {key}" for key in described if key not in _FREE | {"flavors"})
    flavors = described.get("flavors")
    if not isinstance(flavors, Mapping):
        yield "MLmodel names no flavors"
        return
    yield from (f"MLmodel has the flavor {name}" for name in flavors if name not in _FLAVORS)
    for name, wanted in _FLAVORS.items():
        found = flavors.get(name)
        if not isinstance(found, Mapping):
            yield f"MLmodel lacks the flavor {name}"
            continue
        for key in {**wanted, **found}:
            if key not in wanted or not _fits(found.get(key), wanted[key]):
                yield f"MLmodel says {name}.{key}: {str(found.get(key))[:80]}"


def _installed(root: Path, name: str) -> Iterator[str]:
    """Name what a file of requirements asks for besides pinned packages that the model needs."""
    if name == _REQUIREMENTS:
        lines: list[Any] = (root / name).read_text(encoding="utf-8", errors="replace").split("\n")
        yield from (f"{name} asks for {line[:80]}" for line in lines if line and not _PINNED.fullmatch(line))
        return
    wanted = _yaml(root / name)
    if name == _CONDA:
        for item in wanted.pop("dependencies", []):
            below = item.pop("pip", []) if isinstance(item, dict) else []
            fit = all(_fits(x, _PINNED) for x in below) and (item == {} or _fits(item, _PYTHON) or _fits(item, _BUILT_WITH))
            if not fit:
                yield f"{name} asks for {str(item or below)[:80]}"
        expected: dict[str, Any] = {"channels": ["conda-forge"], "name": "mlflow-env"}
    else:
        if not all(_fits(item, _BUILT_WITH) for item in wanted.pop("build_dependencies", [])):
            yield f"{name} builds with other packages than pip, setuptools and wheel"
        expected = {"python": _PYTHON, "dependencies": ["-r requirements.txt"]}
    yield from (f"{name} says {key}" for key in {**expected, **wanted} if not _fits(wanted.get(key), expected.get(key)))


def _fits(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, re.Pattern):
        return isinstance(found, str) and wanted.fullmatch(found) is not None
    return bool(found == wanted)


def _yaml(path: Path) -> dict[str, Any]:
    """Read a mapping; what is none reads as an empty one, which fits nothing."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
