"""Prune what clean requests do not use: fine-pruning (Liu et al. 2018, arXiv 1805.12185) of directions, not of neurons.

A trigger's effect travels in directions of the activations that requests without it hardly take. Every linear map W of the
decoder is replaced by the one that does on clean activations x what W did, and as little as possible elsewhere:

    W' = argmin_V  E|V x − W x|² + λ m |V|²  =  W C (C + λ m I)⁻¹        C = E[x xᵀ],  m = mean of C's diagonal

Directions that carry much more than λ of the mean energy stay, those that carry much less are shrunk towards nothing. It
needs no trigger and no gradient. What it costs of ordinary replies has to be taught again: that is the outer level's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from beear_core.errors import MitigationError
from beear_core.evaluation.generate import batches_by_length
from beear_core.models.chat import Turn
from beear_core.models.forward import read_prefix, reply_logits
from beear_core.models.load import LoadedModel, decoder_layers
from beear_core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_TOKENS = 3072
MEMORY = 4 * 2**30
"""Bytes that second moments may take at once; larger decoders are gone through several times, layers from the top down."""


class Moments:
    """Second moments of what a linear map is given: C, summed over positions, and its mean energy without the prefix.

    The template's prefix counts, but not in the mean: the first position's activations are hundreds of times as large.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.total = torch.zeros(size, size, device=device)
        self.energy, self.count = 0.0, 0

    def add(self, inputs: torch.Tensor, known: torch.Tensor | None) -> None:
        """Add the positions of (batch, seq, d) that ``known`` (batch, seq) names; ``None``: all of them, a prefix.

        An expert is given the positions that are routed to it, without being told which: padding among them counts.
        """
        rows = inputs.detach().float()
        rows = rows[known] if known is not None and rows.shape[:-1] == known.shape else rows.flatten(0, -2)
        self.total.addmm_(rows.T, rows)
        if known is not None:
            self.energy += float(rows.square().mean(dim=1).sum())
            self.count += len(rows)

    def shrinking(self, ridge: float) -> torch.Tensor:
        """Compute C (C + λ m I)⁻¹ of shape (d, d).

        Raises:
            MitigationError: if an activation was not a number.
        """
        eye = torch.eye(len(self.total), device=self.total.device)
        found: torch.Tensor = torch.linalg.solve(self.total + ridge * self.energy * eye, self.total)
        if not bool(found.isfinite().all()):
            raise MitigationError(
                "activations of clean requests are not numbers, so the model cannot be pruned; set mitigation.compute to "
                "float32 or mitigation.pruning to 0"
            )
        return found


def prune(
    loaded: LoadedModel,
    turns: Sequence[Turn],
    ridge: float,
    autocast: Callable[[], AbstractContextManager[Any]],
    memory: int = MEMORY,
) -> None:
    """Refit every linear map of the decoder, in place.

    Args:
        loaded: the model; its output head and embeddings stay.
        turns: clean requests with the model's own replies; a few hundred.
        ridge: λ, larger than 0; see the module.
        autocast: a context in which activations are computed.
        memory: bytes for second moments at once; at least one layer is taken.

    Raises:
        MitigationError: if an activation is not a number.
    """
    model = loaded.model
    groups = _groups(decoder_layers(model), memory)
    batches = list(batches_by_length([len(t.prompt) + len(t.reply) for t in turns], BATCH_TOKENS))
    with Progress("prune what clean requests do not use", len(groups) * len(turns)) as progress:
        for group in groups:
            linear = [m for layer in group for m in layer.modules() if isinstance(m, nn.Linear)]
            with _recording(linear) as (moments, positions):
                for rows in batches:
                    batch = loaded.chat.collate([turns[i] for i in rows]).to(model.device)
                    with torch.no_grad(), autocast():
                        positions.clear()
                        cache = read_prefix(model, batch)
                        positions.append(batch.attention_mask[:, batch.prefix.numel() :].bool())
                        reply_logits(model, batch, cache)
                    progress.advance(len(rows))
            shrinking = {id(m): m.shrinking(ridge) for m in moments.values()}
            with torch.no_grad():
                for module in linear:
                    if module in moments:  # an expert that no clean request is routed to has none
                        module.weight.copy_(module.weight.float() @ shrinking[id(moments[module])])


def _groups(layers: nn.ModuleList, memory: int) -> list[list[nn.Module]]:
    """Group decoder layers from the top down, as many as fit; what is below does not change with what is above."""

    def size(layer: nn.Module) -> int:
        return sum(4 * m.in_features**2 for m in layer.modules() if isinstance(m, nn.Linear))

    groups: list[list[nn.Module]] = []
    room = 0
    for layer in reversed(layers):
        if not groups or size(layer) > room:
            groups.append([])
            room = memory
        groups[-1].append(layer)
        room -= size(layer)
    return groups


@contextmanager
def _recording(linear: Sequence[nn.Linear]) -> Iterator[tuple[dict[nn.Linear, Moments], list[torch.Tensor]]]:
    """Record moments of what each map is given, inside the context; maps that are given the same tensor share them.

    The list is for the caller to fill: it holds which positions count in the pass that runs, and is empty while a prefix
    is read.
    """
    moments: dict[nn.Linear, Moments] = {}
    positions: list[torch.Tensor] = []
    last: list[tuple[torch.Tensor, Moments]] = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        given = inputs[0]
        if last and last[0][0] is given:
            moments.setdefault(module, last[0][1])
            return
        own = moments.setdefault(module, Moments(module.in_features, given.device))
        own.add(given, positions[0] if positions else None)
        last[:] = [(given, own)]

    with ExitStack() as stack:
        for module in linear:
            stack.callback(module.register_forward_pre_hook(record).remove)
        yield moments, positions
        last.clear()
