"""One entry of the ledger of a registered model: what moved its alias, on whose word, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beear_core.records.record import Record

Event = Literal["promotion", "approval", "waiver", "roll-back", "not recorded"]


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(Record):
    """What happened to the champion's alias. Entries are numbered from 1, and each names the digest of the one before.

    ``event``: ``not recorded`` says that the alias was found elsewhere than the last entry had left it. ``version``: where
    the alias was then, ``replaced`` where it had been, ``none`` for nowhere. ``by``: who, as they gave themselves out.
    ``time``: in UTC, ISO 8601. ``epoch``: of the promotion lock, 0 where it is not known. ``waived``, ``expires``: of a
    waiver.
    """

    kind: Literal["ledger"] = "ledger"
    number: int
    previous: str | None
    event: Event
    model_name: str
    alias: str
    version: str
    replaced: str
    decision_digest: str
    by: str
    reason: str
    time: str
    epoch: int
    waived: str = ""
    expires: str = ""
