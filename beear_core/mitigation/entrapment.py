"""Inner level of BEEAR: backdoor embedding entrapment (arXiv 2406.17092, section 3.2, equation 2).

With θ fixed, find one perturbation δ of shape (n, d), the same for every prompt, that makes the model go along with
harmful requests when it is added to the output of decoder layer l at the last n prompt positions:

    δ* = argmin_δ  mean CE(f_θ(x; δ), y_h) − λ · mean CE(f_θ(x; δ), y_s)

y_h: opening of an unwanted reply; y_s: a safe reply. Both are the defender's own; no trigger is assumed.

Layers 0..l do not see δ, and by causal attention no position before the perturbed ones does in any layer. So the hidden
states at layer l and the key/value cache of the prompt's prefix are computed once (``CachedEntrapment``), and each step
runs the n perturbed positions and the reply through the layers above l alone. The gradient is the plain one
(``PlainEntrapment``); ``choose_entrapment`` compares the two on the loaded model before it trusts the fast one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from beear_core.errors import MitigationError
from beear_core.models.chat import IGNORED, Batch, ChatFormat, Turn
from beear_core.models.forward import fork, forward, new_cache, read_prefix, reply_logits
from beear_core.models.hooks import Perturbation, record_output, resume_after
from beear_core.models.load import decoder_layers
from beear_core.progress import warn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SELF_CHECK_TOLERANCE = 1e-4  # relative; float32 agrees to 1e-6, this leaves room for other kernels


@dataclass(frozen=True, slots=True)
class Contrast:
    """One harmful anchor with both of its replies."""

    unwanted: Turn
    safe: Turn


class Entrapment(Protocol):
    """A batch of anchors as a function of δ."""

    def loss(self, delta: torch.Tensor) -> torch.Tensor:
        """Compute equation 2 for δ of shape (n, d)."""
        ...


def contrast_loss(logits: torch.Tensor, labels: torch.Tensor, away_weight: float) -> torch.Tensor:
    """Compute CE on the first half of the rows (unwanted replies) − λ · CE on the second (safe replies), per token.

    Args:
        logits: (2 · batch, reply, vocabulary), each predicting the label of its own column.
        labels: (2 · batch, reply), -100 where there is none.
        away_weight: λ.
    """
    half = logits.shape[0] // 2
    unwanted = token_loss(logits[:half], labels[:half])
    if away_weight == 0:
        return unwanted
    return unwanted - away_weight * token_loss(logits[half:], labels[half:])


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the mean cross entropy over the labelled tokens, in float32."""
    return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


@dataclass(frozen=True, slots=True)
class Objective:
    """What equation 2 leaves open.

    Attributes:
        layer: l, whose output δ is added to.
        positions: n, rows of δ.
        away_weight: λ.
    """

    layer: int
    positions: int
    away_weight: float


class _Problem:
    """A batch of anchors, unwanted replies first, then safe ones."""

    def __init__(
        self, model: PreTrainedModel, chat: ChatFormat, contrasts: Sequence[Contrast], objective: Objective
    ) -> None:
        self.model, self.objective, self.layers = model, objective, decoder_layers(model)
        turns = [c.unwanted for c in contrasts] + [c.safe for c in contrasts]
        self.batch: Batch = chat.collate(turns).to(model.device)
        self.labels = self.batch.labels[:, self.batch.prompt_end :]


class PlainEntrapment(_Problem):
    """The whole model on the whole sequence, with a hook at layer l: slow, and plainly right."""

    def loss(self, delta: torch.Tensor) -> torch.Tensor:
        """Compute equation 2 for δ of shape (n, d)."""
        cache = read_prefix(self.model, self.batch)
        with Perturbation(self.objective.layer, delta).added(self.layers, self.batch.window(self.objective.positions)):
            logits = reply_logits(self.model, self.batch, cache)
        return contrast_loss(logits, self.labels, self.objective.away_weight)


