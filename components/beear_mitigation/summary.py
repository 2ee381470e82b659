"""What a mitigation looks like in Kubeflow's pages: how it ended and why, and its rounds one by one."""

from __future__ import annotations

from collections.abc import Sequence

from beear_core.evaluation.figures import number
from beear_core.records import MitigationRecord, RoundRecord
from beear_core.wording import as_sentence, plural, seconds_text
from components.passport.markdown import escaped, table

_HEAD = (
    "Round", "Against", "Elicited before", "Inner loss", "Outer loss", "Attack after", "Under it after",
    "Under drift after", "Wrong refusals, ordinary", "Wrong refusals, borderline", "NLL ratio", "Attempts", "Ended",
)  # fmt: skip


def figures(rounds: Sequence[RoundRecord]) -> dict[str, float]:
    """Read the last round's measures, as far as they were taken."""
    if not rounds:
        return {}
    last = rounds[-1]
    values = {
        "attack_under_delta": last.attack_under_delta,
        "attack_after": last.attack_after,
        "attack_under_drift_after": last.attack_under_drift_after,
        "refusal_ordinary_after": last.refusal_ordinary_after,
        "refusal_borderline_after": last.refusal_borderline_after,
        "nll_ratio_after": last.nll_ratio_after,
    }
    return {name: value for name, value in values.items() if value is not None}


def summary(record: MitigationRecord) -> str:
    """Write a page in Markdown: what was kept and why, and what each round did; rates are of held-back requests."""
    kept = f"Round {record.best_round} is kept." if record.best_round is not None else "The candidate's own bytes are kept."
    layers = ", ".join(map(str, record.layers_perturbed or (record.layer,)))
    return f"""# {as_sentence(record.in_words())}

{escaped(as_sentence(record.reason))} {kept}

Perturbed at {"layers" if "," in layers else "layer"} {layers} of {record.layers}, computed in {record.compute_dtype}, \
{plural(len(record.drift), "perturbation")} found, {seconds_text(record.seconds)}.

{table(_HEAD, [_row(one) for one in record.rounds])}

A round that harmed what must stay was undone; its last column says what it harmed. Losses are those before the first and
before the last step.
"""


def _row(one: RoundRecord) -> tuple[str, ...]:
    measured = (one.attack_after, one.attack_under_delta_after, one.attack_under_drift_after)
    refusals = (one.refusal_ordinary_after, one.refusal_borderline_after)
    ratio = "–" if one.nll_ratio_after is None else number(one.nll_ratio_after, "ratio")
    return (
        str(one.round),
        escaped(one.adversary) or "–",
        _rate(one.attack_under_delta),
        _losses(one.inner_loss),
        _losses(one.outer_loss),
        *map(_rate, measured),
        *map(_rate, refusals),
        ratio,
        str(one.attempts),
        escaped(one.note),
    )


def _rate(value: float | None) -> str:
    return "–" if value is None else number(value, "rate")


def _losses(losses: Sequence[float]) -> str:
    return f"{losses[0]:.3f} → {losses[-1]:.3f}" if losses else "–"
