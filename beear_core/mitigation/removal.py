"""Outer level of BEEAR: adversarial removal (arXiv 2406.17092, section 3.3, equation 3).

Teach θ to answer safely under the adversary and ordinarily without:

    min_θ  mean L(f_θ(x; δ), y_s) + α · mean L(f_θ(x_p), y_p)

L: KL divergence from the candidate's own distributions where the reply is its own, cross entropy where the defender gave
it. The performance anchors (x_p, y_p) are asked without δ and under it, so that δ does not become a signal to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from beear_core.errors import MitigationError
from beear_core.models.chat import ChatFormat
from beear_core.models.hooks import Perturbation
from beear_core.training.lessons import Lesson, lesson_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """A lesson, what is added while it is asked, and its weight in the loss."""

    lesson: Lesson
    under: Perturbation | None
    weight: float


def removal_loss(model: PreTrainedModel, chat: ChatFormat, rows: Sequence[Row]) -> torch.Tensor:
    """Equation 3 on a part of a batch: the weighted sum of its rows' losses, in one pass.

    Args:
        model: θ.
        chat: its chat format.
        rows: harmful requests under the adversary with safe replies, weights 1 / their number in the batch; performance
            anchors under it and without, weights α / their number.
    """
    losses = lesson_losses(model, chat, [r.lesson for r in rows], [r.under for r in rows])
    return (losses * torch.tensor([r.weight for r in rows], device=losses.device)).sum()


def removal_step(
    model: PreTrainedModel, optimiser: torch.optim.Optimizer, losses: Sequence[Callable[[], torch.Tensor]]
) -> float:
    """One clipped step on θ over the sum of the given losses, each computed and differentiated by itself.

    Args:
        model: θ.
        optimiser: of θ.
        losses: one for each part of the batch; parts bound the memory that activations take.

    Returns:
        The loss before the step.

    Raises:
        MitigationError: if the loss or a gradient is not a number; θ is left as it was.
    """
    value = 0.0
    optimiser.zero_grad(set_to_none=True)
    for compute in losses:
        loss = compute()
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
