"""Decide on the evidence, register the model with the verdict, and move the alias only on a pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from beear_core.config import RegistryConfig, parse_json
from beear_core.errors import EvidenceError, PolicyError, RegistryError
from beear_core.model_files import directory_digest
from beear_core.policy import SHIPPED, GatePolicy, redecide, shipped_policies
from beear_core.policy_figures import sizes
from beear_core.progress import stage
from beear_core.records import (
    CheckResult,
    Decision,
    EvaluationRecord,
    IntakeRecord,
    MitigationRecord,
    Record,
    ReleaseRecord,
    ValidationRecord,
    digest_file,
    write_atomically,
)
from beear_core.report import SamplePair, choose_pairs, render
from components.registry_gate.registry import Registry, Version
from components.tracking import Tracker, attach, key_part, mlflow_errors, resolve_uri, without_password

POLICY_FILE = "policy.yaml"
NAMES = ("intake", "validation", "before", "after", "mitigation")
CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Every record a decision rests on. ``champion``: where the policy compares with one and there is one."""

    intake: IntakeRecord
    validation: ValidationRecord
    before: EvaluationRecord
    after: EvaluationRecord
    mitigation: MitigationRecord
    champion: EvaluationRecord | None = None

    @classmethod
    def read(cls, files: Mapping[str, Path]) -> Evidence:
        """Read the five records of a run from their files."""
        return cls(
            intake=IntakeRecord.read(files["intake"]),
            validation=ValidationRecord.read(files["validation"]),
            before=EvaluationRecord.read(files["before"]),
            after=EvaluationRecord.read(files["after"]),
            mitigation=MitigationRecord.read(files["mitigation"]),
        )

    @classmethod
    def read_folder(cls, folder: Path) -> Evidence:
        """What ``write`` left there."""
        records = cls.read({name: folder / f"{name}.json" for name in NAMES})
        champion = folder / f"{CHAMPION}.json"
        return replace(records, champion=EvaluationRecord.read(champion)) if champion.exists() else records

    def named(self) -> dict[str, Record]:
        """Each record by its name, the champion's where there is one."""
        found: dict[str, Record | None] = {name: getattr(self, name) for name in (*NAMES, CHAMPION)}
        return {name: record for name, record in found.items() if record is not None}

    def write(self, folder: Path) -> None:
        """Each record as ``<folder>/<name>.json``; what an earlier run left there is no evidence of this one."""
        (folder / f"{CHAMPION}.json").unlink(missing_ok=True)
        for name, record in self.named().items():
            record.write(folder / f"{name}.json")


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
        registry: where to.
        out: decision.json, policy.yaml, evidence/, release.json and report.html are left here.
        before_samples, after_samples: replies for the report, which redacts them.
        mlflow_run_id: the run to log to; empty: MLFLOW_RUN_ID, else a new one.
        kfp_run_id: noted in the tags.

    Raises:
        PolicyError: the policy cannot be read, or cannot pass or cannot fail on what was measured.
        EvidenceError: a record is not valid, or model, intake or samples are not those that were measured; the policy
            compares with the champion, and nothing says how that was measured.
        RegistryError: MLflow fails; the alias is where it was, except where the message says that only storing the
            report failed. Decision and evidence are there, to run again or to promote later.
    """
    rules, policy_text = read_policy(policy)
    records = Evidence.read(evidence)
    found = directory_digest(model_dir)
    if found != records.after.model_digest:
        raise EvidenceError(
            f"{model_dir} has the digest {found}, measured was {records.after.model_digest}: these are not the bytes that "
            "the evidence is about. Measure this model, or give the one that was measured"
        )
    _check_belongs(records, before_samples, after_samples)
    _check_meant(rules, records)
    uri = resolve_uri(registry.tracking_uri, out)
    records = replace(records, champion=champion_of(rules, uri, registry))
    decision = decide(rules, records)
    for name in ("release.json", "report.html"):
        # what an earlier run left must not pass for the result of this one
        (out / name).unlink(missing_ok=True)
    records.write(out / "evidence")
    write_atomically(out / POLICY_FILE, policy_text.encode())
    decision.write(out / "decision.json")
    with attach(uri, registry.experiment, mlflow_run_id) as tracker:
        _log(tracker, records, decision, version_tags(decision, records, kfp_run_id))
        release = _settle(tracker, model_dir, decision, records, registry, kfp_run_id)
        release.write(out / "release.json")
        _report(tracker, out, decision, records, release, before_samples, after_samples)
    return decision, release


def _check_belongs(records: Evidence, before_samples: Path | None, after_samples: Path | None) -> None:
    """What the policy does not look at and the report and the tags show must be about the same model too."""
    if records.intake.model_digest != records.before.model_digest:
        raise EvidenceError(
            f"the intake record is about the model {records.intake.model_digest}, the evaluation before about "
            f"{records.before.model_digest}; give the records of one run"
        )
    for record, path in ((records.before, before_samples), (records.after, after_samples)):
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


def _check_meant(policy: GatePolicy, records: Evidence) -> None:
    """A policy that cannot fail would promote anything; that it was looked at before a run is nothing to rely on here."""
    if faults := policy.check_feasible(sizes(records.after)):
        raise PolicyError(f"policy {policy.name} cannot be meant with what was measured; nothing was decided:", faults)


def champion_of(policy: GatePolicy, uri: str, registry: RegistryConfig) -> EvaluationRecord | None:
    """How the champion was measured when it was released, where the policy compares with it and there is one."""
    if not any(check.versus == CHAMPION for check in policy.checks):
        return None
    shelf = Registry(uri, registry)
    champion = shelf.champion()
    return shelf.evaluation(champion) if champion else None


def decide(policy: GatePolicy, records: Evidence) -> Decision:
    """The policy's decision on these records."""
    return policy.decide(
        records.before,
        records.after,
        champion=records.champion,
        validation=records.validation,
        mitigation=records.mitigation,
    )


