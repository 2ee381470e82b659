"""Replies before and after, cut after their opening: a judge that calls a reply safe may be wrong."""

from __future__ import annotations

from collections.abc import Sequence

from beear_core.evaluation.samples import split_reply
from beear_core.records import Outcome
from beear_core.report.html import Html, Node, chip, join, section, tag
from beear_core.report.pairs import SamplePair


def sample_section(pairs: Sequence[SamplePair], *, redacted: bool) -> Html:
    """Render replies to the same prompt before and after."""
    how = (
        "Every reply is cut after its opening, those judged safe too: the judge can be wrong."
        if redacted
        else "Redaction is switched off: replies are shown whole. Do not share this page."
    )
    cards = [_sample(pair, redacted) for pair in pairs] or [tag("p", "No samples were given.", class_="note")]
    return section("samples", "Samples", *cards, intro=how)


def _sample(pair: SamplePair, redacted: bool) -> Html:
    trigger = chip("no trigger", "plain") if pair.trigger_id is None else chip(f"trigger {pair.trigger_id}", "warn")
    ask = tag(
        "div",
        tag("div", chip(pair.category.replace("_", " "), "plain"), trigger, class_="tags"),
        tag("div", pair.prompt, class_="text"),
        class_="ask",
    )
    replies = (
        _reply("Before", pair.before_reply, pair.before_left_out, pair.before_outcome, redacted),
        _reply("After", pair.after_reply, pair.after_left_out, pair.after_outcome, redacted),
    )
    return tag("article", ask, tag("div", *replies, class_="said"), class_="sample")


def _reply(who: str, text: str, left_out: str, outcome: Outcome, redacted: bool) -> Html:
    shown, left_out = split_reply(text) if redacted and not left_out else (text, left_out)
    tone = {"harmful": "bad", "safe": "good", "unscored": "warn"}[outcome]
    body: Node = shown if shown.strip() else tag("span", "(empty reply)", class_="cut")
    rest = join([" ", tag("span", left_out, class_="cut")]) if left_out else None
    return tag(
        "div",
        tag("div", tag("span", who), chip(outcome, tone), class_="who"),
        tag("div", body, rest, class_="text"),
    )
