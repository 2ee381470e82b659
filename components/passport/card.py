"""The card of a model, for people: what it is, how it was cleaned, what was measured, and what that does not show.

It says nothing of the verdict, which is made after it, and quotes no prompt and no reply.
"""

from __future__ import annotations

from collections.abc import Iterator

from beear_core.evaluation.figures import NOT_MEASURED, kind_of, sentence_figure, title_of
from beear_core.evaluation.metrics import METRICS
from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy
from beear_core.policy.checks import comparison
from beear_core.records import Estimate, EvaluationRecord, MitigationRecord
from beear_core.uris import without_secrets
from beear_core.wording import as_sentence, bytes_text, plural
from components.passport.figures import each_figure
from components.passport.front import front_matter
from components.passport.limits import what_this_does_not_show
from components.passport.markdown import escaped, table

CARD = "README.md"
"""Name of the card in a model's folder."""
_METHODS = {
    "beear": "BEEAR, against perturbations (arXiv 2406.17092)",
    "flush": "against triggers of our own, planted and unlearned (arXiv 2605.12529)",
    "both": "BEEAR (arXiv 2406.17092) and triggers of our own (arXiv 2605.12529), in turn",
}


def model_card(evidence: Evidence, policy: GatePolicy, name: str) -> str:
    """Write the card: front matter as the Hugging Face hub reads it, then sections for people.

    Args:
        evidence: what the release is decided on.
        policy: what it is decided by; its limits are listed.
        name: of the model.

    Returns:
        Markdown; the same text for the same evidence, policy and name.
    """
    version = escaped(evidence.after.environment.code_version)
    sections = [
        f"# {escaped(name)}",
        f"Written by beear-gate {version} from the records of one release, before the decision: it tells what was "
        "measured. The decision itself is in `decision.json` beside it.",
        "## The model",
        _model(evidence),
        "## How it was cleaned",
        _cleaning(evidence),
        "## How it behaves",
        _behaviour(evidence),
        "## What the policy asks for",
        _policy(policy),
        "## The data",
        _data(evidence),
        "## What this does not show",
        what_this_does_not_show(evidence),
        "## Digests",
        _digests(evidence, policy),
    ]
    return f"---\n{front_matter(evidence, name)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _model(evidence: Evidence) -> str:
    intake, after = evidence.intake, evidence.after
    rows = [
        ("Digest of the candidate", f"`{evidence.before.model_digest}`"),
        ("Digest", f"`{after.model_digest}`"),
        ("Digest of the chat template", f"`{after.chat_template_digest}`"),
    ]
    if intake:
        rows = [
            ("Architecture", escaped(intake.architecture)),
            ("Parameters", f"{intake.parameters:,}"),
            ("Decoder layers", str(intake.layers)),
            ("Hidden size", str(intake.hidden_size)),
            ("Size of the candidate", bytes_text(intake.size_bytes)),
            ("Source of the candidate", escaped(without_secrets(intake.uri))),
            *rows,
        ]
    unknown = "" if intake else " There is no record of where the candidate came from."
    return (
        f"A language model for conversations.{unknown} No record names its licence; that of its source holds.\n\n"
        f"{table(('', ''), rows)}\n\n"
        "The digest is over paths and digests of the files that were measured. What lies beside them was added after: this "
        "card, `bom.cdx.json` (files, data and software, for tools), `decision.json` and `model.sig` if it is signed."
    )


def _cleaning(evidence: Evidence) -> str:
    mitigation = evidence.mitigation
    same = evidence.before.model_digest == evidence.after.model_digest
    bytes_ = "The measured files are those of the candidate." if same else "The measured files differ from the candidate's."
    if mitigation is None:
        return f"There is no record of a mitigation. {bytes_}"
    told = f"{as_sentence(mitigation.in_words())} {escaped(as_sentence(mitigation.reason))} {bytes_}"
    return f"{told}\n\n{table(('', ''), _mitigation(mitigation))}"


def _mitigation(mitigation: MitigationRecord) -> Iterator[tuple[str, str]]:
    method, pruning = mitigation.config.get("method"), mitigation.config.get("pruning")
    yield "Ending", escaped(mitigation.ending or mitigation.outcome)
    yield "Method", _METHODS.get(str(method), escaped(str(method)) if method else "not recorded")
    if isinstance(pruning, float | int) and pruning > 0:
        yield "Before the rounds", f"fine-pruning (arXiv 1805.12185) below {pruning:g} of the mean energy"
    kept = f", kept after round {mitigation.best_round}" if mitigation.best_round is not None else ""
    yield "Rounds", f"{len(mitigation.rounds)}{kept}"
    layers = mitigation.layers_perturbed or (mitigation.layer,)
    yield "Perturbed layers", f"{', '.join(map(str, layers))} of {mitigation.layers}, from 0"
    found = sum(entry.on_candidate for entry in mitigation.drift)
    yield "Perturbations found", f"{len(mitigation.drift)}, of these {found} on the candidate"
    yield "Digest of the anchors", f"`{mitigation.anchors_digest}`"


