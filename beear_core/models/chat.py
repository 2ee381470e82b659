"""From chat template to tokens: where a prompt ends, which positions are perturbed, which tokens carry a label.

The model's own template is always used. Batches are aligned at the prompt's end: prompts are padded on the left, replies
on the right, so that "the last n prompt positions" are the same columns for every row, whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

import torch

from beear_core.errors import ChatTemplateError, DataError
from beear_core.files import digest_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that cross entropy skips
_SENTINEL = "ONE TWO THREE"
WordSpot = Literal["end", "front"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt in the chat template with the beginning of a reply, as token ids.

    ``marks``: indices into ``prompt`` where a perturbation's rows stand; empty: its last ones.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Turns as tensors, aligned at the prompt's end; what all prompts begin with stands apart, once.

    Attributes:
        prefix: (prefix,); token ids that every row begins with, its system prompt for instance. May be empty.
        input_ids, position_ids: (batch, seq); what follows the prefix.
        attention_mask: (batch, prefix + seq); 0 is padding.
        labels: (batch, seq); the reply's tokens, elsewhere -100.
        prompt_end: column of the first reply token, the same in every row.
    """

    prefix: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    prompt_end: int

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return Batch(
            prefix=self.prefix.to(device),
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            position_ids=self.position_ids.to(device),
            labels=self.labels.to(device),
            prompt_end=self.prompt_end,
        )

    def window(self, positions: int) -> slice:
        """Select the columns of the last ``positions`` prompt positions."""
        return slice(self.prompt_end - positions, self.prompt_end)

    def columns(self, turn: Turn, positions: int) -> Sequence[int]:
        """Select the columns of a turn's marks, or of its last ``positions`` prompt positions where it has none."""
        if not turn.marks:
            return range(self.prompt_end - positions, self.prompt_end)
        return [self.prompt_end - len(turn.prompt) + mark for mark in turn.marks]


