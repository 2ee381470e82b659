"""The ledger of a registered model: every promotion, approval, roll-back and waiver, on whose word and why.

Entries are written under the promotion lock, after the alias has moved. A writer that was killed in between leaves the
alias where no entry says that it is: that is seen by whoever reads, and noted by whoever writes next.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from beear_core.config import RegistryConfig
from beear_core.errors import RegistryError
from beear_core.records import Event, LedgerEntry
from components.mlflow_store.champion import Move, Recorder, Version
from components.mlflow_store.ledger_pages import Pages, find_pages, new_pages


class Ledger:
    """What is written of the alias of one registered model.

    Args:
        client: of MLflow.
        uri: of the store.
        config: names the model and the alias.
        clock: the time of new entries.
    """

    def __init__(
        self, client: Any, uri: str, config: RegistryConfig, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.client, self.uri, self.clock = client, uri, clock
        self.name, self.alias = config.model_name, config.alias

    def read(self, champion: Version | None) -> tuple[tuple[LedgerEntry, ...], LedgerEntry | None]:
        """Read all entries, oldest first, and what is missing behind them: how the alias came to where it is.

        Args:
            champion: where the alias is.

        Raises:
            RegistryError: MLflow fails, or an entry is missing or was altered; the first such is named.
        """
        pages = find_pages(self.client, self.uri, self.name)
        entries = pages.all() if pages else ()
        last = next((entry for entry in reversed(entries) if self._tells_where(entry)), None)
        return entries, self._gap(last, champion)

    def begin(self, champion: Version | None) -> Recorder:
        """Look, under the lock and before the alias moves, whether that can be written down; gives what writes it.

        Raises:
            RegistryError: MLflow fails, or the newest entry is missing or was altered.
        """
        pages = find_pages(self.client, self.uri, self.name) or new_pages(self.client, self.uri, self.name)
        newest = pages.newest()
        gap = self._gap(self._last(pages, newest), champion)

        def record(move: Move) -> None:
            last = newest
            try:
                for draft in (*([gap] if gap else []), *self._drafts(move)):
                    last = pages.append(last, draft, move.held)
            except RegistryError as error:
                raise RegistryError(
                    f"{self.alias} of {self.name} did move, to version {move.version.number}; only the ledger does not say "
                    f"so, and the next entry will: {error}"
                ) from error

        return record

    def _last(self, pages: Pages, newest: LedgerEntry | None) -> LedgerEntry | None:
        """Find the newest entry that tells where the alias is."""
        while newest is not None and not self._tells_where(newest):
            newest = pages.entry(newest.number - 1) if newest.number > 1 else None
        return newest

    def _tells_where(self, entry: LedgerEntry) -> bool:
        # a model may have other aliases, and waivers are written before the move that rests on them
        return entry.alias == self.alias and entry.event != "waiver"

    def _gap(self, last: LedgerEntry | None, champion: Version | None) -> LedgerEntry | None:
        """Draft the entry that is missing where the alias is not where the last entry left it."""
        left, found = last.version if last else "none", champion.number if champion else "none"
        if left == found:
            return None
        noted = champion.tags.get("promotion", "") if champion else ""
        epoch = int(noted) if noted.isdecimal() else 0
        if epoch > (last.epoch if last else 0):
            why = (
                f"promotion {epoch} moved {self.alias} and was cut off before this was written, or is older than the ledger"
            )
        else:
            epoch, why = 0, f"{self.alias} moved without an entry: a roll-back that was cut off, or somebody's own doing"
        by = champion.tags.get("approved_by", "") if champion else ""
        return self._draft("not recorded", champion, left, epoch, by, why)

    def _drafts(self, move: Move) -> list[LedgerEntry]:
        grounds, before = move.grounds, move.before.number if move.before else "none"
        reason = grounds.reason or move.version.tags.get("summary", "")
        where = (move.version, before, move.held.epoch)
        waived = [
            replace(self._draft("waiver", *where, waiver.owner, waiver.reason), waived=waiver.label, expires=waiver.expires)
            for waiver in grounds.waivers
        ]
        return [*waived, self._draft(grounds.event, *where, grounds.by or _user(), reason)]

    def _draft(self, event: Event, version: Version | None, replaced: str, epoch: int, by: str, reason: str) -> LedgerEntry:
        """Fill in an entry, but for its place in the chain."""
        return LedgerEntry(
            number=0,
            previous=None,
            event=event,
            model_name=self.name,
            alias=self.alias,
            version=version.number if version else "none",
            replaced=replaced,
            decision_digest=version.tags.get("decision_digest", "") if version else "",
            time=self.clock().astimezone(UTC).isoformat(timespec="seconds"),
            epoch=epoch,
            by=by,
            reason=reason,
        )


def _user() -> str:
    """Tell who runs this: the name that MLflow is told, else that of the machine."""
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # a pod may run as a user that has no name
        return "unknown"