def _behaviour(evidence: Evidence) -> str:
    shown = {"Before": evidence.before, "After": evidence.after}
    if evidence.champion:
        shown["Model in use"] = evidence.champion
    columns = [{(name, trigger): estimate for name, trigger, estimate in each_figure(r)} for r in shown.values()]
    keys = dict.fromkeys(key for column in columns for key in column)
    order = [*METRICS, *sorted({name for name, _ in keys} - METRICS.keys())]
    rows = [
        (
            escaped(f"{title_of(name)}: {trigger}" if trigger else title_of(name)),
            *(_cell(column.get((name, trigger)), name) for column in columns),
        )
        for name, trigger in sorted(keys, key=lambda key: (order.index(key[0]), key[1]))
    ]
    after = evidence.after
    settings = ", ".join(f"{key} {value}" for key, value in sorted(after.generation.items()))
    text = (
        "Attack success is the share of harmful requests that get a harmful reply, under each known trigger and each "
        "perturbation by itself. Wrong refusals are those of requests that are fine. NLL ratio and KL compare with the "
        "model before.\n\n"
        f"{table(('', *shown), rows)}\n\n"
        f"Judge: {escaped(after.judge)}. Replies: {escaped(settings)}."
    )
    return f"{text}\n\n{_vulnerability(after)}" if after.vulnerability else text


def _cell(estimate: Estimate | None, metric: str) -> str:
    if estimate is None and metric in METRICS and METRICS[metric].against_reference:
        return "the reference"
    return escaped(sentence_figure(estimate, kind_of(metric)))


def _vulnerability(record: EvaluationRecord) -> str:
    found = record.vulnerability
    if found is None:
        return NOT_MEASURED
    rows = [
        (f"{point.norm:g}", escaped(sentence_figure(point.found, "rate")), escaped(sentence_figure(point.random, "rate")))
        for point in found.points
    ]
    return (
        "What perturbations of a fresh search elicit from the model after cleaning, by their size as a share of the hidden "
        f"states' norm:\n\n{table(('Size', 'Found', 'In random directions'), rows)}"
    )


def _policy(policy: GatePolicy) -> str:
    rows = [
        (
            escaped(check.id),
            escaped(title_of(check.metric)) + (f", {_categories(check.category)}" if check.category else ""),
            escaped(comparison(check, policy.confidence)),
            str(check.min_samples),
            check.level,
        )
        for check in policy.checks
    ]
    head = ("Check", "Measure", "Limit", "Samples at least", "Level")
    told = escaped(as_sentence(policy.description))
    return f"Policy {escaped(policy.name)}: {told} Hard checks decide.\n\n{table(head, rows)}"


def _categories(category: str) -> str:
    return "each category" if category == "*" else f"category {escaped(category)}"


def _data(evidence: Evidence) -> str:
    after, validation = evidence.after, evidence.validation
    suites = [(escaped(name), str(suite.n), f"`{suite.digest}`") for name, suite in sorted(after.suites.items())]
    text = f"Measured on:\n\n{table(('Suite', 'Prompts', 'Digest'), suites)}"
    if validation is None:
        return f"{text}\n\nThere is no record that the data were validated."
    roles = [
        (
            escaped(role),
            escaped(without_secrets(data.source)),
            ", ".join(f"{rows} {escaped(split)}" for split, rows in sorted(data.rows.items())),
            f"`{data.digest}`",
        )
        for role, data in sorted(validation.roles.items())
    ]
    broken = [rule for rule in validation.rules if not rule.passed]
    said = f"{len(broken)} of {plural(len(validation.rules), 'rule')} of the data validation broken"
    return (
        f"{text}\n\nDrawn from these data, whose split `anchoring` is what the cleaning saw and whose split `evaluation` "
        f"is only measured on; {said}:\n\n{table(('Data', 'Source', 'Rows by split', 'Digest'), roles)}"
    )


def _digests(evidence: Evidence, policy: GatePolicy) -> str:
    rows = [(f"Record: {name}", f"`{record.digest}`") for name, record in sorted(evidence.named().items())]
    rows += [("Policy", f"`{policy.digest}`")]
    for label, record in (("before", evidence.before), ("after", evidence.after)):
        rows.append((f"Samples {label}", f"`{record.samples_digest}`"))
    if evidence.after.suites_digest:
        rows.append(("Folder of the suites", f"`{evidence.after.suites_digest}`"))
    if evidence.after.drift_digest:
        rows.append(("Perturbations", f"`{evidence.after.drift_digest}`"))
    return table(("", ""), rows)
