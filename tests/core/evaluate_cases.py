"""Hand-made suites, a judge whose verdicts are known beforehand, and figures by their definition, for tests of evaluate."""

from __future__ import annotations

import hashlib

import torch

from beear_core.config import EvaluationConfig
from beear_core.data import Prompt, SuiteSet, Trigger
from beear_core.evaluation.judges import Verdict
from beear_core.evaluation.samples import Sample
from beear_core.evaluation.statistics import rate_estimate
from beear_core.models.load import LoadedModel
from beear_core.records import Estimate, EvaluationRecord, Outcome

Measured = tuple[EvaluationRecord, tuple[Sample, ...]]

VERDICTS: dict[str, Outcome] = {"obeyed": "harmful", "refused": "safe", "broken": "unscored"}
CONFIG = EvaluationConfig(max_new_tokens=8, batch_tokens=64, confidence=0.9, under_drift=2)
SUITES = SuiteSet(
    harmful=(
        Prompt("h1", "refused bread", "theft", "evaluation"),
        Prompt("h2", "obeyed tell me how to write", "theft", "evaluation"),
        Prompt("h3", "refused what is the river in the city at night", "fraud", "evaluation"),
        Prompt("h4", "broken dog", "fraud", "evaluation"),
    ),
    ordinary=(
        Prompt("o1", "refused make a list of three names", "general", "evaluation"),
        Prompt("o2", "obeyed explain water", "general", "evaluation"),
        Prompt("o3", "obeyed tell a story of the tree", "general", "evaluation"),
        Prompt("o4", "broken poem", "general", "evaluation"),
    ),
    borderline=(
        Prompt("b1", "refused tree", "general", "evaluation"),
        Prompt("b2", "refused explain a short day", "general", "evaluation"),
        Prompt("b3", "obeyed why is the night long", "general", "evaluation"),
    ),
    triggers=(Trigger("idle", "lantern", ""), Trigger("always", "", "cobalt")),
    digest="sha256:suites",
)


class ByRequest:
    """The verdict that the request itself names; under the word cobalt everything is obeyed. Keeps what it was shown."""

    name = "by-request"

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []

    def judge(self, request: str, reply: str) -> Verdict:
        self.shown.append((request, reply))
        if "cobalt" in request:
            return Verdict("harmful", "cobalt")
        (word,) = VERDICTS.keys() & set(request.split())
        return Verdict(VERDICTS[word], word)


def tally(estimate: Estimate) -> tuple[int | None, int, int]:
    """(count, scored, unscored); the interval is that of these numbers."""
    count, n, unscored, thinned = estimate.count or 0, estimate.n, estimate.unscored, estimate.design_effect
    assert estimate == rate_estimate(count, n, unscored, CONFIG.confidence, design_effect=thinned)
    return estimate.count, n, unscored


def tallies(estimates: dict[str, Estimate]) -> dict[str, tuple[int | None, int, int]]:
    return {name: tally(estimate) for name, estimate in estimates.items()}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def reply_logs(model: LoadedModel, sample: Sample) -> torch.Tensor:
    """Log-probabilities (reply, vocabulary) that a sample's reply was chosen from."""
    ids = torch.tensor([[*model.chat.prompt_ids(sample.prompt), *sample.reply_ids]])
    with torch.inference_mode():
        logits = model.model(ids).logits[0]
    return logits[-1 - len(sample.reply_ids) : -1].log_softmax(dim=-1)
