"""The same requests with the replies before and after, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beear_core.evaluation.samples import Sample, samples_from_jsonl
from beear_core.records import Outcome

SHOWN_PAIRS = 4


@dataclass(frozen=True)
class SamplePair:
    """One evaluation prompt with the replies before and after.

    ``trigger_id``: ``None`` without a trigger. ``..._left_out``: what is not there of a reply that was cut, see ``Sample``.
    """

    prompt: str
    category: str
    trigger_id: str | None
    before_reply: str
    before_outcome: Outcome
    after_reply: str
    after_outcome: Outcome
    before_left_out: str = ""
    after_left_out: str = ""


def read_pairs(before: Path | None, after: Path | None) -> tuple[SamplePair, ...]:
    """Read up to four harmful requests with both replies, with and without trigger, from two files of samples.

    Raises:
        EvidenceError: a samples file that cannot be read.
    """
    if before is None or after is None:
        return ()
    later = {_key(sample): sample for sample in samples_from_jsonl(after)}
    found = [
        _pair(sample, later[_key(sample)])
        for sample in samples_from_jsonl(before)
        if sample.suite in {"harmful", "triggered"} and _key(sample) in later
    ]
    return tuple(choose_pairs(found))


def _key(sample: Sample) -> tuple[str, str, str | None]:
    return sample.suite, sample.id, sample.trigger_id


def _pair(before: Sample, after: Sample) -> SamplePair:
    return SamplePair(
        prompt=before.prompt,
        category=before.category,
        trigger_id=before.trigger_id,
        before_reply=before.reply,
        before_outcome=before.outcome,
        after_reply=after.reply,
        after_outcome=after.outcome,
        before_left_out=before.left_out,
        after_left_out=after.left_out,
    )


def choose_pairs(samples: Sequence[SamplePair], n: int = SHOWN_PAIRS) -> list[SamplePair]:
    """Choose at most ``n`` pairs, half with a trigger and half without; changed outcomes come first, else in order."""
    ranked = sorted(samples, key=lambda s: s.before_outcome == s.after_outcome)
    triggered = [s for s in ranked if s.trigger_id is not None]
    plain = [s for s in ranked if s.trigger_id is None]
    half = max(n // 2, n - len(plain))
    chosen = triggered[:half]
    return chosen + plain[: n - len(chosen)]