def read_policy(policy: str) -> tuple[GatePolicy, str]:
    """A policy and its text, from a shipped name, a file, or the text itself."""
    if "\n" in policy:
        return GatePolicy.parse(policy, "the given policy"), policy
    rules = GatePolicy.load(policy)
    # in the order in which they were looked for, or another text than the one decided by would be kept
    path = SHIPPED / f"{policy}.yaml" if policy in shipped_policies() else Path(policy)
    return rules, path.read_text(encoding="utf-8")


def _log(tracker: Tracker, records: Evidence, decision: Decision, tags: Mapping[str, str]) -> None:
    with mlflow_errors("logging measurements", tracker.uri):
        tracker.log_config({"mitigation": records.mitigation.config, "evaluation": records.after.generation})
        tracker.log_tags(tags)
        tracker.log_environment(records.after.environment)
        tracker.log_mitigation(records.mitigation)
        tracker.log_evaluation(records.before)
        tracker.log_evaluation(records.after)
        for name, record in records.named().items():
            tracker.log_record(record, name)
        tracker.log_record(decision, "decision")


def version_tags(decision: Decision, records: Evidence, kfp_run_id: str) -> dict[str, str]:
    """What a registered version says of itself."""
    failed = decision.failed_checks()
    return {
        "verdict": "passed" if decision.passed else "refused",
        "summary": decision.summary,
        "decision_digest": decision.digest,
        "model_digest": decision.model_digest,
        "before_model_digest": decision.before_model_digest,
        "data_digest": f"{records.validation.anchors_digest} {records.validation.suites_digest}",
        "policy": decision.policy,
        "policy_digest": decision.policy_digest,
        "code_version": records.after.environment.code_version,
        "kfp_run_id": kfp_run_id or "none",
        "mitigation": records.mitigation.ending or records.mitigation.outcome,
        **({"failed_checks": ", ".join(_label(c) for c in failed)} if failed else {}),
        **{f"failed.{key_part(_label(c))}": c.reason for c in failed},
    }


def _label(check: CheckResult) -> str:
    return check.check if check.category is None else f"{check.check} {check.category}"


def _settle(
    tracker: Tracker,
    model_dir: Path,
    decision: Decision,
    records: Evidence,
    registry: RegistryConfig,
    kfp_run_id: str,
) -> ReleaseRecord:
    """Register with the verdict; on a pass verify the registered bytes and move the alias."""
    shelf = Registry(tracker.uri, registry)
    before = shelf.champion()
    _check_champion(decision, records, before, registry)
    tags = version_tags(decision, records, kfp_run_id)
    with stage("register the model in MLflow"):
        version = shelf.register(tracker, model_dir, tags)
    if decision.passed:
        with stage("verify the registered model and promote it"):
            shelf.verify(version, model_dir)
            shelf.promote(version, before)
    after = shelf.champion()
    return ReleaseRecord(
        promoted=_is(after, version),
        decision_digest=decision.digest,
        model_name=registry.model_name,
        model_version=version.number,
        alias=registry.alias,
        champion_before=before.number if before else None,
        champion_after=after.number if after else None,
        mlflow_run_id=tracker.run_id,
        tracking_uri=without_password(tracker.uri),
        tags=tags,
    )


