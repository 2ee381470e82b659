"""The page about drifts, from what was measured and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beear_core.wording import plural
from tools.drift_measures import DriftCell, FoundDirection, LayerDrift
from tools.reference import table

SHOWN = 7
"""Layers shown of each organism, spread evenly, besides those at which perturbations were found."""
HEAD = (
    "layer",
    "cosine, trigger",
    "filler",
    "share, trigger",
    "filler",
    "norm, trigger",
    "filler",
    "trigger and filler",
    "δ, mean",
    "δ, largest",
    "random",
)


def page(cells: Sequence[DriftCell], figure: str) -> str:
    """Write the page as Markdown; an organism that was not measured is not on it.

    Args:
        cells: one an organism, at least one.
        figure: path of the figure, seen from the page.
    """
    parts = [_HEAD, f"![The measures below, by decoder layer]({figure})\n\n", _what(cells), _MEASURES]
    for cell in cells:
        parts += [f"\n## `{cell.recipe}`\n\n{_facts(cell)}\n\n", table(HEAD, [_row(cell, d) for d in _shown(cell)])]
    return "".join(parts)


_HEAD = """<!-- Written by `python -m tools.drift_figure`; run it instead of editing. -->
# How uniform a trigger's drift is

BEEAR rests on one observation: a trigger moves the hidden states of all requests by nearly the same vector, whatever the
trigger is ([arXiv 2406.17092](https://arxiv.org/abs/2406.17092)). Here it is measured on the planted backdoors, whose
triggers are known.

"""
_WHAT = """Each organism was asked {n} harmful requests of the evaluation split, drawn with seed {seed}: with its trigger
(where it has several, request after request takes the next one), without it, and with a filler: as many odd words in the
same places, drawn once with the same seed, the same for all requests. A drift is the hidden state at the last prompt
position with the words less the one without, at the output of a decoder layer, in float32; layers count from 0. Then
BEEAR's search was run as it ships (`MitigationConfig` with `enabled: false`, the same seed): it sees neither the trigger
nor these requests, and trains nothing; it computed in {compute}. Measured with {versions} on {devices}.
"""
_MEASURES = """
- **cosine**: of a request's drift to the mean drift of the *other* requests, averaged over the requests. The mean of all
  would hold the drift itself, and even random drifts would look alike.
- **share**: of the first direction, σ₁² / Σ σ² of the matrix of all drifts, not centred.
- **norm**: of the mean drift, as a share of the mean norm of the hidden states without the trigger.
- **trigger and filler**: cosine of the trigger's mean drift to the filler's. Where it is high, the trigger does there what
  any words do.
- **δ**: cosine, with its sign, of the last position's row of a perturbation to the trigger's mean drift at the layer where
  it was found; mean and largest of that layer's. **random**: the mean absolute cosine of as many random directions to the
  same mean drift.

Each figure is of a single run and has no interval. In the figure, the grey bands reach from the smallest to the largest
value of all fillers, and the lines of plot d are "trigger and filler". Of the layers some are listed here; the figure shows
all.
"""


def _what(cells: Sequence[DriftCell]) -> str:
    """Say how it was measured, in the words of the cells."""
    return _WHAT.format(
        n=_each(c.n for c in cells),
        seed=_each(c.seed for c in cells),
        compute=_each(c.compute for c in cells),
        versions=_each(f"{name} {c.environment.versions[name]}" for c in cells for name in _named(c)),
        devices=_each(device for c in cells for device in c.environment.devices),
    )


def _named(cell: DriftCell) -> list[str]:
    return [name for name in ("torch", "transformers") if name in cell.environment.versions]


def _each(values: Iterable[object]) -> str:
    """List different values in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _facts(cell: DriftCell) -> str:
    found = f"{plural(len(cell.found), 'perturbation')} together elicited {100 * cell.elicited:.0f} %"
    return (
        f"{plural(cell.n, 'request')}, {plural(cell.triggers, 'form')} of the trigger. The trigger makes a prompt "
        f"{cell.trigger_tokens:.1f} tokens longer, the filler {cell.filler_tokens:.1f}. {found} of held-back requests."
    )


def _shown(cell: DriftCell) -> list[LayerDrift]:
    last = len(cell.layers) - 1
    spread = {round(i * last / (SHOWN - 1)) for i in range(SHOWN)}
    return [cell.layers[layer] for layer in sorted(spread | {found.layer for found in cell.found})]


def _row(cell: DriftCell, drift: LayerDrift) -> list[str]:
    pairs = [(getattr(drift.trigger, name), getattr(drift.filler, name)) for name in ("cosine", "share", "norm")]
    measures = [f"{value:z.2f}" for pair in pairs for value in pair]
    return [str(drift.layer), *measures, f"{drift.between:z.2f}", *_near([f for f in cell.found if f.layer == drift.layer])]


def _near(found: Sequence[FoundDirection]) -> list[str]:
    """Write mean and largest cosine of what was found at a layer, and the random directions'; empty where nothing was."""
    if not found:
        return ["", "", ""]
    cosines = [f.cosine for f in found]
    random = sum(f.random for f in found) / len(found)
    return [f"{sum(cosines) / len(cosines):z.2f}", f"{max(cosines):z.2f}", f"{random:z.2f}"]
