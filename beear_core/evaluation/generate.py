"""Batched greedy decoding and teacher-forced log-likelihoods.

Prompts of like length go into one batch under a token budget, padded on the left. Rows that have ended leave the batch,
so that one long reply does not make the others wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from beear_core.models.chat import IGNORED, ChatFormat, Turn
from beear_core.models.forward import read_prefix, reply_logits, under_perturbations
from beear_core.models.hooks import Perturbation
from beear_core.models.load import LoadedModel
from beear_core.progress import Progress


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Batch indices by like length, at most ``budget`` padded tokens each; longest first, so memory peaks first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        width = lengths[batch[0]] if batch else lengths[index]
        if batch and width * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def greedy(
    loaded: LoadedModel,
    prompts: Sequence[str | Turn],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    under: Sequence[Perturbation | None] = (),
    barred: Iterable[int] = (),
    progress: Progress | None = None,
) -> list[tuple[int, ...]]:
    """Decode a greedy reply to each prompt: token ids in the prompts' order, without the end-of-turn token.

    Args:
        loaded: the model.
        prompts: user messages, or turns: their prompt's tokens are asked, their reply is left out.
        max_new_tokens: longest reply.
        batch_tokens: padded tokens a batch, prompt and reply.
        under: the perturbation that is added while each prompt is read, ``None`` for none.
        barred: tokens that no reply begins with.
        progress: advanced by one for every reply.
    """
    turns = _asked(loaded.chat, prompts)
    replies: list[tuple[int, ...]] = [()] * len(prompts)
    for batch in batches_by_length([len(t.prompt) + max_new_tokens for t in turns], batch_tokens):
        rows = [under[i] for i in batch] if under else ()
        found = _greedy_batch(loaded, [turns[i] for i in batch], max_new_tokens, rows, barred)
        for index, reply in zip(batch, found, strict=True):
            replies[index] = reply
        if progress:
            progress.advance(len(batch))
    return replies


@torch.inference_mode()
def greedy_with_distributions(
    loaded: LoadedModel,
    prompts: Sequence[str | Turn],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[tuple[Turn, torch.Tensor]]:
    """Decode greedy replies, an end of turn within the limit included, with the distributions they were chosen from.

    Returns:
        In the prompts' order, the turn and log-probabilities (reply, vocabulary) in float16 on the CPU.
    """
    turns = _asked(loaded.chat, prompts)
    found: list[tuple[Turn, torch.Tensor] | None] = [None] * len(prompts)
    for batch in batches_by_length([len(t.prompt) + max_new_tokens for t in turns], batch_tokens):
        seen: list[list[torch.Tensor]] = [[] for _ in batch]
        replies = _greedy_batch(loaded, [turns[i] for i in batch], max_new_tokens, seen=seen)
        for index, reply, rows in zip(batch, replies, seen, strict=True):
            logs = torch.stack(rows)
            end = logs[len(reply) :].argmax(dim=-1).tolist()  # where the reply ended within the limit, its end of turn
            found[index] = Turn(turns[index].prompt, (*reply, *end)), logs
        if progress:
            progress.advance(len(batch))
    return [f for f in found if f is not None]


def _asked(chat: ChatFormat, prompts: Sequence[str | Turn]) -> list[Turn]:
    """Build turns from prompts, with one token of reply that collating needs; it is cut off again."""
    return [Turn(p.prompt, (chat.pad_id,), p.marks) if isinstance(p, Turn) else chat.asked(p) for p in prompts]


def _greedy_batch(
    loaded: LoadedModel,
    turns: Sequence[Turn],
    limit: int,
    under: Sequence[Perturbation | None] = (),
    barred: Iterable[int] = (),
    seen: list[list[torch.Tensor]] | None = None,
) -> list[tuple[int, ...]]:
    """Decode replies without the end of turn; ``seen`` gets the log-probabilities of every token of a row, its end too."""
    model, chat = loaded.model, loaded.chat
    batch = chat.collate(turns).to(model.device)
    end, shared = batch.prompt_end, batch.prefix.numel()
    cache = read_prefix(model, batch)
    with under_perturbations(model, batch, turns, under):
        output = model(
            input_ids=batch.input_ids[:, :end],
            attention_mask=batch.attention_mask[:, : shared + end],
            position_ids=batch.position_ids[:, :end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    cache = output.past_key_values
    mask, last = batch.attention_mask[:, : shared + end], batch.position_ids[:, end - 1]
    logits = output.logits[:, -1]
    logits[:, list(barred)] = float("-inf")
    alive = list(range(len(turns)))
    replies: list[list[int]] = [[] for _ in turns]
    for step in range(limit):
        token = logits.argmax(dim=-1)
        if seen is not None:
            for row, logs in zip(alive, functional.log_softmax(logits.float(), dim=-1).half().cpu(), strict=True):
                seen[row].append(logs)
        going = []
        for row, value in enumerate(token.tolist()):
            if value not in chat.stop_ids:
                replies[alive[row]].append(value)
                going.append(row)
        if not going or step == limit - 1:
            break
        if len(going) < len(alive):
            keep = torch.tensor(going, device=token.device)
            cache.batch_select_indices(keep)
            alive = [alive[row] for row in going]
            token, mask, last = token[keep], mask[keep], last[keep]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        last = last + 1
        output = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=last[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        logits = output.logits[:, -1]
    return [tuple(r) for r in replies]


@dataclass(frozen=True, slots=True)
class ReplyScore:
    """One reply under a model: summed negative log-likelihood in nats over its tokens, and their number."""

    nll: float
    tokens: int
    kl: float | None = None


@torch.inference_mode()
def score_replies(
    loaded: LoadedModel,
    turns: Sequence[Turn],
    *,
    batch_tokens: int,
    reference: LoadedModel | None = None,
    progress: Progress | None = None,
) -> list[ReplyScore]:
    """Sum over each reply's tokens the negative log-likelihood and, with a reference, the KL(reference || model).

    Args:
        loaded: the model under test.
        turns: prompts with replies.
        batch_tokens: padded tokens a batch.
        reference: a model with the same vocabulary.
        progress: advanced by one for every reply.
    """
    scores: list[ReplyScore | None] = [None] * len(turns)
    for batch in batches_by_length([len(t.prompt) + len(t.reply) for t in turns], batch_tokens):
        chosen = [turns[i] for i in batch]
        logs, labels = _reply_log_probabilities(loaded, chosen)
        known = labels != IGNORED
        picked = logs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        nll = -(picked * known).sum(dim=1)
        kl = None
        if reference is not None:
            wanted, _ = _reply_log_probabilities(reference, chosen)
            divergence = functional.kl_div(logs, wanted, log_target=True, reduction="none").sum(dim=-1)
            kl = (divergence * known).sum(dim=1)
        for row, index in enumerate(batch):
            scores[index] = ReplyScore(
                nll=float(nll[row]), tokens=int(known[row].sum()), kl=None if kl is None else float(kl[row])
            )
        if progress:
            progress.advance(len(batch))
    return [s for s in scores if s is not None]


def _reply_log_probabilities(loaded: LoadedModel, turns: Sequence[Turn]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute log-probabilities (batch, reply, vocabulary) in float32, and the labels (batch, reply) that they predict."""
    batch = loaded.chat.collate(turns).to(loaded.model.device)
    logits = reply_logits(loaded.model, batch)
    return functional.log_softmax(logits.float(), dim=-1), batch.labels[:, batch.prompt_end :]


def reply_turns(chat: ChatFormat, prompts: Sequence[str], replies: Sequence[tuple[int, ...]]) -> list[Turn]:
    """Build turns from prompts and generated replies; an empty reply is the end-of-turn token alone."""
    return [
        Turn(chat.prompt_ids(p), r or chat.end_ids[:1] or (chat.pad_id,)) for p, r in zip(prompts, replies, strict=True)
    ]
