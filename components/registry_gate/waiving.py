"""Waivers as a promotion or an approval takes them: weighed at its time, noted in tags, told of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from beear_core.policy import cleared, read_waivers, weigh
from beear_core.progress import warn
from beear_core.records import Decision, Waiver
from components.command import add_row, new_table
from components.mlflow_store.registry import TAG_LENGTH
from components.mlflow_store.tracking import key_part


def entries_of(given: Path | None, configured: str | None) -> list[Any]:
    """Read the file of waivers that is given, else the configured one; none where there is neither.

    Raises:
        ConfigError: it cannot be read, or holds no list.
    """
    path = given or (Path(configured) if configured else None)
    return read_waivers(path) if path else []


def waiver_tags(waivers: Sequence[Waiver]) -> dict[str, str]:
    """Describe the waivers that a promotion rests on in tags of the version."""
    return {
        f"waived.{key_part(waiver.label)}": f"{waiver.owner}: {waiver.reason} (until {waiver.expires})"[:TAG_LENGTH]
        for waiver in waivers
    }


def clear(decision: Decision, entries: Sequence[Any], now: datetime | None = None) -> tuple[Waiver, ...]:
    """Give the waivers that a decision needs to be promoted, and warn of those that do not count.

    Args:
        decision: that was made.
        entries: of a file of waivers.
        now: by default the present.

    Raises:
        EvidenceError: it is a refusal, and not every failed check is waived.
    """
    weighed = weigh(decision, entries, now or datetime.now(UTC))
    needed = cleared(decision, weighed)
    for fault in weighed.faults:
        warn(fault)
    return needed


def waiver_table(waivers: Sequence[Waiver]) -> Table:
    """Show the waivers that a promotion rests on."""
    table = new_table("Waived", "check", "owner", "reason", "until")
    for waiver in waivers:
        add_row(table, waiver.label, waiver.owner, waiver.reason, waiver.expires)
    return table
