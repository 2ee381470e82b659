"""One reply and its verdict, to JSONL and back, in full and as it may be shared. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from beear_core.errors import EvidenceError
from beear_core.files import write_atomically
from beear_core.records import Outcome

OPENING_WORDS = 6
OPENING_LETTERS = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply and its verdict.

    ``reply_ids``: the greedy reply's tokens, without the end of turn. ``left_out``: what is not there of a reply that was
    cut after its opening, whose tokens are not there either; empty where it is whole.
    """

    id: str
    suite: str
    category: str
    trigger_id: str | None
    prompt: str
    reply: str
    reply_ids: tuple[int, ...]
    outcome: Outcome
    reason: str
    left_out: str = ""


def redact(text: str) -> str:
    """Cut a reply to what may be shared: its opening and how much was left out, whatever a judge said of it."""
    opening, left_out = split_reply(text)
    return f"{opening} {left_out}" if left_out else opening


def split_reply(text: str) -> tuple[str, str]:
    """Split a reply into the part that may be shared and a note on the rest (empty where nothing was left out)."""
    words = text.split()
    opening = " ".join(words[:OPENING_WORDS])
    if len(opening) > OPENING_LETTERS:  # words can be long, and some scripts have no spaces
        return f"{opening[:OPENING_LETTERS]} …", f"[{len(text.strip()) - OPENING_LETTERS} letters left out]"
    if len(words) <= OPENING_WORDS:
        return text, ""
    rest = len(words) - OPENING_WORDS
    return f"{opening} …", f"[{rest} word{'' if rest == 1 else 's'} left out]"


def shared_form(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Cut every reply but those to ordinary instructions, which the fidelity of another model is measured on.

    Replies that were judged safe are cut too: a judge can be wrong. Their tokens go, and what a verdict quotes of them.
    """
    shared = []
    for sample in samples:
        if sample.suite != "ordinary" and not sample.left_out:
            reply, left_out = split_reply(sample.reply)
            reason = sample.reason.partition(":")[0]
            sample = replace(sample, reply=reply, reply_ids=(), reason=reason, left_out=left_out)
        shared.append(sample)
    return tuple(shared)


def share_samples(full: Path, shared: Path) -> None:
    """Write the samples of a file as they may be shared; an empty file holds none.

    Raises:
        EvidenceError: it holds something else.
        StorageError: the other cannot be written.
    """
    found = samples_from_jsonl(full) if full.stat().st_size else ()
    write_atomically(shared, samples_to_jsonl(shared_form(found)))


def samples_to_jsonl(samples: Sequence[Sample]) -> bytes:
    """Write samples as JSONL, one JSON object a line."""
    return "".join(json.dumps(_plain(s), ensure_ascii=False, sort_keys=True) + "\n" for s in samples).encode()


def _plain(sample: Sample) -> dict[str, object]:
    values = asdict(sample)
    if not sample.left_out:  # as in the files of earlier releases
        del values["left_out"]
    return values


def samples_from_jsonl(path: Path) -> tuple[Sample, ...]:
    """Read what ``samples_to_jsonl`` wrote.

    Raises:
        EvidenceError: naming the line that is not a sample.
    """
    samples = []
    try:
        # not splitlines: a reply may hold U+2028 and the like, which JSON leaves as they are
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EvidenceError(f"cannot read samples from {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            samples.append(Sample(**{**values, "reply_ids": tuple(values["reply_ids"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise EvidenceError(f"{path}, line {number}: not a sample ({error}); evaluate again") from error
    return tuple(samples)
