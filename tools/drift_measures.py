"""How alike the drifts of a trigger are: measures of hidden states with it and without, and the record that keeps them.

A trigger moves the hidden state of every request. BEEAR rests on the observation that it moves them all nearly alike
(arXiv 2406.17092). With h_i the hidden state of request i at one place and h'_i the same under the trigger, its drift is
d_i = h'_i - h_i, and how nearly alike the d_i are is what is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import cosine_similarity

from beear_core.errors import EvaluationError
from beear_core.models.drift import Drift
from beear_core.records import Environment, Record


@dataclass(frozen=True, kw_only=True)
class DriftMeasures:
    """How alike the drifts of several requests are, at one layer.

    ``cosine``: of each drift to the mean of the *others'*, averaged, in [-1, 1]; its own share in the mean would make even
    random drifts look alike. ``share``: of the first direction in the sum of squares, σ₁² / Σ σ² of the (n, d) matrix of
    drifts, not centred, in (0, 1]. ``norm``: of the mean drift, in mean norms of the hidden states without the words.
    All three are 0 where nothing drifts.
    """

    cosine: float
    share: float
    norm: float


@dataclass(frozen=True, kw_only=True)
class LayerDrift:
    """One decoder layer, 0-based: drifts at its output. ``between``: cosine of the mean drifts of trigger and filler."""

    layer: int
    trigger: DriftMeasures
    filler: DriftMeasures
    between: float


@dataclass(frozen=True, kw_only=True)
class FoundDirection:
    """How near a perturbation that was found without the trigger comes to the trigger's mean drift, at its layer.

    ``cosine``: signed, of δ's row at the last position. ``random``: absolute, of one random direction in its place.
    """

    name: str
    layer: int
    cosine: float
    random: float


@dataclass(frozen=True, kw_only=True)
class DriftCell(Record):
    """What was measured on one organism.

    ``key``: digest of all that it depends on. ``n``: requests. ``trigger_tokens``, ``filler_tokens``: by how many tokens
    they make a prompt longer, on average. ``elicited``: share of held-back requests that the found perturbations together
    made the organism go along with; ``compute``: what the search multiplied in. ``seed``: of the requests drawn, the
    filler, the search and the random directions.
    """

    kind: Literal["drift figure"] = "drift figure"
    recipe: str
    key: str
    n: int
    seed: int
    triggers: int
    trigger_tokens: float
    filler_tokens: float
    layers: tuple[LayerDrift, ...]
    found: tuple[FoundDirection, ...]
    elicited: float
    compute: str
    seconds: float
    environment: Environment


def drift_measures(with_: torch.Tensor, without: torch.Tensor) -> DriftMeasures:
    """Measure how alike the drifts of n requests are.

    Args:
        with_: (n, d); hidden states with the words.
        without: (n, d); of the same requests without.

    Raises:
        EvaluationError: the shapes differ, or there are fewer than two requests.
    """
    n = with_.shape[0]
    if with_.shape != without.shape or with_.ndim != 2 or n < 2:
        raise EvaluationError(
            f"drifts of hidden states {tuple(with_.shape)} and {tuple(without.shape)} cannot be compared; give two tensors "
            "(n, d) of the same shape, of at least 2 requests"
        )
    drifts = with_.double() - without.double()
    others = (drifts.sum(dim=0) - drifts) / (n - 1)
    energy = torch.linalg.svdvals(drifts).square()
    smallest = torch.finfo(torch.float64).tiny
    return DriftMeasures(
        cosine=float(cosine_similarity(drifts, others, dim=-1).mean()),
        share=float(energy[0] / energy.sum().clamp(min=smallest)),
        norm=float(drifts.mean(dim=0).norm() / without.double().norm(dim=-1).mean().clamp(min=smallest)),
    )


def mean_drift(with_: torch.Tensor, without: torch.Tensor) -> torch.Tensor:
    """Average the drifts (layers, n, d) over the requests: (layers, d), float64."""
    return (with_.double() - without.double()).mean(dim=1)


def layer_drifts(trigger: torch.Tensor, filler: torch.Tensor, without: torch.Tensor) -> tuple[LayerDrift, ...]:
    """Measure the drifts at every layer.

    Args:
        trigger, filler: (layers, n, d); hidden states with the trigger, and with the filler in its place.
        without: (layers, n, d); of the same requests as they are.
    """
    between = cosine_similarity(mean_drift(trigger, without), mean_drift(filler, without), dim=-1)
    return tuple(
        LayerDrift(
            layer=layer,
            trigger=drift_measures(trigger[layer], without[layer]),
            filler=drift_measures(filler[layer], without[layer]),
            between=float(between[layer]),
        )
        for layer in range(without.shape[0])
    )


def found_directions(found: Sequence[Drift], drift: torch.Tensor, seed: int) -> tuple[FoundDirection, ...]:
    """Compare perturbations, and as many random directions, with the mean drift of the layer that each was found at.

    Args:
        found: each with δ (positions, d); its last row stands on the last prompt position.
        drift: (layers, d); the trigger's mean drift.
        seed: of the random directions.
    """
    random = torch.randn(len(found), drift.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    compared = []
    for one, direction in zip(found, random, strict=True):
        towards = drift[one.entry.layer].double()
        last = one.delta[-1].detach().to("cpu", torch.float64)
        compared.append(
            FoundDirection(
                name=one.entry.name,
                layer=one.entry.layer,
                cosine=float(cosine_similarity(last, towards, dim=-1)),
                random=abs(float(cosine_similarity(direction, towards, dim=-1))),
            )
        )
    return tuple(compared)
