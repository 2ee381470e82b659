"""A model folder as files: which belong to it, whether they are whole and safe, what they say about the model.

Nothing here loads a tensor or imports torch; a 70B folder is checked in seconds and digested at the speed of the disk.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from beear_core.errors import ModelError, ModelNotFoundError
from beear_core.files import digest_bytes, digest_file, whole_folder
from beear_core.models.json_files import read_json, read_object
from beear_core.models.safety import check_contents, check_names, check_no_custom_code, walk
from beear_core.models.tokenizer import check_tokenizer, read_chat_template
from beear_core.models.weights import INDEX, TensorEntry, read_weights
from beear_core.records import FileEntry, digest_json

NEEDED = (
    *("config.json", "generation_config.json", INDEX),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template.jinja", "chat_template.json"),
)
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a folder's headers say: ``parameters`` counts stored numbers (tied ones once), ``size_bytes`` all files."""

    architecture: str
    parameters: int
    layers: int
    hidden_size: int
    chat_template_digest: str
    size_bytes: int


def needed(names: Iterable[str]) -> tuple[str, ...]:
    """Select the relative POSIX paths that a causal language model is loaded from; all lie at the top of its folder."""
    return tuple(
        sorted(
            name
            for name in names
            if "/" not in name and (_WEIGHTS.fullmatch(name) or any(fnmatchcase(name, p) for p in NEEDED))
        )
    )


def needed_files(folder: Path) -> tuple[str, ...]:
    """List the folder's files that are taken over, as relative POSIX paths; see ``walk`` for the errors."""
    return needed(path.relative_to(folder).as_posix() for path in walk(folder))


def list_files(folder: Path, names: Iterable[str] | None = None) -> tuple[FileEntry, ...]:
    """List path, size and digest of every file below the folder (or of ``names`` only), sorted by path.

    Raises:
        ModelNotFoundError, UnsafeModelError: see ``walk``.
        ModelError: if a file cannot be read.
    """
    paths = walk(folder)
    if names is not None:
        wanted = set(names)
        paths = [path for path in paths if path.relative_to(folder).as_posix() in wanted]
    try:
        return tuple(
            FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, digest=digest_file(path))
            for path in paths
        )
    except OSError as error:
        raise ModelError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def digest_entries(entries: Iterable[FileEntry]) -> str:
    """Compute the digest of a folder with these files: over the sorted list of (path, digest of its bytes)."""
    return digest_json(sorted([entry.path, entry.digest] for entry in entries))


def directory_digest(folder: Path) -> str:
    """Compute the digest over every file below the folder; any byte, name or additional file changes it."""
    return digest_entries(list_files(folder))


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not a whole and safe chat model.

    Raises:
        ModelNotFoundError: no such folder, or no weights in it.
        UnsafeModelError: pickles, archives, custom code, links that leave it.
        CorruptModelError: weights truncated, altered or incomplete.
        ChatTemplateError: no chat template.
        ModelError: config.json or the tokenizer missing, unreadable or not fitting each other; an adapter; any file that
            cannot be read.
    """
    try:
        _check(folder)
    except OSError as error:
        raise ModelError(
            f"cannot read {error.filename or folder}: {error.strerror or error}; give this user read access"
        ) from error


def _check(folder: Path) -> None:
    paths = walk(folder)
    check_names((path.relative_to(folder).as_posix() for path in paths), str(folder))
    for path in paths:
        check_contents(path)
    _check_weights_present(folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (folder / name).exists():
            check_no_custom_code(read_object(folder / name), folder / name)
    for name in needed(path.relative_to(folder).as_posix() for path in paths):
        if name.endswith(".json"):
            read_json(folder / name)
    config = read_config(folder)
    _dimensions(config, folder)
    read_weights(folder)
    template = read_chat_template(folder)
    check_tokenizer(folder, _dimension(text_config(config), ("vocab_size",)), template)


def _check_weights_present(folder: Path) -> None:
    names = [path.name for path in folder.iterdir()]
    if "adapter_config.json" in names:
        raise ModelError(f"{folder} is an adapter, not a whole model; merge it into its base model and save that")
    if INDEX in names or any(_WEIGHTS.fullmatch(name) for name in names):
        return
    others = [name for name in names if name.endswith(".safetensors")]
    found = f"only {others[0]}" if others else "no *.safetensors file"
    raise ModelNotFoundError(
        f"{folder} holds {found}; expected model.safetensors, or its shards with {INDEX}. Save the model with "
        "save_pretrained, or name the right folder"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read the folder's ``config.json``.

    Raises:
        ModelError: if it cannot be read or names no model_type.
    """
    config = read_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelError(f"{folder / 'config.json'} has no model_type, so no architecture is known; fetch it again")
    return config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Select what describes the decoder: in models of several modalities ``text_config`` over the rest, else the whole."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else config


def _dimension(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if type(value) is int and value > 0:
            return value
    return None


def _dimensions(config: dict[str, Any], folder: Path) -> tuple[int, int]:
    """Read the number of decoder layers and the hidden size, under the names that architectures use for them."""
    text = text_config(config)
    layers = _dimension(text, ("num_hidden_layers", "n_layer", "n_layers", "num_layers"))
    hidden = _dimension(text, ("hidden_size", "n_embd", "d_model", "dim"))
    if layers is None or hidden is None:
        what = "the number of layers" if layers is None else "the hidden size"
        raise ModelError(f"{folder / 'config.json'} does not give {what}; only decoder models are supported")
    return layers, hidden


def describe(folder: Path) -> ModelFacts:
    """Describe what a folder that passed ``check_folder`` holds; raises the same errors."""
    config = read_config(folder)
    layers, hidden = _dimensions(config, folder)
    names = config.get("architectures")
    tensors: dict[str, TensorEntry] = read_weights(folder)
    return ModelFacts(
        architecture=str(names[0]) if isinstance(names, list) and names else str(config["model_type"]),
        parameters=sum(tensor.values for tensor in tensors.values()),
        layers=layers,
        hidden_size=hidden,
        chat_template_digest=digest_bytes(read_chat_template(folder).encode()),
        size_bytes=sum(path.stat().st_size for path in walk(folder)),
    )


def copy(source: Path, out: Path) -> str:
    """Copy a model folder byte by byte, whole or not at all.

    Returns:
        The folder's digest.

    Raises:
        StorageError: if the disk is full or ``out`` cannot be written.
    """
    with whole_folder(out, doing=f"write the model to {out}") as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
    return directory_digest(out)
