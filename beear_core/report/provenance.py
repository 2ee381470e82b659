"""Where everything comes from: data, model, environment, digests, registry."""

from __future__ import annotations

from beear_core.evidence import Evidence
from beear_core.records import (
    Decision,
    Environment,
    ReleaseRecord,
    ValidationRecord,
)
from beear_core.report.html import Html, chip, facts, fold, join, section, table, tag
from beear_core.wording import (
    bytes_text,
    plural,
    seconds_text,
)


def validation_section(validation: ValidationRecord | None) -> Html:
    """Render what the data was checked for, and where it came from."""
    if validation is None:
        return section("validation", "Data", tag("p", "No data validation record.", class_="note"))
    rules = [
        [
            join([rule.rule, tag("span", rule.detail, class_="small") if rule.detail else None]),
            rule.role,
            f"{rule.failed} / {rule.checked}",
            join([_rule_chip(rule.passed, rule.severity), tag("span", rule.severity, class_="small")]),
        ]
        for rule in validation.rules
    ]
    failed = ["failed" if not r.passed and r.severity == "critical" else None for r in validation.rules]
    roles = [
        [
            role,
            source.source,
            ", ".join(f"{split} {rows}" for split, rows in sorted(source.rows.items())) or "–",
            tag("span", source.digest, class_="digest"),
        ]
        for role, source in sorted(validation.roles.items())
    ]
    held = sum(rule.passed for rule in validation.rules)
    return section(
        "validation",
        "Data",
        table("Data by role", ("Role", "Source", "Rows by split", "Digest"), roles),
        fold(
            f"{held} of {plural(len(validation.rules), 'rule')} held",
            table("Validation rules", ("Rule", "Role", "Rows that broke it", "Verdict"), rules, row_classes=failed),
            opened=held < len(validation.rules),
        ),
        intro=f"Data validation {'passed' if validation.passed else 'failed'} in {seconds_text(validation.seconds)}.",
    )


def _rule_chip(passed: bool, severity: str) -> Html:
    return chip("passed", "good") if passed else chip("failed", "bad" if severity == "critical" else "warn")


def model_section(evidence: Evidence) -> Html:
    """Render what the model is, how it was judged, and where everything was computed."""
    intake, mitigation, before, after = evidence.intake, evidence.mitigation, evidence.before, evidence.after
    model = [tag("p", "No intake record.", class_="note")]
    if intake is not None:
        model = [
            facts(
                [
                    ("Candidate", f"{intake.uri} ({intake.resolved})" if intake.resolved else intake.uri),
                    ("Architecture", intake.architecture),
                    ("Parameters", f"{intake.parameters:,}"),
                    ("Decoder layers", str(intake.layers)),
                    ("Hidden size", str(intake.hidden_size)),
                    ("Size", bytes_text(intake.size_bytes)),
                    ("Files", str(len(intake.files))),
                ]
            )
        ]
    evaluation = facts(
        [
            ("Judge", after.judge),
            ("Generation", ", ".join(f"{key} {value}" for key, value in sorted(after.generation.items()))),
            ("Suites", ", ".join(f"{name} {entry.n}" for name, entry in sorted(after.suites.items()))),
            ("Time", f"{seconds_text(before.seconds)} before, {seconds_text(after.seconds)} after"),
        ]
    )
    environments: dict[str, Environment] = {"evaluation before": before.environment}
    if mitigation is not None:
        environments["mitigation"] = mitigation.environment
    environments["evaluation after"] = after.environment
    if evidence.champion is not None:
        environments["evaluation of the champion"] = evidence.champion.environment
    return section(
        "model", "Model and environment", *model, tag("h3", "Evaluation"), evaluation, *_environments(environments)
    )


def _environments(environments: dict[str, Environment]) -> list[Html]:
    """Render each environment once, with the steps that ran in it."""
    steps: dict[str, list[str]] = {}
    seen: dict[str, Environment] = {}
    for step, environment in environments.items():
        key = repr(environment)
        seen[key] = environment
        steps.setdefault(key, []).append(step)
    shown = []
    for key, environment in seen.items():
        where = "Environment" if len(seen) == 1 else f"Environment of {', '.join(steps[key])}"
        pairs = [
            ("beear-gate", ", ".join(filter(None, (environment.code_version, environment.commit)))),
            ("Python", environment.python),
            ("Platform", environment.platform),
            ("Processor", environment.processor),
            ("Devices", ", ".join(environment.devices)),
            ("Image", environment.image or "none"),
            ("Packages", ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))),
        ]
        shown += [tag("h3", where), facts(pairs)]
    return shown


def digest_section(decision: Decision, evidence: Evidence, release: ReleaseRecord | None) -> Html:
    """Render every digest that binds the decision to bytes, and where the model was registered."""
    before, after, mitigation = evidence.before, evidence.after, evidence.mitigation
    validation, intake = evidence.validation, evidence.intake
    pairs: list[tuple[str, str | None]] = [
        ("Model before", decision.before_model_digest),
        ("Model after", decision.model_digest),
        ("Chat template", after.chat_template_digest),
        ("Policy", decision.policy_digest),
        ("Decision", decision.digest),
        *(sorted(decision.provenance.documents.items()) if decision.provenance else ()),
        ("Code that decided", decision.provenance.environment.code_digest if decision.provenance else None),
        ("Packages that decided", decision.provenance.environment.packages_digest if decision.provenance else None),
        *((f"Evidence: {name}", digest) for name, digest in sorted(decision.evidence.items())),
        ("Samples before", before.samples_digest),
        ("Samples after", after.samples_digest),
        ("Anchors", validation.anchors_digest if validation else mitigation.anchors_digest if mitigation else None),
        ("Intake record", intake.digest if intake else None),
    ]
    rows = [[name, tag("span", digest, class_="digest")] for name, digest in pairs if digest]
    registry = None
    if release is not None:
        registry = facts(
            [
                ("Registered model", f"{release.model_name}, version {release.model_version}"),
                ("Alias", release.alias),
                ("Champion before", release.champion_before or "none"),
                ("Champion after", release.champion_after or "none"),
                ("MLflow run", release.mlflow_run_id),
                ("Tracking", release.tracking_uri),
            ]
        )
    return section(
        "digests",
        "Digests",
        table("Digests", ("What", "Digest"), rows),
        tag("h3", "Registry") if registry else None,
        registry,
        intro="The decision holds for exactly these bytes, and can be decided again from them.",
    )
