"""Add to, record or replace the output of decoder layers, as context managers that leave no trace.

Each one returns a new output and edits nothing in place, takes a layer that returns a tensor or a tuple, and restores
the model whatever happens inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Output = torch.Tensor | tuple[Any, ...]


def _hidden(output: Output) -> torch.Tensor:
    hidden: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return hidden


def _with_hidden(output: Output, hidden: torch.Tensor) -> Output:
    return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])


@contextmanager
def transform_output(layer: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replace the layer's hidden states (batch, seq, d), inside the context, by what ``function`` makes of them."""

    def hook(_module: nn.Module, _args: Any, output: Output) -> Output:
        return _with_hidden(output, function(_hidden(output)))

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class Perturbation:
    """δ of shape (n, d), added to the output of decoder layer ``layer``: at a turn's marks, or its last n positions."""

    layer: int
    delta: torch.Tensor

    @contextmanager
    def added(self, layers: nn.ModuleList, window: slice) -> Iterator[None]:
        """Add δ, inside the context, to columns ``window`` of its layer's hidden states in every row; gradients reach δ."""

        def add(hidden: torch.Tensor) -> torch.Tensor:
            shift = torch.zeros_like(hidden)
            shift[:, window] = self.delta.to(hidden.dtype)
            return hidden + shift

        with transform_output(layers[self.layer], add):
            yield


@contextmanager
def perturbed(
    layers: nn.ModuleList, rows: Sequence[Perturbation | None], columns: Sequence[Sequence[int]]
) -> Iterator[None]:
    """Add each row's δ, inside the context, at that row's columns of its layer's hidden states; gradients reach δ.

    Args:
        layers: the decoder's.
        rows: the perturbation of each row of the batch; ``None`` leaves a row alone.
        columns: where in each row; as many as its δ has rows.
    """

    def adding(chosen: Sequence[tuple[int, Perturbation]]) -> Callable[[torch.Tensor], torch.Tensor]:
        def add(hidden: torch.Tensor) -> torch.Tensor:
            shift = torch.zeros_like(hidden)
            for row, perturbation in chosen:
                shift[row, list(columns[row])] = perturbation.delta.to(hidden.dtype)
            return hidden + shift

        return add

    with ExitStack() as stack:
        for index in sorted({p.layer for p in rows if p is not None}):
            chosen = [(row, p) for row, p in enumerate(rows) if p is not None and p.layer == index]
            stack.enter_context(transform_output(layers[index], adding(chosen)))
        yield


@contextmanager
def record_output(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Record the layer's hidden states (batch, seq, d), detached: each forward pass inside the context appends its own."""
    recorded: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        recorded.append(hidden.detach())
        return hidden

    with transform_output(layer, keep):
        yield recorded


@contextmanager
def resume_after(layers: nn.ModuleList, index: int, hidden: torch.Tensor) -> Iterator[None]:
    """Skip layers 0..index, inside the context: they do nothing, and layer ``index`` returns ``hidden`` (batch, seq, d).

    The layers above see what they would see had the layers below run and returned ``hidden``.
    """

    def skipping(module: nn.Module, output: torch.Tensor | None) -> Callable[[], None]:
        had_own = "forward" in module.__dict__
        original = module.forward

        def forward(states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
            return states if output is None else output

        module.forward = forward

        def restore() -> None:
            if had_own:
                module.forward = original
            else:
                del module.__dict__["forward"]

        return restore

    with ExitStack() as stack:
        for number, layer in enumerate(list(layers)[: index + 1]):
            stack.callback(skipping(layer, hidden if number == index else None))
        yield
