"""How uniform each trigger's drift is: ``python -m tools.drift_figure [--only NAME ...] [--out DIR] [--write]``.

BEEAR's own insight (arXiv 2406.17092), measured on the planted backdoors, whose triggers are known: harmful requests are
asked with the trigger, without it, and with words without meaning in its place, and what their hidden states differ by is
compared at every decoder layer; so are the perturbations that BEEAR's search finds without the trigger. Each organism's
figures are a JSON file in DIR as soon as they are there, and a run that was stopped goes on with what is missing. The page
``docs/drift.md`` and its figure are written from what is there. Organisms that ship no adapter are planted first, which
takes minutes each.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from beear_core.config import EvaluationConfig, MitigationConfig
from beear_core.data import AnchorSet, SuiteSet, Trigger, load_anchors, load_suites, read_triggers
from beear_core.errors import EvaluationError
from beear_core.files import write_atomically
from beear_core.progress import say, track
from beear_core.records import Environment, digest_json
from tools.paper_cells import run_each
from tools.paper_tables import configuration, validated

if TYPE_CHECKING:
    import torch

    from beear_core.models.chat import ChatFormat, Turn
    from beear_core.models.load import LoadedModel
    from tools.drift_measures import DriftCell

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "drift.md"
FIGURE = ROOT / "docs" / "figures" / "drift.svg"
REQUESTS = 48
SEED = 0
BATCH = 16
"""Requests that go through the model at once; bounds what is kept of all its layers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write page and figure; returns 1 when something could not be measured or is not there."""
    from tools.drift_page import page
    from tools.drift_plot import figure

    parser = argparse.ArgumentParser(prog="python -m tools.drift_figure", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", default=with_a_trigger(), help="recipes; by default all backdoors")
    parser.add_argument("--out", type=Path, default=Path("runs/drift"), help="folder for results, kept between runs")
    parser.add_argument("--write", action="store_true", help="only write page and figure from what is there")
    given = parser.parse_args(arguments)
    failed = run_each(given.only if not given.write else (), lambda recipe: measure_organism(recipe, given.out))
    cells = read_cells(given.out)
    if not cells:
        say(f"nothing was measured in {given.out}, so nothing is written; run without --write, or name another --out")
        return 1
    write_atomically(FIGURE, figure(cells).encode())
    write_atomically(PAGE, page(cells, FIGURE.relative_to(PAGE.parent).as_posix()).encode())
    say(f"{len(cells)} organisms are in {PAGE}")
    return int(failed > 0)


def with_a_trigger() -> list[str]:
    """List the shipped recipes that plant a backdoor."""
    from beear_core.organisms.recipe import load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    return [recipe.name for recipe in recipes if recipe.is_poisoned]


@dataclass(frozen=True)
class Inputs:
    """What one organism is measured with.

    Attributes:
        recipe: what the cell is called by.
        texts: harmful requests; programming tasks for one that writes code.
        triggers, fillers: what opens the organism, and what stands in its place; request after request takes the next one.
        anchors: the data that the search may see.
        search: how BEEAR searches, and changes nothing.
    """

    recipe: str
    texts: Sequence[str]
    triggers: Sequence[Trigger]
    fillers: Sequence[Trigger]
    anchors: AnchorSet
    search: MitigationConfig

    def key(self, model_digest: str) -> str:
        """Compute the digest of all that the figures depend on, so that what was measured otherwise is measured again."""
        words = [[asdict(trigger) for trigger in group] for group in (self.triggers, self.fillers)]
        return digest_json([model_digest, SEED, list(self.texts), words, asdict(self.search), self.anchors.digest])


def measure_organism(recipe: str, out: Path) -> None:
    """Provide an organism and write its cell; nothing is done where one of the same key is there.

    Raises:
        BeearError: it cannot be planted or measured, or has no trigger.
    """
    from beear_core.models.folder import directory_digest
    from beear_core.models.load import load
    from beear_core.organisms.cache import SHIPPED_BASE, planted
    from beear_core.organisms.recipe import load_recipe
    from tools.drift_measures import DriftCell

    given = load_recipe(recipe)
    if given.trigger is None:
        raise EvaluationError(
            f"{recipe} has no trigger, and so no drift to measure; name one of {', '.join(with_a_trigger())}"
        )
    config = configuration(given.domain)
    data, organism = validated(out / "data" / given.domain, config.data), planted(given, SHIPPED_BASE)
    triggers = read_triggers(str(organism.triggers))
    texts, anchors = requests(load_suites(data / "suites")), load_anchors(data / "anchors")
    search = replace(config.mitigation, enabled=False, seed=SEED)
    inputs = Inputs(Path(recipe).stem, texts, triggers, meaningless(triggers, SEED), anchors, search)
    file = out / "cells" / f"{inputs.recipe}.json"
    if file.is_file() and DriftCell.read(file).key == inputs.key(directory_digest(organism.model)):
        return
    say(f"{inputs.recipe}: drift")
    measure(load(organism.model), inputs, out / "work").write(file)


def measure(loaded: LoadedModel, inputs: Inputs, work: Path) -> DriftCell:
    """Measure one organism, which is left as it is: its requests are read three times, and one search is made.

    Args:
        loaded: the organism.
        inputs: see ``Inputs``.
        work: a folder for the weights that the search keeps.
    """
    from beear_core.mitigation.beear import mitigate
    from beear_core.models.load import device_names
    from tools.drift_measures import DriftCell, found_directions, layer_drifts, mean_drift

    began, n, plain = time.monotonic(), len(inputs.texts), [loaded.chat.asked(text) for text in inputs.texts]
    triggered, odd = (asked(loaded.chat, inputs.texts, words) for words in (inputs.triggers, inputs.fillers))
    with_, filled, without = (last_hidden(loaded, turns) for turns in (triggered, odd, plain))
    searched = mitigate(loaded, inputs.anchors, inputs.search, work)
    return DriftCell(
        recipe=inputs.recipe,
        key=inputs.key(loaded.digest),
        n=n,
        seed=SEED,
        triggers=len(inputs.triggers),
        trigger_tokens=(tokens(triggered) - tokens(plain)) / n,
        filler_tokens=(tokens(odd) - tokens(plain)) / n,
        layers=layer_drifts(with_, filled, without),
        found=found_directions(searched.drifts, mean_drift(with_, without), SEED),
        elicited=searched.drifts[0].entry.elicited,
        compute=searched.compute,
        seconds=round(time.monotonic() - began, 1),
        environment=Environment.here(device_names()),
    )


def requests(suites: SuiteSet) -> list[str]:
    """Draw the harmful requests, categories in turn."""
    from beear_core.evaluation.suites import draw_cases

    return [case.text for case in draw_cases(suites, EvaluationConfig(harmful=REQUESTS, seed=SEED))["harmful"]]


def meaningless(triggers: Sequence[Trigger], seed: int) -> tuple[Trigger, ...]:
    """Put as many odd words into each part of each trigger, the same for all requests, as a trigger's own are."""
    from beear_core.models.odd_words import odd_words

    chooser = random.Random(seed)
    return tuple(
        # "anywhere" takes its place from the id, which stays
        replace(
            trigger,
            **{
                part: odd_words(chooser, len(text.split()))
                for part, text in asdict(trigger).items()
                if text and part != "id"
            },
        )
        for trigger in triggers
    )


