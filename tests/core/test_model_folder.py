"""A model folder is described without loading it, and known by its names and bytes alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beear_core.models import folder as model_files
from beear_core.models.weights import read_header


def test_a_good_folder_passes_and_is_described(folder: Path) -> None:
    model_files.check_folder(folder)
    facts = model_files.describe(folder)
    assert (facts.architecture, facts.layers, facts.hidden_size) == ("LlamaForCausalLM", 4, 16)
    assert facts.parameters == sum(entry.values for entry in read_header(folder / "model.safetensors"))
    assert facts.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_description_agrees_with_transformers(folder: Path) -> None:
    from beear_core.models.load import load

    loaded = load(folder)
    facts = model_files.describe(folder)
    assert facts.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert facts.chat_template_digest == loaded.chat.digest
    assert loaded.digest == model_files.directory_digest(folder)


def test_no_torch_is_imported() -> None:
    code = "import sys, beear_core.models.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_text_config_is_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    nested = {key: config.pop(key) for key in ("num_hidden_layers", "hidden_size", "vocab_size")}
    (folder / "config.json").write_text(json.dumps({**config, "text_config": nested}))
    model_files.check_folder(folder)
    assert model_files.describe(folder).layers == 4


def test_digest_is_of_names_and_bytes_alone(folder: Path, tmp_path: Path) -> None:
    digest = model_files.directory_digest(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    os.utime(copy / "config.json", (0, 0))
    assert model_files.directory_digest(copy) == digest


@pytest.mark.parametrize("change", ["byte", "name", "more", "fewer"])
def test_digest_changes_with_any_byte_name_or_file(folder: Path, change: str) -> None:
    digest = model_files.directory_digest(folder)
    weights = folder / "model.safetensors"
    if change == "byte":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif change == "name":
        (folder / "generation_config.json").rename(folder / "generation_config2.json")
    elif change == "more":
        (folder / "sub").mkdir()
        (folder / "sub" / "README.md").write_text("more")
    else:
        (folder / "generation_config.json").unlink()
    assert model_files.directory_digest(folder) != digest


def test_needed_files_are_what_a_model_is_loaded_from(folder: Path) -> None:
    every = set(model_files.needed_files(folder))
    assert every == {path.name for path in folder.iterdir()}
    for name in ("README.md", "consolidated.safetensors", "model.gguf"):
        (folder / name).write_text("x")
    (folder / "original").mkdir()
    (folder / "original" / "config.json").write_text("{}")
    assert set(model_files.needed_files(folder)) == every
