"""The report of a release: one HTML page without network, script or font, verdict first, a count beside every rate.

``render`` takes the records and gives the page. Replies are cut after their opening, however they were judged, unless
redaction is switched off on purpose. The page carries a content security policy that forbids it to load or run
anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from beear_core import __version__
from beear_core.errors import EvidenceError
from beear_core.evidence import Evidence
from beear_core.policy.decision import DECIDED_ON
from beear_core.records import Decision, ReleaseRecord
from beear_core.report.champion import champion_figures
from beear_core.report.decision import decision_section
from beear_core.report.hero import hero, navigation
from beear_core.report.html import Html, document, join, section, tag
from beear_core.report.measures import category_section, mitigation_section
from beear_core.report.pairs import SamplePair, choose_pairs
from beear_core.report.perturbations import perturbation_section
from beear_core.report.plots import interval_plot
from beear_core.report.provenance import digest_section, model_section, validation_section
from beear_core.report.samples import sample_section
from beear_core.report.settled import check_promoted, verdict_of


def render(
    decision: Decision,
    evidence: Evidence,
    pairs: Sequence[SamplePair] = (),
    release: ReleaseRecord | None = None,
    *,
    redact: bool = True,
) -> str:
    """Render the report as one HTML document; the same records give the same bytes.

    Raises:
        EvidenceError: if a record is not the one that was decided on.
    """
    _check_belongs(decision, evidence, release)
    before, after, mitigation = evidence.before, evidence.after, evidence.mitigation
    sections = [
        decision_section(decision),
        section(
            "measurements",
            "Before and after",
            interval_plot(decision, before, after),
            champion_figures(evidence),
            intro="Measured on prompts that the mitigation never saw.",
        ),
        perturbation_section(before, after, mitigation),
        mitigation_section(mitigation),
        category_section(before, after),
        sample_section(choose_pairs(pairs), redacted=redact),
        validation_section(evidence.validation),
        model_section(evidence),
        digest_section(decision, evidence, release),
    ]
    verdict, qualifier, tone = verdict_of(decision, release)
    body = join(
        [
            tag(
                "main",
                hero(decision, evidence, release, verdict, qualifier, tone),
                navigation(),
                *sections,
            ),
            _footer(decision),
        ]
    )
    return document(f"{verdict}: release gate report", body)


def _check_belongs(decision: Decision, evidence: Evidence, release: ReleaseRecord | None) -> None:
    for name, record in evidence.named().items():
        expected = decision.evidence.get(name)
        if name in DECIDED_ON and record.digest != expected:
            raise EvidenceError(
                f"the {name} record {record.digest} is not the one that was decided on ({expected or 'none'}); "
                "render the report from the records stored beside the decision"
            )
    if release is not None and release.decision_digest != decision.digest:
        raise EvidenceError(
            f"the release record names decision {release.decision_digest}, this decision is {decision.digest}; "
            "render the report from the records of one run"
        )
    if release is not None:
        check_promoted(decision, release)


def _footer(decision: Decision) -> Html:
    lines = (
        f"beear-gate {__version__}",
        f"decision {decision.digest}",
        f"policy {decision.policy_digest}",
        f"model {decision.model_digest}",
    )
    return tag("footer", *(tag("div", line, class_="digest") for line in lines))
