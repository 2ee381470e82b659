"""How much memory a measurement and a mitigation take, by the model's size: what a pod is to be given.

``python -m benchmarks.sizing [--out FILE]`` builds models of random weights in the shape of SmolLM2, of three sizes,
measures each step in a process of its own, prints a table and writes JSON with the machine's facts: the largest memory of
the process, less what its libraries took before a model was loaded. ``evaluate, two`` measures beside the model as it was.
Beside the mitigation stands one whose outer step is naive: the whole batch at once, and an optimiser with temporaries as
large as the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beear_core.models.load import device_names
from beear_core.organisms.cache import base_folder
from beear_core.records import Environment

GIB = 1 << 30
SHAPES = {"small": (384, 16), "SmolLM2-135M": (576, 30), "SmolLM2-360M": (960, 32)}
STEPS = ("evaluate", "evaluate, two", "mitigate", "mitigate, naive")
_CODE = """
import dataclasses, json, re, sys
from pathlib import Path
import torch, transformers
from beear_core.config import DataConfig, EvaluationConfig, MitigationConfig
from beear_core.evaluation.evaluate import evaluate
from beear_core.mitigation import beear
from beear_core.models.load import load
from components.beear_mitigation.sweep import named_anchors, named_suites
# not ru_maxrss: a process begins with its parent's
def peak(): return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
step, folder, work = sys.argv[1:]
before = peak()
loaded = load(Path(folder))
size = sum(p.numel() for p in loaded.model.parameters())
if step.startswith("evaluate"):
    few = EvaluationConfig(harmful=90, ordinary=20, borderline=20, max_new_tokens=16)
    suites = named_suites(DataConfig())
    _, samples = evaluate(loaded, suites, few, label="before")
    if step == "evaluate, two":
        evaluate(loaded, suites, few, label="after", reference=load(Path(folder)), reference_samples=samples)
elif step.startswith("mitigate"):
    config = MitigationConfig(rounds=1, attempts=1, inner_steps=2, outer_steps=2, anchors=64, performance_anchors=72)
    if step == "mitigate, naive":
        config = dataclasses.replace(config, outer_part=10**6)
        plain = torch.optim.AdamW
        torch.optim.AdamW = lambda *given, fused, **more: plain(*given, foreach=True, **more)
    beear.mitigate(loaded, named_anchors(DataConfig()), config, Path(work))
print(json.dumps({"parameters": size, "bytes": peak() - before, "libraries": before}))
"""


def main() -> None:
    """Measure every step on every model, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/sizing.json"))
    given = parser.parse_args()
    table, rows = Table("", "parameters", *(f"{step}: GiB, bytes a parameter" for step in STEPS)), []
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, layers) in SHAPES.items():
            model = random_model(Path(folder) / name, width, layers)
            found = {step: measured(step, model, Path(folder) / "work") for step in STEPS}
            parameters = found["evaluate"]["parameters"]
            cells = (f"{x['bytes'] / GIB:.2f}, {x['bytes'] / parameters:.0f}" for x in found.values())
            table.add_row(name, f"{parameters / 1e6:.0f} M", *cells)
            facts = {"model": name, "parameters": parameters, "libraries": found["evaluate"]["libraries"]}
            rows.append({**facts, **{step: x["bytes"] for step, x in found.items()}})
            # after each: the last takes longest
            result = {"rows": rows, "environment": asdict(Environment.here(device_names()))}
            given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console(width=160).print(table)


def random_model(folder: Path, width: int, layers: int) -> Path:
    """Write a model of random weights in the shape of SmolLM2, with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    base = base_folder("smollm2-135m-instruct")
    config = AutoConfig.from_pretrained(base)
    heads = width // 64
    groups = next(n for n in (3, 2, 1) if heads % n == 0)
    config.update(
        {
            "hidden_size": width,
            "intermediate_size": width * 8 // 3,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "head_dim": 64,
        }
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def measured(step: str, model: Path, work: Path) -> dict[str, Any]:
    """Run one step in a process of its own; ``bytes``: what it added to ``libraries``, what torch takes."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, step, str(model), str(work)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
