"""Decide on the evidence, register the model with the verdict, and move the alias only on a pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from beear_core.config import PromotionConfig, RegistryConfig, parse_json
from beear_core.errors import ConfigError, EvidenceError, RegistryError
from beear_core.evidence import Evidence
from beear_core.files import digest_bytes, digest_file, write_atomically
from beear_core.models.folder import digest_entries, list_files
from beear_core.policy import decide, find_policy
from beear_core.records import Decision, Environment, Provenance, ReleaseRecord
from components.mlflow_store.client import mlflow_errors, required_uri
from components.mlflow_store.tracking import RECORDS_FOLDER, Tracker, attach
from components.notifications.tell import tell_decided
from components.passport.folder import DECISION, POLICY_FILE, check_names
from components.passport.signature import check_signing
from components.registry_gate import summary as page
from components.registry_gate.champion import with_champion
from components.registry_gate.outcome import leave, told_of_move
from components.registry_gate.promotion import check_meant, register, version_tags
from components.registry_gate.replay import Decided, documents_of


def run(
    model_dir: Path,
    evidence: Mapping[str, Path],
    *,
    policy: str,
    registry: RegistryConfig,
    out: Path,
    champion: Path | None = None,
    before_samples: Path | None = None,
    after_samples: Path | None = None,
    mlflow_run_id: str = "",
    kfp_run_id: str = "",
    promotion: PromotionConfig | None = None,
) -> tuple[Decision, ReleaseRecord]:
    """Decide, register, promote or not, and write the report.

    Args:
        model_dir: the model that ``evidence["after"]`` was measured on.
        evidence: files of the records ``intake``, ``validation``, ``before``, ``after``, ``mitigation``.
        policy: a shipped policy's name, a file, or the text of one.
        registry: where, and under which name and alias, to register.
        out: decision.json, policy.yaml, evidence/, what goes with the model, release.json and report.html are left here.
        champion: what champion_eval left, for a policy that compares; see ``with_champion``.
        before_samples, after_samples: replies for the report, which redacts them.
        mlflow_run_id: the run to log to; empty: MLFLOW_RUN_ID, else a new one.
        kfp_run_id: noted in the tags.
        promotion: whether a pass promotes, or awaits approval.

    Raises:
        ConfigError: no MLflow is named, models cannot be signed as configured, or candidate and champion would be one
            alias; before anything else.
        PolicyError: the policy cannot be read, or cannot pass or cannot fail on what was measured.
        EvidenceError: a record is not valid, or model, intake or samples are not those that were measured; the policy
            compares with the champion, and nothing says how that was measured.
        RegistryError: MLflow fails; the alias is where it was, except where the message says that it did move. Decision
            and evidence are there, to run again or to promote later.
    """
    uri = required_uri(registry.tracking_uri)
    if registry.signing:
        check_signing(registry.signing)
    if fault := (promotion or PromotionConfig()).fault(registry.alias):
        raise ConfigError(fault)
    rules, policy_text = find_policy(policy)
    records = Evidence.read_files(evidence)
    files = list_files(model_dir)
    found = digest_entries(files)
    if found != records.after.model_digest:
        raise EvidenceError(
            f"{model_dir} has the digest {found}, measured was {records.after.model_digest}: these are not the bytes that "
            "the evidence is about. Measure this model, or give the one that was measured"
        )
    check_names(files, model_dir)
    _check_belongs(records, before_samples, after_samples)
    check_meant(rules, records)
    records = with_champion(rules, records, champion, uri, registry)
    documents = documents_of(rules, records, files, registry.model_name)
    mlflow_run_id = mlflow_run_id or os.environ.get("MLFLOW_RUN_ID", "")
    provenance = Provenance(
        model_name=registry.model_name,
        files=files,
        documents={name: digest_bytes(data) for name, data in documents.items()},
        environment=Environment.here(()),
        kfp_run_id=kfp_run_id,
        mlflow_run_id=mlflow_run_id,
    )
    decision = decide(rules, records, provenance)
    for name in ("release.json", "report.html"):
        # what an earlier run left must not pass for the result of this one
        (out / name).unlink(missing_ok=True)
    records.write(out / "evidence")
    write_atomically(out / POLICY_FILE, policy_text.encode())
    for name, data in documents.items():
        write_atomically(out / name, data)
    decision.write(out / DECISION)
    with attach(uri, registry.experiment, mlflow_run_id) as tracker:
        _log(tracker, records, decision)
        with mlflow_errors("logging the policy", tracker.uri):
            tracker.log_file(out / POLICY_FILE, RECORDS_FOLDER)
        made = Decided(decision, rules, records, documents)
        registered = register(tracker, model_dir, made, registry, out, promotion)
        samples = (before_samples, after_samples)
        # all that can be written is written before the alias moves; what moved is noted after
        first = registered.record(registered.before)
        leave(tracker, out, decision, records, first, samples)
        try:
            release = registered.promote()
        except RegistryError:
            (out / "release.json").unlink(missing_ok=True)
            raise
        if release != first:
            with told_of_move(release):
                leave(tracker, out, decision, records, release, samples)
    tell_decided(release, registry, decision.failed_checks())
    return decision, release


def _check_belongs(evidence: Evidence, before_samples: Path | None, after_samples: Path | None) -> None:
    """Refuse an intake record or samples of another model: the policy does not see them, the report and the tags do."""
    if evidence.intake is not None and evidence.intake.model_digest != evidence.before.model_digest:
        raise EvidenceError(
            f"the intake record is about the model {evidence.intake.model_digest}, the evaluation before about "
            f"{evidence.before.model_digest}; give the records of one run"
        )
    for record, path in ((evidence.before, before_samples), (evidence.after, after_samples)):
        if path is None:
            continue
        try:
            found = digest_file(path)
        except OSError as error:
            raise EvidenceError(f"cannot read samples from {path}: {error.strerror or error}") from error
        if found not in record.samples_digests:
            raise EvidenceError(
                f"the {record.label} samples in {path} have the digest {found}, measured were "
                f"{' or '.join(sorted(record.samples_digests))}; give the file that the evaluation wrote"
            )


def _log(tracker: Tracker, evidence: Evidence, decision: Decision) -> None:
    with mlflow_errors("logging measurements", tracker.uri):
        settings = {"mitigation": evidence.mitigation.config} if evidence.mitigation else {}
        tracker.log_config({**settings, "evaluation": evidence.after.generation})
        tracker.log_tags(version_tags(decision, evidence))
        tracker.log_environment(evidence.after.environment)
        if evidence.mitigation:
            tracker.log_mitigation(evidence.mitigation)
        tracker.log_evaluation(evidence.before)
        tracker.log_evaluation(evidence.after)
        if evidence.champion:
            tracker.log_evaluation(evidence.champion)
        for name, record in evidence.named().items():
            tracker.log_record(record, name)
        tracker.log_record(decision, "decision")


def run_component(
    *,
    model: str,
    evidence: Mapping[str, str],
    before_samples: str,
    after_samples: str,
    champion: str | None,
    policy: str,
    registry_json: str,
    promotion_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
    decision: str,
    report: str,
    summary: str,
) -> tuple[str, dict[str, float]]:
    """Run the step as its Kubeflow face calls it; returns the verdict and the figures to show in the run."""
    out, registry = Path(decision), parse_json(RegistryConfig, registry_json, "registry configuration")
    result, release = run(
        Path(model),
        {name: Path(path) for name, path in evidence.items()},
        policy=policy,
        registry=registry,
        promotion=parse_json(PromotionConfig, promotion_json, "promotion configuration"),
        out=out,
        champion=Path(champion) if champion else None,
        before_samples=Path(before_samples),
        after_samples=Path(after_samples),
        mlflow_run_id=mlflow_run_id,
        kfp_run_id=kfp_run_id,
    )
    Path(report).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / "report.html", report)
    write_atomically(Path(summary), page.summary(result, release).encode())
    figures = {
        "passed": float(result.passed),
        "promoted": float(release.promoted),
        "awaiting_approval": float(release.awaiting_approval),
        "checks": float(len(result.checks)),
        "failed_checks": float(len(result.failed_checks())),
    }
    return release.outcome, figures