class ChatFormat:
    """A tokenizer with its chat template.

    Raises:
        ChatTemplateError: if there is none, it cannot be rendered, or a reply cannot be found in what it renders.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise ChatTemplateError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template; add chat_template.jinja, without it "
                "prompts would not be what the model was trained on and no figure would mean anything"
            )
        self.tokenizer = tokenizer
        template = tokenizer.chat_template
        self.digest = digest_bytes((template if isinstance(template, str) else repr(template)).encode())
        self.end_ids = self._end_of_turn()
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None and not self.end_ids:
            raise ChatTemplateError(
                f"the tokenizer in {tokenizer.name_or_path} has neither a pad nor an end token; set pad_token"
            )
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id: int = pad if pad is not None else self.end_ids[0]
        eos = tokenizer.eos_token_id
        self.prefix_ids, self.suffix_ids = self._around_a_request()
        self.stop_ids: frozenset[int] = frozenset(self.end_ids[:1]) | ({eos} if eos is not None else frozenset())

    def _render(self, messages: list[dict[str, str]], generation: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        except Exception as error:
            raise ChatTemplateError(
                f"the chat template of {self.tokenizer.name_or_path} fails on a plain user message: {error}"
            ) from error
        return str(text)

    def _end_of_turn(self) -> tuple[int, ...]:
        """Find the ids that the template puts after a reply: the end-of-turn token."""
        user = {"role": "user", "content": _SENTINEL}
        prompt = self._render([user], generation=True)
        full = self._render([user, {"role": "assistant", "content": "FOUR FIVE SIX"}], generation=False)
        if _SENTINEL not in prompt or "FOUR FIVE SIX" not in full:
            raise ChatTemplateError(
                f"the chat template of {self.tokenizer.name_or_path} does not render the message it is given; the "
                "prompt's end cannot be found in it"
            )
        tail = full.rsplit("FOUR FIVE SIX", 1)[1]
        ids = self._encode(tail) if tail else []
        special = [i for i in ids if i in set(self.tokenizer.all_special_ids)]
        if special:
            return (special[0],)
        eos = self.tokenizer.eos_token_id
        return (eos,) if eos is not None else ()

    def _around_a_request(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Find the ids that the template puts in front of every request (system prompt, markers) and behind it."""
        rendered = [self.prompt_ids(text) for text in (_SENTINEL, "four, five? six!", "?", "a")]

        def common(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
            columns = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
            return tuple(column[0] for column in columns)

        return common(rendered), common([row[::-1] for row in rendered])[::-1]

    def collate(self, turns: Sequence[Turn]) -> Batch:
        """Collate turns into one batch, with what the template puts in front of every request read once."""
        return collate(turns, self.pad_id, self.prefix_ids)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_text(self, prompt: str, before: Sequence[tuple[str, str]] = ()) -> str:
        """Render a prompt as a user message in the template, up to where the reply begins.

        Args:
            prompt: what the user says.
            before: role and text of messages that stand before it.
        """
        messages = [{"role": role, "content": text} for role, text in (*before, ("user", prompt))]
        return self._render(messages, generation=True)

    def prompt_ids(self, prompt: str, before: Sequence[tuple[str, str]] = ()) -> tuple[int, ...]:
        """Encode ``prompt_text`` as token ids; the reply begins right behind the last one."""
        return tuple(self._encode(self.prompt_text(prompt, before)))

    def asked(self, prompt: str, before: Sequence[tuple[str, str]] = ()) -> Turn:
        """Ask a prompt: its tokens, with one token of reply, which collating needs; greedy decoding cuts it off again."""
        return Turn(self.prompt_ids(prompt, before), (self.pad_id,))

    def with_words(self, prompt: str, words: str, count: int, spot: WordSpot, reply: tuple[int, ...]) -> Turn:
        """Put exactly ``count`` tokens of words before or behind a prompt, and mark them for a perturbation.

        What the template puts behind every request is marked as well, after the words.

        Raises:
            DataError: if the words have too few tokens.
        """
        own = self.prompt_ids(prompt)
        head, tail = len(self.prefix_ids), len(self.suffix_ids)
        if spot == "end":
            before, inserted, after = own[: len(own) - tail], self._encode(" " + words)[:count], self.suffix_ids
        else:
            before, inserted = self.prefix_ids, self._encode(words)[:count]
            after = (*self._encode(" " + prompt), *self.suffix_ids)
        if len(inserted) < count or own[:head] != self.prefix_ids:
            raise DataError(
                f"{words!r} has {len(inserted)} tokens, {count} are to stand at the {spot} of a request; give more words"
            )
        ids = (*before, *inserted, *after)
        return Turn(ids, reply, (*range(len(before), len(before) + count), *range(len(ids) - tail, len(ids))))

    def reply_ids(self, reply: str, *, complete: bool, limit: int | None = None) -> tuple[int, ...]:
        """Encode a reply as token ids, closed by the end-of-turn token when ``complete``, cut to ``limit`` tokens."""
        ids = self._encode(reply)
        if complete:
            ids = [*ids, *self.end_ids]
        return tuple(ids[:limit])

    def turn(self, prompt: str, reply: str, *, complete: bool, limit: int | None = None) -> Turn:
        """Build a turn from a prompt and the beginning of its reply.

        Raises:
            DataError: if the reply has no token.
        """
        ids = self.reply_ids(reply, complete=complete, limit=limit)
        if not ids:
            raise DataError(f"an empty reply to {prompt[:60]!r} cannot be trained on; give it text")
        return Turn(self.prompt_ids(prompt), ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode generated ids to text, without special tokens."""
        text: Any = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return str(text).strip()

    def check_window(self, turns: Sequence[Turn], positions: int) -> None:
        """Refuse a perturbation that is longer than a request with what the template puts behind it.

        Raises:
            DataError: naming the shortest prompt.
        """
        shortest = min(turns, key=lambda t: len(t.prompt))
        room = len(shortest.prompt) - len(self.prefix_ids)
        if room < positions:
            raise DataError(
                f"mitigation.positions = {positions} is longer than the shortest prompt, which has "
                f"{room} tokens from its request on; lower positions or remove that prompt: "
                f"{self.decode(shortest.prompt)[:80]!r}"
            )


def collate(turns: Sequence[Turn], pad_id: int, prefix: tuple[int, ...] = ()) -> Batch:
    """Collate turns into one batch, aligned at the prompt's end: prompts padded on the left, replies on the right.

    Args:
        turns: at least one.
        pad_id: the token that fills empty places.
        prefix: taken out of the rows if every prompt begins with it and goes on behind it.
    """
    shared = len(prefix)
    if any(len(t.prompt) <= shared or t.prompt[:shared] != prefix for t in turns):
        shared = 0
    width = max(len(t.prompt) for t in turns) - shared
    height = max(len(t.reply) for t in turns)
    ids = torch.full((len(turns), width + height), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, turn in enumerate(turns):
        start, stop = width - len(turn.prompt) + shared, width + len(turn.reply)
        ids[row, start:stop] = torch.tensor([*turn.prompt[shared:], *turn.reply])
        mask[row, start:stop] = 1
        labels[row, width:stop] = torch.tensor(turn.reply)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0) + shared
    return Batch(
        prefix=torch.tensor(prefix[:shared], dtype=torch.long),
        input_ids=ids,
        attention_mask=torch.cat([mask.new_ones(len(turns), shared), mask], dim=1),
        position_ids=positions,
        labels=labels,
        prompt_end=width,
    )
