"""One reply and its verdict, to JSONL and back. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from beear_core.errors import EvidenceError
from beear_core.records import Outcome


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply and its verdict. ``reply_ids``: the greedy reply's tokens, without the end of turn."""

    id: str
    suite: str
    category: str
    trigger_id: str | None
    prompt: str
    reply: str
    reply_ids: tuple[int, ...]
    outcome: Outcome
    reason: str


def samples_to_jsonl(samples: Sequence[Sample]) -> bytes:
    """Write samples as JSONL, one JSON object a line."""
    return "".join(json.dumps(asdict(s), ensure_ascii=False, sort_keys=True) + "\n" for s in samples).encode()


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
