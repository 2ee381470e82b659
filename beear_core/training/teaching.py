"""Teach a chat model lessons: the parameters that ask for gradients, a few hundred steps."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from beear_core.errors import MitigationError
from beear_core.files import whole_file
from beear_core.models.load import LoadedModel, resolve_compute
from beear_core.training.lessons import LikeLength, lesson_loss

CHECKPOINT_EVERY = 25
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """AdamW on the adapter: linear warm-up, then linear decay to a tenth."""

    steps: int
    learning_rate: float
    warmup: int = 10

    def rate(self, step: int) -> float:
        """Compute the learning rate of step 0 .. steps - 1."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * (1 - 0.9 * step / self.steps)


def teach(
    loaded: LoadedModel,
    lessons: LikeLength,
    schedule: Schedule,
    chooser: random.Random,
    *,
    checkpoint: Path | None = None,
    after_step: Callable[[int, float], None] = lambda _steps, _loss: None,
) -> list[float]:
    """Train the parameters of a model that ask for gradients on drawn lessons.

    Args:
        loaded: the model.
        lessons: what is drawn from.
        schedule: how many steps, how large.
        chooser: draws.
        checkpoint: a file that is written every ``CHECKPOINT_EVERY`` steps; training goes on from one that is there.
        after_step: told how many steps are done and the last loss.

    Returns:
        The loss before each step that was taken here.

    Raises:
        MitigationError: if a loss is not a number.
        StorageError: if the checkpoint cannot be written.
    """
    model = loaded.model
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=schedule.learning_rate, weight_decay=0.0)
    half = resolve_compute("auto") == "bfloat16"
    first = _resume(checkpoint, trained, optimiser, chooser) if checkpoint and checkpoint.is_file() else 0
    losses = []
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        with torch.autocast(model.device.type, torch.bfloat16) if half else nullcontext():
            loss = lesson_loss(model, loaded.chat, lessons.draw(chooser))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise MitigationError(f"the loss is {value} at step {step + 1} of {schedule.steps}; lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        losses.append(value)
        after_step(step + 1, value)
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            _keep(checkpoint, step + 1, trained, optimiser, chooser)
    return losses


def _keep(
    file: Path, step: int, trained: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer, chooser: random.Random
) -> None:
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in trained.items()}
    for name, parameter in trained.items():
        tensors |= {f"{part}/{name}": optimiser.state[parameter][part] for part in MOMENTS}
    facts = {"step": str(step), "chooser": json.dumps(chooser.getstate())}
    with whole_file(file, SafetensorError, doing=f"write the checkpoint {file}") as temporary:
        save_file(tensors, temporary, metadata=facts)


def _resume(
    file: Path, trained: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer, chooser: random.Random
) -> int:
    """Restore weights, optimiser and draws from a checkpoint, and return how many steps had been taken."""
    with safe_open(file, framework="pt") as kept:
        facts = kept.metadata()
        step = int(facts["step"])
        for name, parameter in trained.items():
            parameter.data.copy_(kept.get_tensor(f"weight/{name}"))
            moments = {part: kept.get_tensor(f"{part}/{name}") for part in MOMENTS}
            optimiser.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    version, internal, gauss = json.loads(facts["chooser"])
    chooser.setstate((version, tuple(internal), gauss))
    return step
