"""Reads a model's card as the hub does, by PyYAML and markdown-it, for the tests of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token


def parts(text: str) -> tuple[dict[str, Any], str]:
    """Front matter by PyYAML, and what is below."""
    _, front, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    values = yaml.safe_load(front)
    assert isinstance(values, dict)
    return values, body


def tokens(body: str) -> list[Token]:
    """As the hub renders it: CommonMark with HTML, tables, strikethrough; addresses become links."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return parser.parse(body)


def flat(found: list[Token]) -> Iterator[Token]:
    for token in found:
        yield token
        yield from flat(token.children or [])


def shown(found: list[Token]) -> str:
    """What a reader sees of a cell or paragraph."""
    return "".join("\n" if t.type == "softbreak" else t.content for t in flat(found) if not t.children)


def tables(body: str) -> dict[str, list[list[str]]]:
    """The tables below each heading, as rows of what a reader sees."""
    found: dict[str, list[list[str]]] = {}
    heading, row = "", None
    all_ = tokens(body)
    for token, following in zip(all_, [*all_[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            heading = following.content
        elif token.type == "tr_open":
            row = []
            found.setdefault(heading, []).append(row)
        elif token.type in ("td_open", "th_open") and following is not None and row is not None:
            row.append(shown([following]))
    return found


def facts(body: str, heading: str) -> dict[str, str]:
    return {row[0]: row[1] for row in tables(body)[heading]}
