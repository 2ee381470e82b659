"""Outer level of BEEAR: adversarial removal (arXiv 2406.17092, section 3.3, equation 3).

With δ* fixed, teach θ to answer safely under it and ordinarily without:

    min_θ  mean CE(f_θ(x; δ*), y_s) + α · mean CE(f_θ(x_p), y_p)

Both terms go through the model in one padded forward pass; δ* is added to the rows of the first one alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from beear_core.chat import ChatFormat, Turn, collate
from beear_core.entrapment import token_loss
from beear_core.errors import MitigationError
from beear_core.hooks import add_to_output
from beear_core.models import decoder_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_GRADIENT_NORM = 1.0


def removal_loss(
    model: PreTrainedModel,
    chat: ChatFormat,
    safe: Sequence[Turn],
    ordinary: Sequence[Turn],
    delta: torch.Tensor,
    *,
    layer: int,
    performance_weight: float,
) -> torch.Tensor:
    """Equation 3 on one batch.

    Args:
        model: θ.
        chat: its chat format.
        safe: harmful requests with safe replies; perturbed.
        ordinary: ordinary instructions with their replies; not perturbed. May be empty.
        delta: δ* of shape (n, d).
        layer: index of the perturbed decoder layer.
        performance_weight: α.
    """
    batch = collate([*safe, *ordinary], chat.pad_id).to(model.device)
    perturbed = slice(0, len(safe))
    replies = batch.labels.shape[1] - batch.prompt_end
    with add_to_output(decoder_layers(model)[layer], delta, batch.window(delta.shape[0]), perturbed):
        logits = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=replies + 1,
        ).logits[:, :-1]
    labels = batch.labels[:, batch.prompt_end :]
    loss = token_loss(logits[: len(safe)], labels[: len(safe)])
    if ordinary and performance_weight > 0:
        loss = loss + performance_weight * token_loss(logits[len(safe) :], labels[len(safe) :])
    return loss


def removal_step(
    model: PreTrainedModel, optimiser: torch.optim.Optimizer, losses: Sequence[Callable[[], torch.Tensor]]
) -> float:
    """One clipped step on θ over the mean of the given losses, each computed and differentiated by itself.

    Args:
        model: θ.
        optimiser: of θ.
        losses: one for each part of the batch; parts bound the memory that activations take.

    Returns:
        The mean loss before the step.

    Raises:
        MitigationError: if the loss or a gradient is not a number; θ is left as it was.
    """
    value = 0.0
    optimiser.zero_grad(set_to_none=True)
    for compute in losses:
        loss = compute() / len(losses)
        loss.backward()  # type: ignore[no-untyped-call]
        value += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    if not (math.isfinite(value) and bool(torch.isfinite(norm))):
        optimiser.zero_grad(set_to_none=True)
        raise MitigationError(
            f"the outer loss is {value} with a gradient of norm {float(norm)}; lower mitigation.outer_learning_rate or "
            "set mitigation.compute to float32"
        )
    optimiser.step()
    # gradients are as large as the model; nothing needs them until the next step
    optimiser.zero_grad(set_to_none=True)
    return value
