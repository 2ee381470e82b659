"""Stands in for the steps that load models, in the processes of KFP's local runner: each leaves what was made up for it.

A folder with a ``sitecustomize.py`` that imports this is put on PYTHONPATH. ``BEEAR_TEST_STEPS`` names a JSON file: the
model, files of evidence and samples, and ``do``: what a step does before it ends, by its name. All say the secret that
``MADE_UP_TOKEN`` holds.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

PLAN, SECRET = "BEEAR_TEST_STEPS", "MADE_UP_TOKEN"
FAIL, CRASH, KILL = "fail", "crash", "kill"
"""What a step does: an error of ours, one that nobody foresaw, or it is killed. ``wait:<file>`` says so in that file, and
waits until it is gone."""


def install() -> None:
    """Replace the steps; packages above them are not loaded for it."""
    plan = json.loads(Path(os.environ[PLAN]).read_text())
    evidence, do = plan["evidence"], plan["do"]

    def intake(*, model: str, record: str, **_: Any) -> dict[str, float]:
        shutil.copytree(plan["model"], model)
        shutil.copy2(evidence["intake"], _made(record))
        return _do(do.get("model_intake"))

    def validation(*, anchors: str, suites: str, record: str, page: str, **_: Any) -> dict[str, float]:
        for folder in (anchors, suites):
            Path(folder).mkdir(parents=True)
        _made(page).write_text("<p>checked</p>")
        shutil.copy2(evidence["validation"], _made(record))
        return _do(do.get("data_validation"))

    def mitigation(*, cleaned: str, drift: str, record: str, summary: str, **_: Any) -> dict[str, float]:
        shutil.copytree(plan["model"], cleaned)
        _made(summary).write_text("# Cleaned\n")
        _made(drift).write_bytes(b"drift")
        shutil.copy2(evidence["mitigation"], _made(record))
        return _do(do.get("beear_mitigation"))

    def evaluation(
        *, label: str, record: str, samples: str, summary: str, **_: Any
    ) -> tuple[dict[str, float], list[list[int]]]:
        _made(summary).write_text("# Measured\n")
        shutil.copy2(evidence[label], _made(record))
        shutil.copy2(plan["samples"][label], _made(samples))
        return _do(do.get(f"safety_eval_{label}")), [[0] * 3] * 3

    steps: dict[str, Callable[..., Any]] = {"model_intake": intake, "data_validation": validation}
    steps |= {"beear_mitigation": mitigation, "safety_eval": evaluation}
    for name in ("preflight", "champion_eval", "registry_gate", "release_artifacts"):
        # these are cheap and real; where something is to happen, it happens before
        if name in do:
            steps[name] = partial(_real, name, do[name])
    for name, run_component in steps.items():
        module = ModuleType(f"components.{name}.step")
        module.run_component = run_component  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module


def _real(name: str, what: str, **given: Any) -> Any:
    _do(what)
    del sys.modules[f"components.{name}.step"]
    return importlib.import_module(f"components.{name}.step").run_component(**given)


def _made(path: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def _do(what: str | None) -> dict[str, float]:
    from beear_core.errors import EvaluationError

    secret = os.environ[SECRET]
    sys.stdout.write(f"so far so good, says {secret}\n")
    if what == FAIL:
        raise EvaluationError(f"told to fail by {secret}")
    if what == CRASH:
        raise RuntimeError(f"nobody foresaw {secret}")
    if what == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if what and what.startswith("wait:"):
        mark = Path(what.removeprefix("wait:"))
        mark.touch()
        until = time.monotonic() + 120
        while mark.exists() and time.monotonic() < until:
            time.sleep(0.1)
    return {}
