"""Decide on the evidence, register the model with the verdict, and move the alias only on a pass."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from beear_core.config import RegistryConfig, parse_json
from beear_core.errors import EvidenceError, RegistryError, StorageError
from beear_core.evidence import CHAMPION, Evidence
from beear_core.files import digest_file, write_atomically
from beear_core.models.folder import directory_digest
from beear_core.policy import GatePolicy, decide, find_policy
from beear_core.records import Decision, EvaluationRecord, ReleaseRecord
from beear_core.report import read_pairs, render
from components.mlflow_store.client import mlflow_errors, required_uri
from components.mlflow_store.registry import Registry
from components.mlflow_store.tracking import Tracker, attach
from components.registry_gate.promotion import POLICY_FILE, check_meant, register, version_tags


def run(
    model_dir: Path,
    evidence: Mapping[str, Path],
    *,
    policy: str,
    registry: RegistryConfig,
    out: Path,
    before_samples: Path | None = None,
    after_samples: Path | None = None,
    mlflow_run_id: str = "",
    kfp_run_id: str = "",
) -> tuple[Decision, ReleaseRecord]:
    """Decide, register, promote or not, and write the report.

    Args:
        model_dir: the model that ``evidence["after"]`` was measured on.
        evidence: files of the records ``intake``, ``validation``, ``before``, ``after``, ``mitigation``.
        policy: a shipped policy's name, a file, or the text of one.
        registry: where, and under which name and alias, to register.
        out: decision.json, policy.yaml, evidence/, release.json and report.html are left here.
        before_samples, after_samples: replies for the report, which redacts them.
        mlflow_run_id: the run to log to; empty: MLFLOW_RUN_ID, else a new one.
        kfp_run_id: noted in the tags.

    Raises:
        ConfigError: no MLflow is named; before anything else.
        PolicyError: the policy cannot be read, or cannot pass or cannot fail on what was measured.
        EvidenceError: a record is not valid, or model, intake or samples are not those that were measured; the policy
            compares with the champion, and nothing says how that was measured.
        RegistryError: MLflow fails; the alias is where it was, except where the message says that it did move. Decision
            and evidence are there, to run again or to promote later.
    """
    uri = required_uri(registry.tracking_uri)
    rules, policy_text = find_policy(policy)
    records = Evidence.read_files(evidence)
    found = directory_digest(model_dir)
    if found != records.after.model_digest:
        raise EvidenceError(
            f"{model_dir} has the digest {found}, measured was {records.after.model_digest}: these are not the bytes that "
            "the evidence is about. Measure this model, or give the one that was measured"
        )
    _check_belongs(records, before_samples, after_samples)
    check_meant(rules, records)
    records = replace(records, champion=champion_of(rules, uri, registry))
    decision = decide(rules, records)
    for name in ("release.json", "report.html"):
        # what an earlier run left must not pass for the result of this one
        (out / name).unlink(missing_ok=True)
    records.write(out / "evidence")
    write_atomically(out / POLICY_FILE, policy_text.encode())
    decision.write(out / "decision.json")
    with attach(uri, registry.experiment, mlflow_run_id) as tracker:
        _log(tracker, records, decision, kfp_run_id)
        registered = register(tracker, model_dir, decision, records, registry, kfp_run_id)

        def leave(release: ReleaseRecord) -> None:
            release.write(out / "release.json")
            page = render(decision, records, read_pairs(before_samples, after_samples), release)
            write_atomically(out / "report.html", page.encode())
            _log_report(tracker, out, release)

        # all that can be written is written before the alias moves; what moved is noted after
        leave(registered.record(registered.before))
        try:
            release = registered.promote()
        except RegistryError:
            (out / "release.json").unlink(missing_ok=True)
            raise
        if release.champion_after != release.champion_before:
            try:
                leave(release)
            except (RegistryError, StorageError) as error:
                raise type(error)(
                    f"{release.alias} of {release.model_name} did move, to version {release.champion_after}; only the "
                    f"record of that is not everywhere: {error}"
                ) from error
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
        if found != record.samples_digest:
            raise EvidenceError(
                f"the {record.label} samples in {path} have the digest {found}, measured were {record.samples_digest}; "
                "give the file that the evaluation wrote"
            )


def champion_of(policy: GatePolicy, uri: str, registry: RegistryConfig) -> EvaluationRecord | None:
    """Read how the champion was measured when it was released, where the policy compares with it and there is one."""
    if not any(check.versus == CHAMPION for check in policy.checks):
        return None
    shelf = Registry(uri, registry)
    champion = shelf.alias.champion()
    return shelf.evaluation(champion) if champion else None


def _log(tracker: Tracker, evidence: Evidence, decision: Decision, kfp_run_id: str) -> None:
    with mlflow_errors("logging measurements", tracker.uri):
        settings = {"mitigation": evidence.mitigation.config} if evidence.mitigation else {}
        tracker.log_config({**settings, "evaluation": evidence.after.generation})
        tracker.log_tags(version_tags(decision, evidence, kfp_run_id))
        tracker.log_environment(evidence.after.environment)
        if evidence.mitigation:
            tracker.log_mitigation(evidence.mitigation)
        tracker.log_evaluation(evidence.before)
        tracker.log_evaluation(evidence.after)
        for name, record in evidence.named().items():
            tracker.log_record(record, name)
        tracker.log_record(decision, "decision")


def _log_report(tracker: Tracker, out: Path, release: ReleaseRecord) -> None:
    with mlflow_errors("logging the report", tracker.uri):
        tracker.log_file(out / "report.html")
        tracker.log_record(release, "release")


def run_component(
    *,
    model: str,
    evidence: Mapping[str, str],
    before_samples: str,
    after_samples: str,
    policy: str,
    registry_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
    decision: str,
    report: str,
) -> tuple[str, dict[str, float]]:
    """Run the step as its Kubeflow face calls it; returns the verdict and the figures to show in the run."""
    out = Path(decision)
    result, release = run(
        Path(model),
        {name: Path(path) for name, path in evidence.items()},
        policy=policy,
        registry=parse_json(RegistryConfig, registry_json, "registry configuration"),
        out=out,
        before_samples=Path(before_samples),
        after_samples=Path(after_samples),
        mlflow_run_id=mlflow_run_id,
        kfp_run_id=kfp_run_id,
    )
    Path(report).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / "report.html", report)
    figures = {
        "passed": float(result.passed),
        "promoted": float(release.promoted),
        "checks": float(len(result.checks)),
        "failed_checks": float(len(result.failed_checks())),
    }
    return ("promoted" if release.promoted else "refused"), figures
