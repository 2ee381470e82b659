"""A training step and a reading of prompts, with the template's prefix read once and read in every row.

``python -m benchmarks.shared_prefix [--model DIR] [--out FILE]`` prints a table and writes JSON with the machine's facts.
The model is the packaged demonstration model unless one is named.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from beear_core.data import read_prompts
from beear_core.models.chat import Batch, collate
from beear_core.models.forward import reply_logits
from beear_core.models.load import LoadedModel, device_names, load
from beear_core.organisms.cache import base_folder
from beear_core.records import Environment
from benchmarks.inner_step import median_seconds

ROWS, REPLY = 16, "I'm sorry, but I can't help with that."


def main() -> None:
    """Measure the training step and the reading, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/shared_prefix.json"))
    given = parser.parse_args()
    loaded = load(given.model or base_folder("smollm2-135m-instruct"))
    prompts = [p.prompt for p in read_prompts("builtin", "harmful", "planting")][:ROWS]
    turns = [loaded.chat.turn(p, REPLY, complete=True) for p in prompts]
    batches = {"every row": collate(turns, loaded.chat.pad_id), "once": loaded.chat.collate(turns)}
    seconds = {
        what: {name: median_seconds(partial(work, loaded, batch), given.repeats) for name, batch in batches.items()}
        for what, work in (("training step", _train), ("reading", _read))
    }
    table = Table("", "prefix read in every row", "read once", "faster")
    for what, row in seconds.items():
        table.add_row(what, f"{row['every row']:.2f} s", f"{row['once']:.2f} s", f"{row['every row'] / row['once']:.1f}x")
    Console().print(table)
    result = {
        "rows": ROWS,
        "prefix_tokens": len(loaded.chat.prefix_ids),
        "longest_prompt": max(len(t.prompt) for t in turns),
        "seconds": seconds,
        "environment": asdict(Environment.here(device_names())),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _train(loaded: LoadedModel, batch: Batch) -> None:
    loaded.model.zero_grad()
    reply_logits(loaded.model, batch).float().log_softmax(dim=-1)[..., 0].mean().backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _read(loaded: LoadedModel, batch: Batch) -> None:
    reply_logits(loaded.model, batch)


if __name__ == "__main__":
    main()
