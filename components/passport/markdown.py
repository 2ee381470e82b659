"""Text as Markdown shows it and nothing else: what a record says begins no link, no markup and no other cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!$@^]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def escaped(text: str) -> str:
    """Escape a text that goes inside a line; line breaks become spaces, characters that are not seen are dropped."""
    seen = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return _MARKUP.sub(lambda found: f"\\{found[0]}", seen)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table of escaped cells; one without rows is a line that says so."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return "None."
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines])
