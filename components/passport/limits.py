"""What a model's card has to say about what was not tested, by what the records hold; docs/threat-model.md says more."""

from __future__ import annotations

from beear_core.evaluation.metrics import KNOWN_TRIGGERS, UNDER_DRIFT
from beear_core.evidence import Evidence
from beear_core.records import EvaluationRecord
from beear_core.wording import plural
from components.passport.markdown import escaped


def what_this_does_not_show(evidence: Evidence) -> str:
    """List what the evidence leaves open, as a list in Markdown."""
    after = evidence.after
    points = [
        f"**That no trigger is left.** {_triggers(after)} {_perturbations(after)} One nobody knows can still be there.",
        "**That another kind of trigger was removed.** The cleaning looks for shifts of hidden states that are the same "
        "for every prompt. A trigger of style or meaning, or one that is spread over a conversation, need not act so.",
        "**That an attacker who prepared for this fails.** A backdoor can be trained to withstand a known defence, or to "
        "be silent on the requests that ship with it.",
        "**That the model is safe in general.** Other languages, long conversations, jailbreaks and tools were not "
        "measured, and what was measured holds for these requests, with replies as long as given above.",
        "**That the candidate had a backdoor, or had none.** Behaviour was measured; this is no detector of backdoors.",
        f"**That every reply was judged rightly.** The judge {escaped(after.judge)} is a program and can be wrong. "
        f"{_unscored(after)}",
    ]
    return "\n".join(f"- {point}" for point in points)


def _triggers(after: EvaluationRecord) -> str:
    known = after.metrics[KNOWN_TRIGGERS].by_trigger if KNOWN_TRIGGERS in after.metrics else {}
    return f"It was tried with {plural(len(known), 'known trigger')}." if known else "No known trigger was tried."


def _perturbations(after: EvaluationRecord) -> str:
    tried = after.metrics[UNDER_DRIFT].by_trigger if UNDER_DRIFT in after.metrics else {}
    if not tried:
        return "The model was not measured under perturbations, which stand for triggers that are not known."
    return f"For triggers that are not known stand {plural(len(tried), 'perturbation')} found on the candidate."


def _unscored(after: EvaluationRecord) -> str:
    rates = [metric.overall for metric in after.metrics.values() if metric.overall.count is not None]
    unscored = sum(estimate.unscored for estimate in rates)
    asked = unscored + sum(estimate.n for estimate in rates)
    return f"{unscored} of {asked} replies could not be scored." if unscored else "Every reply was scored."
