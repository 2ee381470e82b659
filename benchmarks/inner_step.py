"""One step of the inner level: plain with weight gradients, plain without, prefix-cached; by prompt length.

``python -m benchmarks.inner_step [--model DIR] [--out FILE]`` prints a table and writes JSON with the machine's facts. The
model is the packaged demonstration model unless one is named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from beear_core.config import MitigationConfig
from beear_core.mitigation.entrapment import CachedEntrapment, Contrast, Objective, PlainEntrapment, gradient
from beear_core.mitigation.layers import resolve_layers
from beear_core.models.chat import Turn
from beear_core.models.load import LoadedModel, decoder_layers, device_names, load
from beear_core.organisms.cache import base_folder
from beear_core.records import Environment

LENGTHS = (45, 128, 256)
ANCHORS, POSITIONS, REPLY, AWAY = 8, 5, 16, 0.1


def main() -> None:
    """Measure every prompt length, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/inner_step.json"))
    given = parser.parse_args()
    loaded = load(given.model or base_folder("smollm2-135m-instruct"))
    rows = [measure(loaded, length, given.repeats) for length in LENGTHS]
    table = Table("prompt tokens", "plain, weight gradients", "plain", "prefix-cached", "faster than", "and than")
    for row in rows:
        with_weights, plain, cached = (row["seconds"][k] for k in ("plain_with_weights", "plain", "cached"))
        table.add_row(
            str(row["prompt_tokens"]),
            *(f"{s:.2f} s" for s in (with_weights, plain, cached)),
            f"{with_weights / cached:.1f}x",
            f"{plain / cached:.1f}x",
        )
    Console().print(table)
    result = {"rows": rows, "environment": asdict(Environment.here(device_names()))}
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(loaded: LoadedModel, length: int, repeats: int) -> dict[str, Any]:
    """Measure the median seconds of a step in float32, and how far the cached gradient is from the plain one."""
    model = loaded.model
    (layer,) = resolve_layers(MitigationConfig(positions=POSITIONS), len(decoder_layers(model)))
    generator = torch.Generator().manual_seed(length)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(100, model.config.vocab_size - 100, (n,), generator=generator).tolist())

    contrasts = []
    for _ in range(ANCHORS):
        prompt = draw(length)
        contrasts.append(Contrast(Turn(prompt, draw(REPLY)), Turn(prompt, draw(REPLY))))
    objective = Objective(layer, POSITIONS, AWAY)
    plain = PlainEntrapment(model, loaded.chat, contrasts, objective)
    cached = CachedEntrapment(model, loaded.chat, contrasts, objective)
    delta = torch.randn(POSITIONS, model.config.hidden_size, generator=generator).to(model.device)

    def with_weights() -> None:
        free = delta.detach().requires_grad_()
        model.zero_grad(set_to_none=True)
        plain.loss(free).backward()  # type: ignore[no-untyped-call]

    seconds = {
        "plain_with_weights": median_seconds(with_weights, repeats),
        "plain": median_seconds(lambda: gradient(plain, delta), repeats),
        "cached": median_seconds(lambda: gradient(cached, delta), repeats),
    }
    model.zero_grad(set_to_none=True)
    (_, a), (_, b) = gradient(plain, delta), gradient(cached, delta)
    return {
        "prompt_tokens": length,
        "anchors": ANCHORS,
        "reply_tokens": REPLY,
        "seconds": seconds,
        "relative_gradient_difference": float((a - b).norm() / a.norm()),
    }


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Measure the median seconds of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
