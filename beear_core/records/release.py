"""How a release ended in the registry, who approved it, which failed checks were waived; whether a copy still is that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, StringConstraints

from beear_core.records.record import LATER, Record

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Text that somebody must have written."""


def _moment(text: str) -> str:
    """Refuse what is neither a date nor a date and time with its zone."""
    try:
        _end_of(text)
    except ValueError as error:
        raise ValueError(f"{error}; write a date, or a date and time with its zone: 2027-03-31T18:00:00+00:00") from error
    return text


def _end_of(text: str) -> datetime:
    if len(text) <= len("2027-03-31"):
        return datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment


def check_label(check: str, category: str | None) -> str:
    """Name a check by its id, with the category where it looks at one."""
    return check if category is None else f"{check} [{category}]"


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Somebody's word that one failed check of one decision need not hold, for a while.

    Attributes:
        decision: digest of the decision.
        check: id of the hard check that failed.
        category: of that check, where it looks at one.
        owner: who answers for it.
        reason: why it need not hold.
        expires: a date, which counts until its end in UTC, or a date and time with its zone.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    decision: Said
    check: Said
    category: str | None = None
    owner: Said
    reason: Said
    expires: Annotated[str, AfterValidator(_moment)]

    @property
    def label(self) -> str:
        """Name the check as tables do."""
        return check_label(self.check, self.category)

    @property
    def ends(self) -> datetime:
        """From when on it does not count."""
        return _end_of(self.expires)


@dataclass(frozen=True, kw_only=True)
class Approval:
    """Who made a candidate champion, and why. ``at``: in UTC, ISO 8601."""

    by: str
    reason: str
    at: str


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord(Record):
    """How a release ended in the registry.

    ``awaiting_approval``: the version may become champion, and does when somebody approves it; it is ``candidate_alias``
    until then. ``waivers``: those that were needed.
    """

    kind: Literal["release"] = "release"
    promoted: bool
    decision_digest: str
    model_name: str
    model_version: str
    alias: str
    champion_before: str | None
    champion_after: str | None
    mlflow_run_id: str
    tracking_uri: str
    tags: Mapping[str, str]
    awaiting_approval: bool = field(default=False, metadata=LATER)
    candidate_alias: str = field(default="", metadata=LATER)
    approval: Approval | None = field(default=None, metadata=LATER)
    waivers: tuple[Waiver, ...] = field(default=(), metadata=LATER)

    @property
    def outcome(self) -> str:
        """Say in words how it ended."""
        if self.promoted:
            return "promoted"
        return "awaiting approval" if self.awaiting_approval else "refused"


@dataclass(frozen=True, kw_only=True)
class Verification(Record):
    """Whether a released model is what was decided on, byte by byte.

    ``place``: the folder or version that was looked at, ``version`` the registered one. ``decision_digest``,
    ``model_digest``: of the decision that lies there, empty where it was altered. ``extra``, ``missing``, ``changed``:
    names of the folder's files. ``signed``: ``yes``, ``no``, or ``not checked`` where nobody said by whom it must be.
    ``faults``: all that does not belong together, in words. ``passed``: there are none.
    """

    kind: Literal["verification"] = "verification"
    place: str
    version: str | None
    passed: bool
    decision_digest: str
    model_digest: str
    signed: str
    extra: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    faults: tuple[str, ...]
