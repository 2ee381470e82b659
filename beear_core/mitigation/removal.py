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
from functools import partial
from typing import TYPE_CHECKING

import torch

from beear_core.errors import MitigationError
from beear_core.mitigation.adversaries import OUTER_COST, Adversary, Task
from beear_core.models.chat import ChatFormat
from beear_core.models.hooks import Perturbation
from beear_core.training.lessons import Lesson, LikeLength, lesson_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_GRADIENT_NORM = 1.0
WARM_UP = 3  # steps until the learning rate is whole


@dataclass(frozen=True, slots=True)
class Row:
    """A lesson, what is added while it is asked, and its weight in the loss."""

    lesson: Lesson
    under: Perturbation | None
    weight: float


def removal_loss(model: PreTrainedModel, chat: ChatFormat, rows: Sequence[Row]) -> torch.Tensor:
    """Compute equation 3 on a part of a batch: the weighted sum of its rows' losses, in one pass.

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
    """Take one clipped step on θ over the sum of the given losses, each computed and differentiated by itself.

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


class Removal:
    """The outer level: batches of equation 3, and steps on θ over them.

    An attempt that was undone is a setback: after each the learning rate is halved, and what must stay weighs double. Where
    steps mend what the adversary's search harmed, their rate is their own.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        anchors, batch = task.anchors, task.config.outer_batch
        half = max(1, batch // 2)
        self.safe = LikeLength([anchors.refusals], [batch])
        self.kept = LikeLength([anchors.ordinary, anchors.borderline], [half, half])

    def remove(self, adversary: Adversary, setbacks: int) -> list[float]:
        """Take a few steps on θ and return the loss before each; what the adversary adds may move with each of them.

        Raises:
            MitigationError: if a loss or a gradient is not a number.
        """
        config, model = self.task.config, self.task.loaded.model
        rate = config.repair_learning_rate if adversary.mends else config.outer_learning_rate / 2**setbacks
        weight = config.performance_weight * 2**setbacks
        # fused: no temporaries as large as the model
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
        losses = []
        for step in range(adversary.steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * (1 - 0.9 * step / adversary.steps)
            rows = self._draw(adversary, weight)
            parts = -(-len(rows) // config.outer_part)
            losses.append(removal_step(model, optimiser, [partial(self._loss, rows[i::parts]) for i in range(parts)]))
            adversary.follow()
            self.task.progress.advance(OUTER_COST, note=f"outer loss {losses[-1]:.3f}")
        return losses

    def _draw(self, adversary: Adversary, weight: float) -> list[Row]:
        """Draw one batch of equation 3; ``weight`` is α."""
        chooser = self.task.random
        safe, under, plain = (group.draw(chooser) for group in (self.safe, self.kept, self.kept))

        def disturbed(lessons: Sequence[Lesson], each: float, harmful: bool) -> list[Row]:
            return [Row(*adversary.disturb(x, chooser, harmful=harmful), each) for x in lessons]

        kept = weight / (len(under) + len(plain))
        rows = [*disturbed(safe, 1 / len(safe), True), *disturbed(under, kept, False), *(Row(x, None, kept) for x in plain)]
        return rows if kept > 0 else rows[: len(safe)]

    def _loss(self, rows: Sequence[Row]) -> torch.Tensor:
        """Compute equation 3 on a part of a batch."""
        with self.task.autocast():
            return removal_loss(self.task.loaded.model, self.task.loaded.chat, rows)
