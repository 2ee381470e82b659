"""What was found out about the champion that a candidate is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beear_core.records.evaluation import EvaluationRecord
from beear_core.records.record import Record

ChampionState = Literal["not compared", "none", "stored", "measured"]


@dataclass(frozen=True, kw_only=True)
class ChampionRecord(Record):
    """Which version is champion, and where its measurements come from.

    ``state``: ``not compared``: the policy does not ask; ``none``: the registry says that there is no champion;
    ``stored``: ``evaluation`` is what it was released on; ``measured``: it was measured anew. ``version`` and
    ``model_digest`` are the champion's, ``None`` where none was looked for or found. ``reasons``: why it was measured anew,
    one sentence each without its full stop.
    """

    kind: Literal["champion"] = "champion"
    state: ChampionState
    model_name: str
    alias: str
    version: str | None = None
    model_digest: str | None = None
    reasons: tuple[str, ...] = ()
    evaluation: EvaluationRecord | None = None

    def in_words(self) -> str:
        """Tell in a sentence what was found and done."""
        if self.state == "not compared":
            return "The policy does not compare with the champion."
        if self.state == "none":
            return f"{self.model_name} has no {self.alias} yet."
        who = f"Version {self.version} of {self.model_name} is {self.alias}"
        if self.state == "stored":
            return f"{who}; the measurements that it was released on were made in the same way, so they were taken."
        return f"{who}; it was measured anew because {'; '.join(self.reasons)}."
