"""HTML that cannot be injected into: plain strings are escaped wherever they go, only ``tag`` makes markup.

Pages are built by functions and not from Jinja2 templates, so that types say what goes where and a forgotten filter cannot
happen; what escapes is MarkupSafe, as in Jinja2. Plots are markup too and not Matplotlib's: they stretch without their
text, follow dark mode, and each mark has its words for screen readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import markupsafe

Html = markupsafe.Markup
"""Markup that was built by ``tag`` or ``join``, and so is safe to put on the page."""
Node = Html | str | None
_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_VOID = frozenset({"meta", "br"})


def escape(text: str) -> Html:
    """Write text as it reads, with nothing in it that a browser would act on."""
    # lone surrogates and control characters would make the page invalid UTF-8 or XML
    cleaned = "".join(c if c in "\n\t" or (c.isprintable() or c.isspace()) else "\N{REPLACEMENT CHARACTER}" for c in text)
    return markupsafe.escape(cleaned)


def join(nodes: Iterable[Node], separator: str = "") -> Html:
    """Put nodes one after the other; what is no ``Html`` is escaped, ``None`` left out."""
    return Html(separator.join(node if isinstance(node, Html) else escape(node) for node in nodes if node is not None))


def tag(name: str, /, *children: Node, **attributes: str | int | float | None) -> Html:
    """Build one element. ``class_`` stands for ``class``, ``_`` for ``-``; attributes that are ``None`` are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def table(
    caption: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[Node]],
    *,
    class_: str = "",
    row_classes: Sequence[str | None] = (),
    notes: Sequence[str | None] = (),
) -> Html:
    """Build a table with a caption for screen readers and a scope on every header; the first cell of a row heads the row.

    ``row_classes`` and ``notes`` go with the rows in order; a note stands below its row over the whole width. Roles are
    written out because narrow screens show rows as cards, where screen readers would otherwise find no table.
    """
    head = tag("tr", *(tag("th", header, scope="col", role="columnheader") for header in headers), role="row")
    body = []
    for index, row in enumerate(rows):
        cells = [
            tag("th", row[0], scope="row", role="rowheader"),
            *(
                tag("td", tag("div", cell), role="cell", data_label=header)
                for cell, header in zip(row[1:], headers[1:], strict=True)
            ),
        ]
        tone = (row_classes[index] if index < len(row_classes) else None) or ""
        note = notes[index] if index < len(notes) else None
        body.append(tag("tr", *cells, role="row", class_=f"{tone} {'noted' if note else ''}".strip() or None))
        if note:
            cell = tag("td", tag("div", note), role="cell", colspan=len(headers))
            body.append(tag("tr", cell, role="row", class_=f"{tone} note-row".strip()))
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption, class_="unseen"),
            tag("thead", head, role="rowgroup"),
            tag("tbody", *body, role="rowgroup"),
            role="table",
        ),
        class_=f"table {class_}".strip(),
    )


def facts(pairs: Iterable[tuple[str, Node]]) -> Html:
    """Build a list of names and values; pairs without a value are left out."""
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value not in (None, "")]
    return tag("dl", *items, class_="facts")


def fold(summary: Node, *children: Node, opened: bool = False) -> Html:
    """Build a part that unfolds; on paper it is always unfolded."""
    return tag("details", tag("summary", summary), *children, open="" if opened else None)


def section(anchor: str, title: str, *children: Node, intro: Node = None) -> Html:
    """Build a section of the page with its heading."""
    lead = None if intro is None else tag("p", intro, class_="intro")
    return tag(
        "section", tag("h2", title, id=f"{anchor}-title"), lead, *children, id=anchor, aria_labelledby=f"{anchor}-title"
    )


def chip(text: str, tone: str) -> Html:
    """Build a small label; ``tone`` is ``good``, ``bad``, ``warn`` or ``plain``."""
    return tag("span", text, class_=f"chip {tone}")


def document(title: str, body: Node) -> str:
    """Build a whole page that loads nothing."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_CSP),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(css)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"
