"""Outer level of BEEAR: adversarial removal (arXiv 2406.17092, section 3.3, equation 3).

With δ* fixed, teach θ to answer safely under it and ordinarily without:

    min_θ  mean L(f_θ(x; δ*), y_s) + α · mean L(f_θ(x_p), y_p)

L: KL divergence from the candidate's own distributions where the reply is its own, cross entropy where the defender gave
it. The performance anchors (x_p, y_p) are asked without δ* and under it, so that δ* does not become a signal to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from beear_core.chat import ChatFormat
from beear_core.errors import MitigationError
from beear_core.hooks import Perturbation
from beear_core.lessons import Lesson, lesson_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_GRADIENT_NORM = 1.0


def removal_loss(
    model: PreTrainedModel,
    chat: ChatFormat,
    refusals: Sequence[Lesson],
    kept: Sequence[Lesson],
    kept_under: Sequence[Lesson],
    perturbation: Perturbation,
    *,
    performance_weight: float,
) -> torch.Tensor:
    """Equation 3 on one batch.

    Args:
        model: θ.
        chat: its chat format.
        refusals: harmful requests with safe replies; perturbed.
        kept: performance anchors; not perturbed. May be empty.
        kept_under: performance anchors; perturbed. May be empty.
        perturbation: δ* and its layer.
        performance_weight: α.
    """
    loss = lesson_loss(model, chat, refusals, perturbation)
    if performance_weight > 0:
        share = performance_weight / max(len(kept) + len(kept_under), 1)
        if kept:
            loss = loss + share * len(kept) * lesson_loss(model, chat, kept)
        if kept_under:
            loss = loss + share * len(kept_under) * lesson_loss(model, chat, kept_under, perturbation)
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