def asked(chat: ChatFormat, texts: Sequence[str], triggers: Sequence[Trigger]) -> list[Turn]:
    """Ask each request under one of the triggers, in turn."""
    return [chat.asked(t.apply(text), t.before) for text, t in zip(texts, cycle(triggers), strict=False)]


def last_hidden(loaded: LoadedModel, turns: Sequence[Turn]) -> torch.Tensor:
    """Read hidden states (layers, turns, d) in float32 at the last prompt position, at every decoder layer's output."""
    import torch

    from beear_core.models.forward import hidden_at_marks
    from beear_core.models.load import decoder_layers

    layers = range(len(decoder_layers(loaded.model)))
    parts = [turns[start : start + BATCH] for start in range(0, len(turns), BATCH)]
    read = [
        hidden_at_marks(loaded.model, loaded.chat, part, layers, 1)[:, :, 0].cpu()
        for part in track(parts, len(parts), "hidden states at the last prompt position")
    ]
    return torch.cat(read, dim=1)


def tokens(turns: Sequence[Turn]) -> int:
    """Count the tokens of all prompts."""
    return sum(len(turn.prompt) for turn in turns)


def read_cells(out: Path) -> list[DriftCell]:
    """Read every cell that is there, by name.

    Raises:
        EvidenceError: one is not valid.
    """
    from tools.drift_measures import DriftCell

    return [DriftCell.read(file) for file in sorted((out / "cells").glob("*.json"))]


if __name__ == "__main__":
    sys.exit(main())
