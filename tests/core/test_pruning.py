"""Pruning: what clean activations do not use goes, what they use stays, however many layers are taken at once."""

from __future__ import annotations

import copy
import dataclasses
import random
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from beear_core.errors import MitigationError
from beear_core.mitigation.pruning import Moments, prune
from beear_core.models.chat import Turn
from beear_core.models.load import LoadedModel, decoder_layers, load


def turns(loaded: LoadedModel, count: int = 24) -> list[Turn]:
    chooser = random.Random(0)
    words = ["tell", "me", "how", "to", "plan", "a", "good", "trip", "with", "a", "friend", "today", "please"]
    prompts = [" ".join(chooser.choices(words, k=chooser.randint(2, 9))) for _ in range(count)]
    return [loaded.chat.turn(p, "I can not help", complete=True) for p in prompts]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_directions_that_are_used_stay_and_others_go() -> None:
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    used, unused = basis[:3], basis[3:]
    moments = Moments(8, torch.device("cpu"))
    inputs = torch.randn(4, 50, 3, generator=generator) @ used
    known = torch.ones(4, 50, dtype=torch.bool)
    known[0, :20] = False
    inputs[0, :20] = 100 * unused[0]  # padding holds anything
    moments.add(inputs, known)
    shrinking = moments.shrinking(1e-4)
    assert torch.allclose(used @ shrinking, used, atol=1e-3)
    assert (unused @ shrinking).abs().max() < 0.01
    level = Moments(8, torch.device("cpu"))
    level.add(torch.eye(8)[None], torch.ones(1, 8, dtype=torch.bool))
    # at λ = 1 a direction of just the mean energy keeps half of it
    assert torch.allclose(level.shrinking(1.0), torch.eye(8) / 2, atol=1e-6)


def test_a_prefix_counts_but_not_in_the_mean_energy() -> None:
    moments = Moments(2, torch.device("cpu"))
    moments.add(torch.tensor([[[1000.0, 0.0]]]), None)
    moments.add(torch.tensor([[[0.0, 1.0]]]), torch.ones(1, 1, dtype=torch.bool))
    shrinking = moments.shrinking(1.0)
    assert shrinking[1, 1] == pytest.approx(1 / 1.5)  # 1 of energy 1, mean over two channels 0.5
    assert shrinking[0, 0] == pytest.approx(1.0, abs=1e-5)


def test_every_linear_map_of_the_decoder_is_the_ridge_fit_of_itself(tiny_model: Path) -> None:
    """Against the definition: activations gathered one turn after the other, the fit by least squares."""
    loaded, ridge = load(tiny_model), 0.1
    asked = turns(loaded, 12)
    seen: dict[str, list[torch.Tensor]] = {}
    linear = {n: m for n, m in decoder_layers(loaded.model).named_modules() if isinstance(m, nn.Linear)}
    hooks = [
        m.register_forward_pre_hook(lambda _m, given, name=n: seen.setdefault(name, []).append(given[0][0].detach()))
        for n, m in linear.items()
    ]
    head = len(loaded.chat.prefix_ids)
    for turn in asked:
        loaded.model(torch.tensor([[*turn.prompt, *turn.reply]]))
    for hook in hooks:
        hook.remove()
    old = {n: m.weight.detach().clone() for n, m in linear.items()}
    prune(loaded, asked, ridge, nullcontext)
    for name, module in linear.items():
        rest = torch.cat([rows[head:] for rows in seen[name]])
        prefix = seen[name][0][:head]  # read once a batch, and all turns fit in one
        energy = float(rest.square().mean(dim=1).sum())
        size = rest.shape[1]
        padded = torch.cat([rest, prefix, (ridge * energy) ** 0.5 * torch.eye(size)])
        wanted = torch.cat([rest @ old[name].T, prefix @ old[name].T, torch.zeros(size, len(old[name]))])
        fitted = torch.linalg.lstsq(padded, wanted).solution.T
        assert torch.allclose(module.weight, fitted, atol=2e-4), name
    assert not torch.allclose(old["0.mlp.down_proj"], linear["0.mlp.down_proj"].weight, atol=1e-3)


def test_layers_one_by_one_are_layers_at_once(tiny_model: Path) -> None:
    together, single = load(tiny_model), load(tiny_model)
    prune(together, turns(together), 0.05, nullcontext)
    prune(single, turns(single), 0.05, nullcontext, memory=1)
    found = weights(single.model)
    assert all(torch.allclose(p, found[n], atol=1e-5) for n, p in weights(together.model).items())


def test_what_is_no_decoder_layer_stays(tiny_model: Path) -> None:
    loaded = load(tiny_model)
    before = weights(loaded.model)
    prune(loaded, turns(loaded), 0.05, nullcontext)
    changed = {n for n, p in weights(loaded.model).items() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if "_proj" in n}


def test_activations_that_are_no_numbers_are_an_error(tiny_model: Path) -> None:
    loaded = dataclasses.replace(load(tiny_model), model=copy.deepcopy(load(tiny_model).model))
    with torch.no_grad():
        decoder_layers(loaded.model)[0].input_layernorm.weight.fill_(float("nan"))
    with pytest.raises(MitigationError, match="cannot be pruned"):
        prune(loaded, turns(loaded, 4), 0.05, nullcontext)