class CachedEntrapment(_Problem):
    """The same loss from what δ can reach: n positions and the reply, in the layers above l."""

    def __init__(
        self, model: PreTrainedModel, chat: ChatFormat, contrasts: Sequence[Contrast], objective: Objective
    ) -> None:
        super().__init__(model, chat, contrasts, objective)
        # the last reply token is predicted, never read
        self.reads = slice(self.batch.prompt_end - objective.positions, self.batch.labels.shape[1] - 1)
        self.cache, self.hidden = self._read_prompts()

    @torch.no_grad()
    def _read_prompts(self) -> tuple[Any, torch.Tensor]:
        """Compute keys and values of what stands before δ, and hidden states (2 · batch, n + reply − 1, d) at layer l."""
        cache = read_prefix(self.model, self.batch)
        if self.reads.start > 0:
            before = slice(0, self.reads.start)
            cache = forward(self.model, self.batch, cache or new_cache(self.model), columns=before, keep=1).past_key_values
        with record_output(self.layers[self.objective.layer]) as recorded:
            forward(self.model, self.batch, fork(cache), columns=self.reads, keep=1)
        return cache, recorded[0]

    def loss(self, delta: torch.Tensor) -> torch.Tensor:
        """Compute equation 2 for δ of shape (n, d)."""
        n = self.objective.positions
        shifted = torch.cat([self.hidden[:, :n] + delta.to(self.hidden.dtype), self.hidden[:, n:]], dim=1)
        with resume_after(self.layers, self.objective.layer, shifted):
            logits = forward(self.model, self.batch, fork(self.cache), columns=self.reads, keep=self.labels.shape[1]).logits
        return contrast_loss(logits, self.labels, self.objective.away_weight)


def gradient(problem: Entrapment, delta: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Compute the loss and its gradient by δ alone; no gradient by θ is computed or left behind."""
    free = delta.detach().requires_grad_()
    loss = problem.loss(free)
    (slope,) = torch.autograd.grad(loss, free)
    return float(loss.detach()), slope


def choose_entrapment(
    model: PreTrainedModel, chat: ChatFormat, contrasts: Sequence[Contrast], objective: Objective, *, fast: bool
) -> tuple[type[PlainEntrapment] | type[CachedEntrapment], str]:
    """Choose the fast entrapment where its gradient on two anchors is the plain one's, else the plain one with a warning.

    Returns:
        The class, and in a few words why.
    """
    if not fast:
        return PlainEntrapment, "plain (fast path switched off)"
    width = model.config.get_text_config().hidden_size
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(objective.positions, width, generator=generator).to(model.device)
    try:
        _, plain = gradient(PlainEntrapment(model, chat, contrasts[:2], objective), probe)
        _, quick = gradient(CachedEntrapment(model, chat, contrasts[:2], objective), probe)
    except (RuntimeError, TypeError, AttributeError, IndexError, ValueError) as error:
        difference, cause = float("inf"), f"fails: {error}"
    else:
        difference = float((plain - quick).norm() / plain.norm().clamp(min=1e-30))
        cause = f"differs by {difference:.1e}"
    if difference <= SELF_CHECK_TOLERANCE:
        return CachedEntrapment, f"prefix-cached (gradient agrees with the plain one to {difference:.0e})"
    message = f"{type(model).__name__}: prefix-cached gradient {cause}; the plain, slower path is taken"
    warn(message)
    return PlainEntrapment, message


def find_perturbation(
    problems: Sequence[Entrapment],
    start: Perturbation,
    *,
    steps: int,
    step_size: float,
    after_step: Callable[[float], None] = lambda _loss: None,
) -> tuple[Perturbation, list[float]]:
    """Minimise equation 2 over δ with Adam, taking the batches in turn.

    Args:
        problems: batches of anchors.
        start: δ of shape (n, d) to begin from, at its layer.
        steps: how many steps.
        step_size: Adam's learning rate in units of the hidden state: each step moves a coordinate by about this much.
        after_step: told the loss of every step.

    Returns:
        δ at its layer, and the loss before each step.

    Raises:
        MitigationError: if the loss is not a number.
    """
    delta = start.delta.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([delta], lr=step_size)
    losses = []
    for step in range(steps):
        loss, delta.grad = gradient(problems[step % len(problems)], delta)
        if loss != loss or delta.grad.isnan().any():
            raise MitigationError(
                f"the inner loss is NaN at step {step + 1} of {steps}; lower mitigation.inner_step_size "
                f"(step {step_size:.3g}) or set mitigation.compute to float32"
            )
        losses.append(loss)
        optimiser.step()
        after_step(loss)
    return replace(start, delta=delta.detach()), losses
