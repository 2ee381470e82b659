"""One forward pass over a batch, with what its prompts share read once.

Chat templates put the same system prompt in front of every request. It is read with one row, and its keys and values serve
all rows; gradients flow back through it as if each row had read it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from beear_core.models.chat import Batch, ChatFormat, Turn
from beear_core.models.hooks import Perturbation, perturbed, record_output
from beear_core.models.load import decoder_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_prefix(model: PreTrainedModel, batch: Batch) -> Any:
    """Compute the key/value cache of the batch's prefix, with a row for each of the batch's; ``None`` without a prefix."""
    if batch.prefix.numel() == 0:
        return None
    cache = model(input_ids=batch.prefix[None], use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(batch.input_ids.shape[0])
    return cache


def new_cache(model: PreTrainedModel) -> Any:
    """Build an empty key/value cache."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def forward(model: PreTrainedModel, batch: Batch, cache: Any, *, columns: slice = slice(None), keep: int) -> Any:
    """Run the model over the batch's columns, behind what the cache holds; with logits of the last ``keep`` columns.

    Args:
        model: any causal language model.
        batch: what ``columns`` are cut from.
        cache: keys and values of the prefix and of all columns before ``columns``; it grows by them.
        columns: which of the batch's, a slice without a step.
        keep: how many columns get logits.
    """
    stop = batch.input_ids[:, columns].shape[1] + (columns.start or 0)
    return model(
        input_ids=batch.input_ids[:, columns],
        attention_mask=batch.attention_mask[:, : batch.prefix.numel() + stop],
        position_ids=batch.position_ids[:, columns],
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )


def reply_logits(model: PreTrainedModel, batch: Batch, cache: Any = None) -> torch.Tensor:
    """Compute logits (batch, reply, vocabulary), each predicting the label of its own column.

    Args:
        model: any causal language model.
        batch: turns.
        cache: what ``read_prefix`` gave for this batch; it is used up. Without it the prefix is read here, under any hooks
            that are set.
    """
    replies = batch.labels.shape[1] - batch.prompt_end
    cache = read_prefix(model, batch) if cache is None else cache
    logits: torch.Tensor = forward(model, batch, cache, keep=replies + 1).logits
    return logits[:, :-1]


def fork(cache: Any) -> Any:
    """Fork a cache, to grow by itself over the same tensors: growing concatenates, so the originals stay as they are."""
    if cache is None:
        return None
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    return branch


def under_perturbations(
    model: PreTrainedModel, batch: Batch, turns: Sequence[Turn], under: Sequence[Perturbation | None]
) -> AbstractContextManager[None]:
    """Add to each row of the batch its δ, inside the context; nothing where that is ``None``, or no rows are given."""
    if not any(under):
        return nullcontext()
    columns = [batch.columns(t, p.delta.shape[0]) if p else () for t, p in zip(turns, under, strict=True)]
    return perturbed(decoder_layers(model), under, columns)


@torch.no_grad()
def hidden_at_marks(
    model: PreTrainedModel, chat: ChatFormat, turns: Sequence[Turn], layers: Sequence[int], positions: int = 0
) -> torch.Tensor:
    """Read hidden states (layers, turns, n, d) in float32 at the turns' marks or last ``positions`` prompt positions."""
    batch = chat.collate(turns).to(model.device)
    cache = read_prefix(model, batch)
    with ExitStack() as stack:
        recorded = [stack.enter_context(record_output(decoder_layers(model)[layer])) for layer in layers]
        forward(model, batch, cache, keep=1)
    columns = [list(batch.columns(turn, positions)) for turn in turns]
    return torch.stack([torch.stack([states[row, at] for row, at in enumerate(columns)]).float() for (states,) in recorded])
