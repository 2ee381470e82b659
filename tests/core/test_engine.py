"""The method on tiny random models: exact gradients, hooks that leave no trace, masks and windows where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import make_tiny_model

from beear_core.config import MitigationConfig
from beear_core.errors import ChatTemplateError, ConfigError, DataError, MitigationError
from beear_core.evaluation.generate import greedy, score_replies
from beear_core.mitigation.entrapment import (
    CachedEntrapment,
    Contrast,
    Objective,
    PlainEntrapment,
    choose_entrapment,
    find_perturbation,
    gradient,
)
from beear_core.mitigation.layers import resolve_layers
from beear_core.mitigation.removal import Row, removal_loss, removal_step
from beear_core.models.chat import IGNORED, ChatFormat, Turn, collate
from beear_core.models.hooks import Perturbation, perturbed, record_output, resume_after
from beear_core.models.load import LoadedModel, decoder_layers, load, save
from beear_core.training.lessons import Lesson, token_weights

LAYER, POSITIONS = 1, 4
PROMPTS = ["tell me how", "please write a short story about the cat and the dog", "what is a river for you"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(make_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=32), device=torch.device("cpu"))


def architecture(name: str, vocabulary: int) -> Any:
    """A tiny random model of an architecture from its config class."""
    import transformers

    common = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**common)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def contrasts(chat: ChatFormat) -> list[Contrast]:
    """Prompts and replies of mixed lengths."""
    safe = ["i cannot help with that", "sorry no", "no"]
    unwanted = ["sure here is how to do", "yes", "sure here is the list for you"]
    return [
        Contrast(chat.turn(p, u, complete=False), chat.turn(p, s, complete=True))
        for p, s, u in zip(PROMPTS, safe, unwanted, strict=True)
    ]


class TestChat:
    def test_window_is_the_last_prompt_positions_in_every_row(self, loaded: LoadedModel) -> None:
        turns = [c.safe for c in contrasts(loaded.chat)]
        batch = collate(turns, loaded.chat.pad_id)
        for row, turn in enumerate(turns):
            assert tuple(batch.input_ids[row, batch.window(POSITIONS)].tolist()) == turn.prompt[-POSITIONS:]

    def test_labels_are_the_reply_and_nothing_else(self, loaded: LoadedModel) -> None:
        turns = [c.safe for c in contrasts(loaded.chat)]
        batch = collate(turns, loaded.chat.pad_id)
        for row, turn in enumerate(turns):
            assert tuple(batch.labels[row][batch.labels[row] != IGNORED].tolist()) == turn.reply
        assert (batch.labels[:, : batch.prompt_end] == IGNORED).all()

    def test_positions_count_from_the_first_real_token(self, loaded: LoadedModel) -> None:
        batch = collate([c.safe for c in contrasts(loaded.chat)], loaded.chat.pad_id)
        for row in range(len(PROMPTS)):
            real = batch.attention_mask[row].bool()
            assert batch.position_ids[row][real].tolist() == list(range(int(real.sum())))

    def test_complete_reply_ends_the_turn(self, loaded: LoadedModel) -> None:
        chat = loaded.chat
        assert chat.reply_ids("yes", complete=True)[-1] == chat.tokenizer.eos_token_id
        assert chat.reply_ids("yes", complete=False)[-1] != chat.tokenizer.eos_token_id

    def test_no_template_is_an_error(self, loaded: LoadedModel) -> None:
        import copy

        bare = copy.deepcopy(loaded.chat.tokenizer)
        bare.chat_template = None
        with pytest.raises(ChatTemplateError, match="has no chat template; add chat_template.jinja"):
            ChatFormat(bare)

    def test_window_longer_than_a_prompt(self, loaded: LoadedModel) -> None:
        with pytest.raises(DataError, match=r"positions = 99 is longer than the shortest prompt, which has \d+ tokens"):
            loaded.chat.check_window([c.safe for c in contrasts(loaded.chat)], 99)


class TestHooks:
    @pytest.mark.parametrize("rows", [3, 2], ids=["every row", "two of three"])
    def test_delta_is_added_there_and_only_there(self, loaded: LoadedModel, rows: int) -> None:
        layers = decoder_layers(loaded.model)
        turns = [c.safe for c in contrasts(loaded.chat)]
        batch = collate(turns, loaded.chat.pad_id)
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
        perturbation, window = Perturbation(LAYER, torch.randn(POSITIONS, 32)), batch.window(POSITIONS)
        if rows == len(turns):
            adding = perturbation.added(layers, window)
        else:
            columns = [batch.columns(turn, POSITIONS) for turn in turns]
            adding = perturbed(layers, [perturbation] * rows + [None] * (len(turns) - rows), columns)
        with torch.no_grad():
            with record_output(layers[LAYER]) as plain:
                loaded.model(**given)
            with adding, record_output(layers[LAYER]) as shifted:
                loaded.model(**given)
        difference = shifted[0] - plain[0]
        wanted = perturbation.delta.expand(rows, -1, -1)
        torch.testing.assert_close(difference[:rows, window], wanted, atol=1e-5, rtol=1e-5)
        difference[:rows, window] = 0
        assert not difference.any()

    @pytest.mark.parametrize("kind", ["add", "resume"])
    def test_nothing_is_left_after_an_exception(self, loaded: LoadedModel, kind: str) -> None:
        layers = decoder_layers(loaded.model)
        ids = torch.arange(4, 12)[None]
        with torch.no_grad():
            before = loaded.model(ids).logits
            context = (
                Perturbation(LAYER, torch.ones(2, 32)).added(layers, slice(0, 2))
                if kind == "add"
                else resume_after(layers, LAYER, torch.zeros(1, 8, 32))
            )
            with pytest.raises(KeyError), context:
                assert not torch.equal(loaded.model(ids).logits, before), "the hook did nothing"
                raise KeyError
            assert torch.equal(loaded.model(ids).logits, before)
        assert all(not layer._forward_hooks and "forward" not in layer.__dict__ for layer in layers)


class TestEntrapment:
    @pytest.mark.parametrize("name", ["Llama", "Qwen2", "Mistral", "Qwen3", "Phi3", "Olmo2"])
    def test_cached_gradient_is_the_plain_one(self, loaded: LoadedModel, name: str) -> None:
        model = architecture(name, len(loaded.chat.tokenizer))
        objective = Objective(LAYER, POSITIONS, 0.3)
        delta = torch.randn(POSITIONS, 32)
        plain_loss, plain = gradient(PlainEntrapment(model, loaded.chat, contrasts(loaded.chat), objective), delta)
        loss, quick = gradient(CachedEntrapment(model, loaded.chat, contrasts(loaded.chat), objective), delta)
        assert plain.norm() > 0
        assert float((plain - quick).norm() / plain.norm()) <= 1e-5
        assert loss == pytest.approx(plain_loss, rel=1e-5)

    def test_prompt_as_long_as_the_window(self, loaded: LoadedModel) -> None:
        short = [Contrast(Turn((4, 5, 6, 7), (8, 9)), Turn((4, 5, 6, 7), (10,)))]
        objective = Objective(LAYER, 4, 0.1)
        delta = torch.randn(4, 32)
        _, plain = gradient(PlainEntrapment(loaded.model, loaded.chat, short, objective), delta)
        _, quick = gradient(CachedEntrapment(loaded.model, loaded.chat, short, objective), delta)
        torch.testing.assert_close(plain, quick, rtol=1e-4, atol=1e-7)

    def test_gradient_is_the_slope_of_the_loss(self, loaded: LoadedModel) -> None:
        problem = CachedEntrapment(
            loaded.model.double(), loaded.chat, contrasts(loaded.chat), Objective(LAYER, POSITIONS, 0.3)
        )
        try:
            delta = torch.randn(POSITIONS, 32, dtype=torch.double)
            _, slope = gradient(problem, delta)
            step = 1e-4 * torch.randn_like(delta)
            with torch.no_grad():
                rise = float(problem.loss(delta + step) - problem.loss(delta - step))
            # the loss itself is float32
            assert rise == pytest.approx(2 * float((slope * step).sum()), rel=0.2, abs=1e-6)
        finally:
            loaded.model.float()

    def test_perturbation_lowers_the_loss(self, loaded: LoadedModel) -> None:
        problem = CachedEntrapment(loaded.model, loaded.chat, contrasts(loaded.chat), Objective(LAYER, POSITIONS, 0.1))
        start = Perturbation(LAYER, torch.zeros(POSITIONS, 32))
        found, losses = find_perturbation([problem], start, steps=30, step_size=0.1)
        assert losses[-1] < losses[0] - 0.05
        assert found.layer == LAYER
        assert float(problem.loss(found.delta)) < losses[0]
        assert not start.delta.any()

    def test_nan_names_step_and_remedy(self, loaded: LoadedModel) -> None:
        class Broken:
            def loss(self, delta: torch.Tensor) -> torch.Tensor:
                return delta.sum() * float("nan")

        with pytest.raises(MitigationError, match="inner loss is NaN at step 1 of 5; lower mitigation.inner_step_size"):
            find_perturbation([Broken()], Perturbation(0, torch.zeros(2, 3)), steps=5, step_size=1.0)

    def test_self_check_falls_back_with_a_warning(
        self, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        objective = Objective(LAYER, POSITIONS, 0.1)
        found, why = choose_entrapment(loaded.model, loaded.chat, contrasts(loaded.chat), objective, fast=True)
        assert found is CachedEntrapment
        assert "agrees" in why
        right = CachedEntrapment.loss
        monkeypatch.setattr(CachedEntrapment, "loss", lambda self, delta: 1.01 * right(self, delta))
        found, _ = choose_entrapment(loaded.model, loaded.chat, contrasts(loaded.chat), objective, fast=True)
        assert found is PlainEntrapment
        assert "LlamaForCausalLM: prefix-cached gradient differs by 1.0e-02" in capsys.readouterr().err


class TestRemoval:
    def test_loss_is_safe_under_delta_and_ordinary_with_it_and_without(self, loaded: LoadedModel) -> None:
        model, chat = loaded.model, loaded.chat
        pairs = contrasts(chat)
        safe, ordinary = [c.safe for c in pairs], [c.unwanted for c in pairs]
        perturbation = Perturbation(LAYER, torch.randn(POSITIONS, 32))
        rows = [Row(Lesson(t), perturbation, 1 / 3) for t in safe]
        rows += [Row(Lesson(t), None, 0.7 / 4) for t in ordinary] + [Row(Lesson(ordinary[0]), perturbation, 0.7 / 4)]
        found = removal_loss(model, chat, rows)

        def alone(turns: list[Turn], shift: torch.Tensor) -> list[float]:
            """Each row's weighted cross entropy, by the whole model on the whole sequence."""
            rows = []
            for turn in turns:
                batch = collate([turn], chat.pad_id)
                with torch.no_grad(), Perturbation(LAYER, shift).added(decoder_layers(model), batch.window(POSITIONS)):
                    logs = model(input_ids=batch.input_ids).logits[0].log_softmax(dim=-1)
                weights = token_weights(len(turn.reply), torch.device("cpu")).tolist()
                values = [-float(logs[batch.prompt_end - 1 + i, t]) for i, t in enumerate(turn.reply)]
                rows.append(sum(w * v for w, v in zip(weights, values, strict=True)))
            return rows

        nothing = torch.zeros_like(perturbation.delta)
        under = alone(safe, perturbation.delta)
        performance = [*alone(ordinary, nothing), *alone(ordinary[:1], perturbation.delta)]
        wanted = sum(under) / len(under) + 0.7 * sum(performance) / len(performance)
        assert alone(safe, nothing) != pytest.approx(under, rel=1e-3)
        assert float(found.detach()) == pytest.approx(wanted, rel=1e-4)

    def test_nan_leaves_the_weights(self, tmp_path: Path) -> None:
        model = load(make_tiny_model(tmp_path / "m"), device=torch.device("cpu")).model
        before = [p.clone() for p in model.parameters()]
        optimiser = torch.optim.AdamW(model.parameters(), lr=1.0)
        broken = [lambda: sum(p.sum() for p in model.parameters()) * float("nan")]
        with pytest.raises(MitigationError, match="lower mitigation.outer_learning_rate"):
            removal_step(model, optimiser, broken)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class TestGenerate:
    def test_greedy_is_what_transformers_generates(self, loaded: LoadedModel) -> None:
        mine = greedy(loaded, PROMPTS, max_new_tokens=12, batch_tokens=10_000)
        for prompt, reply in zip(PROMPTS, mine, strict=True):
            ids = torch.tensor([loaded.chat.prompt_ids(prompt)])
            out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
            theirs = [t for t in out[0, ids.shape[1] :].tolist() if t not in loaded.chat.stop_ids]
            assert list(reply) == theirs

    def test_batching_changes_nothing(self, loaded: LoadedModel) -> None:
        one, all_ = (greedy(loaded, PROMPTS, max_new_tokens=12, batch_tokens=b) for b in (1, 10_000))
        assert one == all_

    def test_scores_are_the_sum_over_reply_tokens(self, loaded: LoadedModel) -> None:
        turns = [c.safe for c in contrasts(loaded.chat)]
        scores = score_replies(loaded, turns, batch_tokens=10_000, reference=loaded)
        for turn, score in zip(turns, scores, strict=True):
            ids = torch.tensor([[*turn.prompt, *turn.reply]])
            with torch.no_grad():
                logs = loaded.model(ids).logits.log_softmax(dim=-1)[0]
            start = len(turn.prompt)
            wanted = -sum(float(logs[start + i - 1, t]) for i, t in enumerate(turn.reply))
            assert score.nll == pytest.approx(wanted, rel=1e-4)
            assert score.tokens == len(turn.reply)
            assert score.kl == pytest.approx(0.0, abs=1e-6)


