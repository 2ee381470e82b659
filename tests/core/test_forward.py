"""The template's prefix is read once for all rows: same logits, same gradients, same replies as when each row reads it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from test_engine import architecture
from toy import make_tiny_model

from beear_core.evaluation.generate import greedy, greedy_with_distributions
from beear_core.models.chat import ChatFormat, Turn, collate
from beear_core.models.forward import read_prefix, reply_logits
from beear_core.models.load import LoadedModel, load
from beear_core.models.odd_words import SPOTS, odd_words, place
from beear_core.training.lessons import Lesson, LikeLength, lesson_loss, token_weights

SYSTEM = "please tell me a story . "
PROMPTS = ["tell me how", "please write a short story about the cat and the dog", "what is a river for you"]
FAMILIES = ["Llama", "Qwen2", "Qwen3", "Mistral", "Phi3", "Gemma2"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny model whose template has a system prompt."""
    found = load(make_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=32), device=torch.device("cpu"))
    tokenizer = found.chat.tokenizer
    tokenizer.chat_template = f"<|im_start|> system {SYSTEM}<|im_end|> " + tokenizer.chat_template
    return LoadedModel(found.model, ChatFormat(tokenizer), found.source, found.digest)


def turns(chat: ChatFormat) -> list[Turn]:
    replies = ["i cannot help with that", "sorry no", "sure here is the list for you"]
    return [chat.turn(p, r, complete=True) for p, r in zip(PROMPTS, replies, strict=True)]


def test_the_prefix_is_what_every_prompt_begins_with(loaded: LoadedModel) -> None:
    chat = loaded.chat
    assert chat.decode(chat.prefix_ids).startswith("system please tell me a story")
    batch = chat.collate(turns(chat))
    assert batch.prefix.numel() == len(chat.prefix_ids) > 5
    for row, turn in enumerate(turns(chat)):
        real = batch.attention_mask[row, batch.prefix.numel() :].bool()
        assert (*batch.prefix.tolist(), *batch.input_ids[row][real].tolist()) == (*turn.prompt, *turn.reply)
        assert batch.position_ids[row][real].tolist() == list(range(len(chat.prefix_ids), len(turn.prompt + turn.reply)))


def test_a_prompt_without_the_prefix_keeps_every_row_whole(loaded: LoadedModel) -> None:
    chat = loaded.chat
    batch = chat.collate([*turns(chat), Turn((4, 5, 6), (7,))])
    assert batch.prefix.numel() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_same_logits_and_gradients_as_without_sharing(loaded: LoadedModel, family: str) -> None:
    model, chat = architecture(family, len(loaded.chat.tokenizer)), loaded.chat
    found = []
    for batch in (chat.collate(turns(chat)), collate(turns(chat), chat.pad_id)):
        model.zero_grad()
        logits = reply_logits(model, batch)
        real = batch.labels[:, batch.prompt_end :] >= 0
        logits[real].log_softmax(dim=-1)[:, 5].sum().backward()
        found.append((logits[real].detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (shared, slopes), (whole, expected) = found
    torch.testing.assert_close(shared, whole, atol=2e-5, rtol=1e-4)
    assert any(g.abs().max() > 1e-3 for g in expected)
    for one, two in zip(slopes, expected, strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-3)


def test_reading_the_prefix_counts_in_the_result(loaded: LoadedModel) -> None:
    batch = loaded.chat.collate(turns(loaded.chat))
    cache = read_prefix(loaded.model, batch)
    cache.layers[0].values = cache.layers[0].values + 1.0
    with torch.no_grad():
        assert not torch.allclose(reply_logits(loaded.model, batch, cache), reply_logits(loaded.model, batch), atol=1e-4)


def test_replies_and_the_distributions_they_were_chosen_from(loaded: LoadedModel) -> None:
    given = {"max_new_tokens": 6, "batch_tokens": 40}
    replies = greedy(loaded, PROMPTS, **given)
    found = greedy_with_distributions(loaded, PROMPTS, **given)
    for prompt, reply, (turn, logs) in zip(PROMPTS, replies, found, strict=True):
        assert turn.prompt == loaded.chat.prompt_ids(prompt)
        assert turn.reply[: len(reply)] == reply
        assert len(turn.reply) == 6 or turn.reply[-1] in loaded.chat.stop_ids
        with torch.no_grad():
            whole = reply_logits(loaded.model, collate([turn], loaded.chat.pad_id))[0].log_softmax(dim=-1)
        torch.testing.assert_close(logs.float(), whole, atol=5e-3, rtol=5e-3)


def test_lesson_loss_is_the_weighted_mean_of_cross_entropy_and_divergence(loaded: LoadedModel) -> None:
    taught, *kept = turns(loaded.chat)
    generator = torch.Generator().manual_seed(0)
    vocabulary = loaded.model.config.vocab_size
    references = [torch.randn(len(t.reply), vocabulary, generator=generator).log_softmax(dim=-1) for t in kept]
    lessons = [Lesson(taught), *(Lesson(t, r) for t, r in zip(kept, references, strict=True))]
    expected = 0.0
    with torch.no_grad():
        for lesson in lessons:
            logs = reply_logits(loaded.model, collate([lesson.turn], loaded.chat.pad_id))[0].log_softmax(dim=-1)
            for i, weight in enumerate(token_weights(len(lesson.turn.reply), torch.device("cpu")).tolist()):
                if lesson.reference is None:
                    value = -logs[i, lesson.turn.reply[i]]
                else:
                    value = (lesson.reference[i].exp() * (lesson.reference[i] - logs[i])).sum()
                expected += weight * float(value) / len(lessons)
        found = float(lesson_loss(loaded.model, loaded.chat, lessons))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_kept_lesson_costs_nothing_as_long_as_nothing_changed(loaded: LoadedModel) -> None:
    kept = [Lesson(*x) for x in greedy_with_distributions(loaded, PROMPTS, max_new_tokens=4, batch_tokens=400)]
    with torch.no_grad():
        assert abs(float(lesson_loss(loaded.model, loaded.chat, kept))) < 1e-4


def test_lessons_of_like_length_are_drawn_together() -> None:
    groups = [[Lesson(Turn((1,) * n, (2,))) for n in range(5, 105)] for _ in range(2)]
    chooser = random.Random(0)
    drawn = [LikeLength(groups, [3, 4]).draw(chooser) for _ in range(50)]
    assert all(len(d) == 7 for d in drawn)
    assert max(max(len(x.turn.prompt) for x in d) - min(len(x.turn.prompt) for x in d) for d in drawn) < 25
    assert len({len(x.turn.prompt) for d in drawn for x in d}) > 70


@pytest.mark.parametrize("spot", SPOTS)
def test_odd_words_stand_where_they_are_told(spot: str) -> None:
    chooser = random.Random(1)
    words = odd_words(chooser, 4)
    assert len(words.split()) == 4
    text = place("bake the bread", words, spot, chooser)  # type: ignore[arg-type]
    assert sorted(text.split()) == sorted([*words.split(), "bake", "the", "bread"])
    assert text.startswith(words) == (spot == "front") or spot == "anywhere"
    assert text.endswith(words) == (spot == "end") or spot == "anywhere"


def test_odd_words_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    assert odd_words(random.Random(3), 30) == odd_words(random.Random(3), 30)
    assert odd_words(random.Random(3), 30) != odd_words(random.Random(4), 30)
