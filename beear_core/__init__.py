"""BEEAR for any decoder model: find what a backdoor does to the embeddings, and teach the model to withstand it.

What ``beear validate --out data`` leaves and a model folder are all that is needed::

    from pathlib import Path

    from beear_core import Evidence, GatePolicy, decide, evaluate, explain, load, mitigate, save
    from beear_core.config import EvaluationConfig, MitigationConfig
    from beear_core.data import load_anchors, load_suites

    suites, sizes = load_suites(Path("data/suites")), EvaluationConfig()
    model = load(Path("model"))
    before, replies = evaluate(model, suites, sizes, label="before")
    ended = mitigate(model, load_anchors(Path("data/anchors")), MitigationConfig(), Path("work"))
    save(model.model, model.source, Path("cleaned"))
    after, _ = evaluate(
        load(Path("cleaned")), suites, sizes, label="after", reference=load(Path("model")), reference_samples=replies
    )
    decision = decide(GatePolicy.load("standard"), Evidence(before=before, after=after))
    print(ended.reason)
    print(explain(decision))

Importing this package loads no torch: each of these names is loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beear_core.evaluation.evaluate import evaluate
    from beear_core.evidence import Evidence
    from beear_core.mitigation.beear import mitigate
    from beear_core.models.load import load, save
    from beear_core.policy import GatePolicy, decide, explain

__all__ = ["Evidence", "GatePolicy", "__version__", "decide", "evaluate", "explain", "load", "mitigate", "save"]

try:
    __version__ = version("beear-gate")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

_HOMES = {
    "Evidence": "evidence",
    "GatePolicy": "policy",
    "decide": "policy",
    "evaluate": "evaluation.evaluate",
    "explain": "policy",
    "load": "models.load",
    "mitigate": "mitigation.beear",
    "save": "models.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