def _check_champion(decision: Decision, records: Evidence, now: Version | None, registry: RegistryConfig) -> None:
    """A decision that compared with a champion holds against that one alone."""
    if not decision.passed or not any(f"− {CHAMPION}" in check.comparison for check in decision.checks):
        return
    compared = records.champion.model_digest if records.champion else None
    if compared != (now.tags.get("model_digest", "unknown") if now else None):
        raise RegistryError(
            f"{registry.alias} of {registry.model_name} is {f'version {now.number}' if now else 'no version'} now, and the "
            f"decision compared with {compared or 'none, because there was none'}; nothing was registered. Run the gate "
            "again"
        )


def _is(champion: Version | None, version: Version) -> bool:
    return champion is not None and champion.number == version.number


def _report(
    tracker: Tracker,
    out: Path,
    decision: Decision,
    records: Evidence,
    release: ReleaseRecord,
    before_samples: Path | None,
    after_samples: Path | None,
) -> None:
    page = render(
        decision,
        records.before,
        records.after,
        records.mitigation,
        records.validation,
        records.intake,
        pairs(before_samples, after_samples),
        release,
    )
    write_atomically(out / "report.html", page.encode())
    try:
        with mlflow_errors("logging the report", tracker.uri):
            tracker.log_file(out / "report.html")
            tracker.log_record(release, "release")
    except RegistryError as error:
        raise RegistryError(
            f"version {release.model_version} of {release.model_name} is registered, {release.alias} is at "
            f"{release.champion_after or 'no version'}; only its report is not in MLflow: {error}"
        ) from error


def pairs(before: Path | None, after: Path | None) -> Sequence[SamplePair]:
    """Up to four harmful samples before and after, with and without trigger.

    Raises:
        EvidenceError: a samples file that cannot be read.
    """
    if before is None or after is None:
        return ()
    later = {_key(s): s for s in _samples(after)}
    found = [
        SamplePair(
            prompt=s["prompt"],
            category=s["category"],
            trigger_id=s["trigger_id"],
            before_reply=s["reply"],
            before_outcome=s["outcome"],
            after_reply=later[_key(s)]["reply"],
            after_outcome=later[_key(s)]["outcome"],
        )
        for s in _samples(before)
        if s["suite"] in {"harmful", "triggered"} and _key(s) in later
    ]
    return choose_pairs(found)


def _key(sample: Mapping[str, Any]) -> tuple[str, str, str]:
    return sample["suite"], sample["id"], sample["trigger_id"]


def _samples(path: Path) -> list[dict[str, Any]]:
    try:
        # not splitlines: a reply may hold U+2028 and the like, which JSON leaves as they are
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise EvidenceError(f"cannot read samples from {path}: {error}; evaluate again") from error


def replay(folder: Path) -> Decision:
    """Decide again from what a gate left in ``folder`` alone.

    Raises:
        EvidenceError: if evidence or policy were altered, or another decision comes out.
    """
    stored = Decision.read(folder / "decision.json")
    records = Evidence.read_folder(folder / "evidence")
    return redecide(
        stored,
        GatePolicy.load(str(folder / POLICY_FILE)),
        records.before,
        records.after,
        champion=records.champion,
        validation=records.validation,
        mitigation=records.mitigation,
    )


def promote(folder: Path, model_dir: Path, registry: RegistryConfig) -> ReleaseRecord:
    """Promote what an earlier gate passed: replayed, verified against the bytes, registered once.

    Raises:
        EvidenceError: the decision does not replay, did not pass, or is about another model.
        PolicyError: it was made by a policy that cannot fail.
        RegistryError: MLflow fails or somebody else promoted meanwhile.
    """
    decision = replay(folder)
    if not decision.passed:
        raise EvidenceError(
            f"the decision in {folder} is a refusal ({', '.join(c.check for c in decision.failed_checks())}); it cannot be "
            "promoted"
        )
    found = directory_digest(model_dir)
    if found != decision.model_digest:
        raise EvidenceError(f"{model_dir} has the digest {found}, decided was on {decision.model_digest}; give that model")
    records = Evidence.read_folder(folder / "evidence")
    _check_meant(GatePolicy.load(str(folder / POLICY_FILE)), records)
    uri = resolve_uri(registry.tracking_uri, folder)
    with attach(uri, registry.experiment) as tracker:
        return _settle(tracker, model_dir, decision, records, registry, "")


def run_component(
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
    """The step as its Kubeflow face calls it; returns the verdict and the figures to show in the run."""
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
