"""Waivers: which failed checks of a decision need not hold, on whose word. The decision itself is never changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from beear_core.config import faults_of
from beear_core.errors import ConfigError, EvidenceError
from beear_core.records import CheckResult, Decision, Waiver, check_label

_EVIDENCE = "evidence"


@dataclass(frozen=True, slots=True)
class Weighed:
    """What waivers are worth for a decision.

    ``used``: one for each failed check that is waived. ``faults``: why others do not count. ``unwaived``: failed hard
    checks without one.
    """

    used: tuple[Waiver, ...]
    faults: tuple[str, ...]
    unwaived: tuple[CheckResult, ...]


def read_waivers(path: Path) -> list[Any]:
    """Read a YAML or JSON file that holds a list of waivers, as plain values.

    Raises:
        ConfigError: it cannot be read, or is no list.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # YAML takes no tabs, JSON may be indented by them
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read waivers from {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(found, list):
        raise ConfigError(
            f"{path} holds {type(found).__name__}, no list of waivers; begin each with '- decision: sha256:...'"
        )
    return found


def weigh(decision: Decision, entries: Sequence[Any], now: datetime) -> Weighed:
    """Tell which failed checks of a decision are waived at a moment; what is not clearly a waiver of one does not count.

    Args:
        decision: that was made.
        entries: what ``read_waivers`` gave.
        now: with its time zone.
    """
    valid: list[tuple[int, Waiver]] = []
    faults: list[str] = []
    for number, entry in enumerate(entries, 1):
        found = _parsed(entry)
        fault = found if isinstance(found, str) else _fault(found, decision, now)
        if isinstance(found, Waiver) and fault is None:
            valid.append((number, found))
        else:
            named = f" ({found.label})" if isinstance(found, Waiver) else ""
            faults.append(f"waiver {number}{named} does not count: {fault}")
    times = Counter(waiver.label for _, waiver in valid)
    for number, waiver in valid:
        if times[waiver.label] > 1:
            faults.append(
                f"waiver {number} ({waiver.label}) does not count: the check is waived {times[waiver.label]} times, and "
                "nobody can tell who answers for it; keep one"
            )
    used = tuple(waiver for _, waiver in valid if times[waiver.label] == 1)
    keys = {(waiver.check, waiver.category) for waiver in used}
    return Weighed(used, tuple(faults), tuple(c for c in decision.failed_checks() if (c.check, c.category) not in keys))


def cleared(decision: Decision, weighed: Weighed) -> tuple[Waiver, ...]:
    """Give the waivers that a decision needs to be promoted: none where it passed.

    Raises:
        EvidenceError: it is a refusal, and not every failed check is waived.
    """
    if decision.passed:
        return ()
    if weighed.unwaived:
        names = ", ".join(check_label(c.check, c.category) for c in weighed.unwaived)
        told = "".join(f"\n  - {fault}" for fault in weighed.faults)
        raise EvidenceError(
            f"the decision {decision.digest} is a refusal ({names}); it cannot be promoted without a valid waiver of each "
            f"check that failed{told}"
        )
    return weighed.used


def _parsed(entry: Any) -> Waiver | str:
    """Read one entry, or say what is wrong with it."""
    if not isinstance(entry, dict):
        return f"it is no mapping ({entry!r:.80}); give decision, check, owner, reason and expires"
    try:
        # through JSON: strict mode then takes mappings for dataclasses. YAML reads dates as dates
        return TypeAdapter(Waiver).validate_json(json.dumps(entry, default=_dated))
    except ValidationError as error:
        return "; ".join(faults_of(error))
    except (TypeError, ValueError, RecursionError) as error:
        return f"it holds what a waiver cannot ({error}); write plain text"


def _dated(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r:.80} is no text")


def _fault(waiver: Waiver, decision: Decision, now: datetime) -> str | None:
    """Say why a waiver does not count for this decision, ``None`` where it does."""
    if waiver.decision != decision.digest:
        return f"it names the decision {waiver.decision}, this one is {decision.digest}"
    check = next((c for c in decision.checks if (c.check, c.category) == (waiver.check, waiver.category)), None)
    if check is None:
        return "the decision has no such check"
    if check.metric == _EVIDENCE:
        return "records that do not belong together can never be waived; give those of one run"
    if check not in decision.failed_checks():
        return "that check did not fail" if check.passed else f"that check is {check.level} and decides nothing"
    if now >= waiver.ends:
        return f"it expired ({waiver.expires}); its owner {waiver.owner} would have to renew it"
    return None
