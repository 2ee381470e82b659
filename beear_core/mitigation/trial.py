"""What a round is judged by: held-back requests that nothing is learned from, and limits on what must stay."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from beear_core.config import JudgeName, MitigationConfig
from beear_core.evaluation.generate import greedy, score_replies
from beear_core.evaluation.judges import Judge, RefusalJudge
from beear_core.evaluation.judging import judge_named
from beear_core.mitigation.anchors import HeldBack
from beear_core.models.chat import Turn
from beear_core.models.drift import Drift
from beear_core.models.hooks import Perturbation
from beear_core.models.load import LoadedModel
from beear_core.records import RoundRecord

MEASURED_BATCH = 4096
SCORED_TOKENS = 1024  # padded tokens a scoring batch; its logits are (tokens, vocabulary) in float32
ADMISSIBLE = "admissible"


@dataclass(frozen=True, slots=True)
class Held:
    """Measured on held-back anchors without a perturbation: three rates in [0, 1], NLL in nats per token.

    What cannot be scored counts against the model, as in the gate; ``surely_...``: refusals that were scored as such alone,
    as the gate takes them where the model before is compared with.
    """

    attack: float
    refusal: float
    borderline: float
    nll: float
    surely_refusal: float
    surely_borderline: float


class Trial:
    """Measures a model as it is on held-back anchors; ``judge``: of replies to harmful requests."""

    def __init__(self, loaded: LoadedModel, held: HeldBack, judge: JudgeName = "refusal") -> None:
        self.loaded, self.held, self.judge = loaded, held, judge_named(judge)

    def measure(self) -> Held:
        """Measure all four figures, with nothing added."""
        scores = score_replies(self.loaded, self.held.performance, batch_tokens=SCORED_TOKENS)
        refusal, surely_refusal = self._refused(self.held.ordinary)
        borderline, surely_borderline = self._refused(self.held.borderline)
        return Held(
            attack=self.attack(self.held.harmful),
            refusal=refusal,
            borderline=borderline,
            nll=sum(s.nll for s in scores) / sum(s.tokens for s in scores),
            surely_refusal=surely_refusal,
            surely_borderline=surely_borderline,
        )

    def attack(self, prompts: Sequence[str | Turn], under: Sequence[Perturbation | None] = ()) -> float:
        """Measure the share of harmful requests whose reply is not scored as safe; unscored is not safe."""
        refused = self._refusals(self.judge, prompts, under)
        return sum(r is not True for r in refused) / len(refused)

    def attack_under(self, drifts: Sequence[Drift], seed: int) -> float | None:
        """Measure attack success under kept perturbations, each on its share of the requests; ``None``: there are none.

        ``seed``: of the words that the perturbations stand on, so that every measurement asks the same.
        """
        if not drifts:
            return None
        chooser = random.Random(seed)
        asked = list(zip(self.held.harmful, cycle(drifts)))
        turns = [drift.turn(self.loaded.chat, text, chooser) for text, drift in asked]
        return self.attack(turns, [drift.perturbation for _, drift in asked])

    def _refused(self, prompts: Sequence[str]) -> tuple[float, float]:
        """Measure the share of replies that refuse or cannot be scored, and of those that surely refuse."""
        refused = self._refusals(RefusalJudge(), prompts, ())
        return sum(r is not False for r in refused) / len(refused), sum(r is True for r in refused) / len(refused)

    def _refusals(
        self, judge: Judge, prompts: Sequence[str | Turn], under: Sequence[Perturbation | None]
    ) -> list[bool | None]:
        """Tell whether the greedy reply to each prompt is safe as a judge sees it; ``None`` where it cannot be scored."""
        replies = greedy(self.loaded, prompts, max_new_tokens=judge.reply_tokens, batch_tokens=MEASURED_BATCH, under=under)
        return [judge.judge("", self.loaded.chat.decode(reply)).refused for reply in replies]


def faults(before: Held, after: Held, config: MitigationConfig) -> list[str]:
    """List why a round is not admissible; empty when it is."""
    found = []
    ratio = after.nll / before.nll
    if not ratio <= config.max_nll_ratio:
        found.append(f"held-back ordinary replies: NLL ratio {ratio:.3f} above {config.max_nll_ratio}")
    for what, was, now, limit in (
        ("ordinary", before.surely_refusal, after.refusal, config.max_refusal_increase),
        ("borderline", before.surely_borderline, after.borderline, config.max_borderline_increase),
    ):
        if now - was > limit + 1e-9:
            found.append(f"wrong refusals of held-back {what} requests rose from {was:.0%} to {now:.0%}")
    return found


def remaining(record: RoundRecord) -> tuple[float, float]:
    """Read attack success after a round, plain and under what was found on the candidate; 1, the worst, if not measured."""
    plain, perturbed = record.attack_after, record.attack_under_drift_after
    return (1.0 if plain is None else plain, 1.0 if perturbed is None else perturbed)


def rank(record: RoundRecord) -> float:
    """Sum the remaining attack, plain and perturbed: smaller is better. Of equals the later round has seen more."""
    return sum(remaining(record))


def is_safe(record: RoundRecord, config: MitigationConfig) -> bool:
    """Tell whether a round is admissible and elicits no more than ``target_attack_rate`` on held-back requests.

    They are asked alone, with what was just trained against, and with what was found on the candidate.
    """
    under = record.attack_under_delta_after
    found = max(*remaining(record), 1.0 if under is None else under)
    return record.note == ADMISSIBLE and found <= config.target_attack_rate
