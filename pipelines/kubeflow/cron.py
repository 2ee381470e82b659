"""Cron expressions as Kubeflow Pipelines reads them: six fields, seconds first."""

from __future__ import annotations

import re
from dataclasses import dataclass

from beear_core.errors import ConfigError

_PIECE = re.compile(r"(?:[*?]|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\w+))?")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()

    def faults(self, text: str) -> list[str]:
        found = (self._fault(piece) for piece in text.split(","))
        return [f"{self.name} {text!r}: {fault}" for fault in found if fault]

    def _fault(self, piece: str) -> str | None:
        match = _PIECE.fullmatch(piece)
        if match is None:
            return f"{piece!r} is none of *, 5, 1-5, */10, 1-20/5, or a list of these with commas"
        if match["step"] is not None and not (match["step"].isdecimal() and int(match["step"]) > 0):
            return f"the step {match['step']!r} is not a number from 1"
        ends = [self._number(word) for word in (match["first"], match["last"]) if word is not None]
        if None in ends:
            words = f" or {self.words[0]} to {self.words[-1]}" if self.words else ""
            return f"{piece!r} is not between {self.least} and {self.most}{words}"
        return f"{piece!r} ends before it begins" if ends != sorted(e for e in ends if e is not None) else None

    def _number(self, word: str) -> int | None:
        if word.upper() in self.words:
            return self.words.index(word.upper()) + self.least
        number = int(word) if word.isdecimal() else -1
        return number if self.least <= number <= self.most else None


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    _Field("day of the week", 0, 6, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)


def check_cron(expression: str) -> str:
    """Check a cron expression and give it with single blanks.

    Raises:
        ConfigError: with every fault of it.
    """
    given = expression.split()
    if len(given) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        hint = ": for each day at two o'clock write '0 0 2 * * *', not '0 2 * * *'" if len(given) == 5 else ""
        raise ConfigError(f"--cron {expression!r} has {len(given)} fields, Kubeflow takes six ({names}){hint}")
    faults = [fault for field, text in zip(_FIELDS, given, strict=True) for fault in field.faults(text)]
    if faults:
        raise ConfigError(f"--cron {expression!r} has {len(faults)} fault(s):", faults)
    return " ".join(given)
