"""The top of the page: the verdict, what follows from it, why a model was refused, and the figures that matter most."""

from __future__ import annotations

from beear_core.evaluation.figures import NOT_MEASURED, interval_text, kind_of, number, telling, title_of
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, METRICS, PLAIN, UNDER_DRIFT
from beear_core.evidence import Evidence
from beear_core.records import (
    Decision,
    Estimate,
    EvaluationRecord,
    MitigationRecord,
    ReleaseRecord,
)
from beear_core.report.decision import check_name
from beear_core.report.html import Html, tag
from beear_core.report.settled import waived_list, words_of
from beear_core.wording import as_sentence

_ICONS = {
    "promoted": "M4 12.5l5 5L20 6.5",
    "refused": "M6 6l12 12M18 6L6 18",
    "passed": "M4 12.5l5 5L20 6.5",
}
_TILES = (
    KNOWN_TRIGGERS,
    UNDER_DRIFT,
    PLAIN,
    "wrong_refusal/ordinary",
    "wrong_refusal/borderline",
    "nll_ratio/ordinary",
)
_NAVIGATION = (
    ("decision", "Decision"),
    ("measurements", "Before and after"),
    ("perturbations", "Without a trigger"),
    ("mitigation", "Mitigation"),
    ("categories", "Categories"),
    ("samples", "Samples"),
    ("validation", "Data"),
    ("model", "Model"),
    ("digests", "Digests"),
)


def hero(
    decision: Decision,
    evidence: Evidence,
    release: ReleaseRecord | None,
    verdict: str,
    qualifier: str,
    tone: str,
) -> Html:
    """Render the verdict, what it means, why a model was refused, and the figures that matter most."""
    before, after = evidence.before, evidence.after
    icon = tag("svg", tag("path", d=_ICONS[tone]), viewBox="0 0 24 24", aria_hidden="true")
    subject = "Release gate report"
    if release is not None:
        subject += f" · {release.model_name}, version {release.model_version}"
    banner = tag(
        "div",
        tag("p", subject, class_="eyebrow"),
        tag("h1", icon, verdict, tag("small", qualifier) if qualifier else None),
        tag("p", decision.summary),
        tag("p", _consequence(evidence.mitigation, release)),
        class_="banner",
    )
    failed = decision.failed_checks()
    why = None
    if failed:
        items = [tag("li", tag("strong", check_name(c)), ": ", c.reason) for c in failed]
        why = tag("div", tag("h2", "Why"), tag("ul", *items), class_="why")
    tiles = [_tile(name, before, after) for name in _TILES if name in before.metrics or name in after.metrics]
    waived = waived_list(release)
    return tag("header", banner, why, waived, tag("div", *tiles, class_="tiles") if tiles else None, class_=f"hero {tone}")


def _consequence(mitigation: MitigationRecord | None, release: ReleaseRecord | None) -> str:
    parts = []
    if mitigation is not None and mitigation.outcome == "kept":
        parts.append(f"{as_sentence(mitigation.in_words())} {as_sentence(mitigation.reason)}")
    if release is None:
        parts.append("Nothing was registered.")
    elif release.promoted:
        was = f"version {release.champion_before}" if release.champion_before else "no version"
        parts.append(f"Version {release.model_version} now carries the alias {release.alias}, {was} did before.")
    else:
        stays = f"stays at version {release.champion_after}" if release.champion_after else "is still unset"
        parts.append(f"Registered as version {release.model_version}; the alias {release.alias} {stays}.")
    if release is not None and (told := words_of(release)):
        parts.append(told)
    return " ".join(parts)


def _tile(name: str, before: EvaluationRecord, after: EvaluationRecord) -> Html:
    kind = kind_of(name)
    old, new = telling(before.metrics.get(name)), telling(after.metrics.get(name))

    def short(estimate: Estimate | None) -> str:
        return "–" if estimate is None or estimate.value is None else number(estimate.value, kind)

    was = None if name in METRICS and METRICS[name].against_reference else tag("span", f"{short(old)} → ", class_="was")
    return tag(
        "div",
        tag("div", title_of(name), class_="name"),
        tag("div", was, short(new), class_="change"),
        tag("div", _tile_counts(new), tag("span", interval_text(new, kind), class_="whole"), class_="small"),
        class_="tile",
    )


def _tile_counts(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOT_MEASURED
    return f"n = {estimate.n} " if estimate.count is None else f"{estimate.count} / {estimate.n} "


def navigation() -> Html:
    """Render the links to the sections."""
    return tag("nav", *(tag("a", text, href=f"#{anchor}") for anchor, text in _NAVIGATION), aria_label="Sections")
