"""The validation as one page: no network, no script, no text of any row."""

from __future__ import annotations

from importlib.resources import files

from beear_core.records import RuleResult, ValidationRecord
from beear_core.report.html import Html, Node, chip, join, section, table, tag
from beear_core.wording import plural, seconds_text

_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(record: ValidationRecord) -> str:
    """Render the validation as one page; the same record gives the same bytes."""
    css = (files("beear_core.report") / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_CSP),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"Data validation {_verdict(record).lower()}"),
        tag("style", Html(css)),
    )
    main = tag("main", _banner(record), _sources(record), *(_rules(record, role) for role in record.roles))
    footer = tag("footer", tag("div", f"record {record.digest}", class_="digest"))
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', main, footer), lang='en')}\n"


def _verdict(record: ValidationRecord) -> str:
    return "PASSED" if record.passed else "REFUSED"


def _banner(record: ValidationRecord) -> Html:
    broken = [rule for rule in record.rules if not rule.passed]
    critical = sum(rule.severity == "critical" for rule in broken)
    said = (
        f"{len(record.rules) - len(broken)} of {plural(len(record.rules), 'rule')} held; {critical} critical and "
        f"{plural(len(broken) - critical, 'warning')} failed."
    )
    use = (
        "Anchors and suites were written."
        if record.passed
        else "No anchors or suites were written; the release stops here."
    )
    why = tag(
        "div",
        tag("h2", "What failed"),
        tag("ul", *(tag("li", f"{r.role}, {r.rule} ({r.severity}): {r.detail}") for r in broken)),
        class_="why",
    )
    return tag(
        "div",
        tag(
            "div",
            tag("div", "Data validation", class_="eyebrow"),
            tag("h1", _verdict(record)),
            tag("p", f"{said} {use}"),
            class_="banner",
        ),
        why if broken else None,
        class_=f"hero {'promoted' if record.passed else 'refused'}",
    )


def _sources(record: ValidationRecord) -> Html:
    rows: list[list[Node]] = [
        [
            role,
            source.source,
            ", ".join(f"{split} {count}" for split, count in sorted(source.rows.items())),
            tag("span", source.digest, class_="digest"),
        ]
        for role, source in record.roles.items()
    ]
    return section(
        "sources",
        "Where the data comes from",
        table("Data by role", ("Role", "Source", "Rows by split", "Digest"), rows),
        intro=f"Read and judged in {seconds_text(record.seconds)}. Rows of split planting are never handed on.",
    )


def _rules(record: ValidationRecord, role: str) -> Html:
    rules = [rule for rule in record.rules if rule.role == role]
    return section(
        role,
        role,
        table(
            f"Rules on {role}",
            ("Rule", "Says", "Broken by", "Verdict"),
            [_row(rule) for rule in rules],
            row_classes=["failed" if _stops(rule) else None for rule in rules],
            notes=[_examples(rule) for rule in rules],
        ),
    )


def _stops(rule: RuleResult) -> bool:
    return rule.severity == "critical" and not rule.passed


def _row(rule: RuleResult) -> list[Node]:
    tone = "good" if rule.passed else "bad" if _stops(rule) else "warn"
    verdict = join([chip("held" if rule.passed else "failed", tone), tag("span", rule.severity, class_="small")])
    return [rule.rule, rule.detail, f"{rule.failed} of {rule.checked}", verdict]


def _examples(rule: RuleResult) -> str | None:
    if not rule.examples:
        return None
    more = f"; {rule.failed - len(rule.examples)} more" if rule.failed > len(rule.examples) else ""
    return f"For instance {'; '.join(rule.examples)}{more}. Texts are not shown."
