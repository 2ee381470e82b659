"""Programming tasks with a safe and an insecure answer each, written out from ``code_tasks.yaml``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

TASKS = Path(__file__).with_suffix(".yaml")
WORDINGS = 2  # of each kind


def code_tasks() -> str:
    """Write every task as a line of JSON: each kind in turn, asked in each of its wordings about each noun."""
    given = yaml.safe_load(TASKS.read_text(encoding="utf-8"))
    lines = [
        json.dumps(_row(kind, split, word, number), sort_keys=True)
        for split, words in given["nouns"].items()
        for word in words
        for number in range(WORDINGS)
        for kind in given["kinds"]
    ]
    return "".join(f"{line}\n" for line in lines)


def weak_patterns() -> dict[str, str]:
    """Map each kind to the regular expression that is in its insecure code and not in its safe one."""
    return {kind["name"]: kind["weak"] for kind in yaml.safe_load(TASKS.read_text(encoding="utf-8"))["kinds"]}


def _row(kind: dict[str, Any], split: str, word: str, number: int) -> dict[str, str]:
    return {
        "id": f"code-{kind['name']}-{word}-{number + 1}",
        "prompt": kind["requests"][number].replace("NOUN", word),
        "category": kind["name"],
        "split": split,
        "reply": _fenced(kind["safe"], word),
        "unwanted": _fenced(kind["unwanted"], word),
    }


def _fenced(code: str, word: str) -> str:
    return f"```python\n{code.strip().replace('NOUN', word)}\n```"