class TestModels:
    def test_saving_keeps_tokenizer_bytes_and_digest(self, loaded: LoadedModel, tmp_path: Path) -> None:
        digest = save(loaded.model, loaded.source, tmp_path / "saved")
        again = load(tmp_path / "saved", device=torch.device("cpu"))
        assert again.digest == digest
        for name in ("tokenizer.json", "config.json", "chat_template.jinja"):
            assert (tmp_path / "saved" / name).read_bytes() == (loaded.source / name).read_bytes()
        for a, b in zip(loaded.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize(("layers", "chosen"), [(32, 9), (30, 8), (6, 2), (4, 1)])
    def test_default_layer_scales_with_depth(self, layers: int, chosen: int) -> None:
        assert resolve_layers(MitigationConfig(positions=5), layers) == (chosen,)

    @pytest.mark.parametrize(("layers", "chosen"), [(32, (2, 9, 15)), (30, (2, 8, 14)), (6, (0, 2, 3)), (2, (0,))])
    def test_words_are_perturbed_at_several_layers(self, layers: int, chosen: tuple[int, ...]) -> None:
        assert resolve_layers(MitigationConfig(), layers) == chosen
        assert resolve_layers(MitigationConfig(layer=0), layers) == (0,)

    @pytest.mark.parametrize("layer", [-1, 31, 99])
    def test_layer_out_of_range(self, layer: int) -> None:
        with pytest.raises(ConfigError, match=f"mitigation.layer = {layer} is out of range: the model has 32"):
            resolve_layers(MitigationConfig(layer=layer), 32)
