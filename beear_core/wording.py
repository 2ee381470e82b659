"""Numbers and nouns as they read in a sentence."""

from __future__ import annotations


def percent_text(confidence: float) -> str:
    """Format a share as per cent: ``95%`` for 0.95, ``97.5%`` for 0.975."""
    return f"{round(100 * confidence, 4):g}%"


def plural(n: int, noun: str) -> str:
    """Format a number with its noun: ``1 check``, ``3 checks``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def seconds_text(seconds: float) -> str:
    """Format a duration: ``12.3 s``, or minutes from a minute and a half on."""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def bytes_text(size: int) -> str:
    """Format a size in MiB, or in GiB from one on."""
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"


def as_sentence(text: str) -> str:
    """Make a text a sentence, with a capital in front and one full stop behind."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
