"""Approve what a gate passed: its candidate becomes champion on somebody's word."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beear_core.config import PromotionConfig, RegistryConfig
from beear_core.errors import ConfigError, EvidenceError
from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy, redecide
from beear_core.progress import stage
from beear_core.records import Approval, Decision, ReleaseRecord
from components.mlflow_store.candidate import Candidate
from components.mlflow_store.champion import Grounds, Version, number_of
from components.mlflow_store.client import RUNS, mlflow_errors, resolve_uri, store_of_run
from components.mlflow_store.registry import TAG_LENGTH, Registry
from components.mlflow_store.tracking import RECORDS_FOLDER, Tracker
from components.passport.folder import DECISION, POLICY_FILE
from components.registry_gate.outcome import leave, samples_of, told_of_move
from components.registry_gate.promotion import Registered, check_champion, check_meant
from components.registry_gate.replay import Decided, replayed
from components.registry_gate.waiving import clear, waiver_tags


def approve(
    digest: str,
    registry: RegistryConfig,
    promotion: PromotionConfig,
    *,
    by: str,
    reason: str,
    folder: Path | None = None,
    root: Path = RUNS,
    again: bool = False,
    waivers: Sequence[Any] = (),
    now: datetime | None = None,
) -> ReleaseRecord:
    """Make the version that was registered for a decision champion, on somebody's word; twice is no more than once.

    Args:
        digest: of the decision.
        registry: where; a run's own model and alias are taken where ``folder`` is given.
        promotion: names the candidate's alias.
        by: who approves.
        reason: why.
        folder: of the run, to replay from and to write its report again; by default what MLflow holds is replayed.
        root: where a local store lies, if no MLflow is named and no run is given.
        again: approve although a newer version was promoted since, or this one was rolled back.
        waivers: entries of a file of waivers, for a decision that is a refusal.
        now: when they are looked at, and what is noted; by default the present.

    Raises:
        ConfigError: nobody or no reason is named.
        EvidenceError: no version was registered for that decision, it does not replay, is a refusal without waivers, or the
            registered bytes are not those that were decided on.
        RegistryError: another version is candidate now, the alias would go backwards, or MLflow fails.
    """
    by, reason = by.strip(), reason.strip()
    if not by or not reason:
        raise ConfigError("an approval names who approves and why; give --by NAME and --reason TEXT, neither empty")
    if folder is not None:
        registry, promotion = _settings_of(folder, registry, promotion)
    uri = store_of_run(registry.tracking_uri, folder) if folder else resolve_uri(registry.tracking_uri, root)
    shelf = Registry(uri, registry)
    version = shelf.find(digest)
    if version is None:
        raise EvidenceError(
            f"no version of {registry.model_name} was registered for the decision {digest}; nothing was changed. Give the "
            "digest as the gate printed it, and the model's name"
        )
    decision, evidence = _decided(shelf, version, folder)
    before = shelf.alias.champion()
    settled = Registered(shelf, version, before, decision, version.tags, version.run_id, promotion)
    earlier = _approval_of(version)
    if number_of(before) == version.number and (decision.passed or earlier):
        return replace(replace(settled, approval=earlier).record(before), promoted=True)
    now = now or datetime.now(UTC)
    needed = clear(decision, waivers, now)
    check_champion(decision, evidence, before, registry)
    candidate = Candidate(shelf.alias, promotion.candidate_alias)
    candidate.check(version, waived=bool(needed))
    with stage("verify the registered model"):
        shelf.make_sure(version, decision)
    approval = Approval(by=by, reason=reason, at=now.astimezone(UTC).isoformat(timespec="seconds"))
    tags = {**waiver_tags(needed), **_approval_tags(approval)}
    with stage("promote"):
        shelf.alias.move_to(
            version,
            before,
            reason if again else "",
            Grounds("approval", by, reason, tags, needed),
            still=lambda: candidate.check(version, waived=bool(needed)),
        )
    settled = replace(settled, tags={**version.tags, **tags}, waivers=needed, approval=approval)
    release = settled.record(shelf.alias.champion())
    with told_of_move(release):
        _leave(Tracker(shelf.client, version.run_id, uri), folder, decision, evidence, release)
    return release


def _settings_of(
    folder: Path, registry: RegistryConfig, promotion: PromotionConfig
) -> tuple[RegistryConfig, PromotionConfig]:
    """Take model and aliases from the record of the run."""
    release = ReleaseRecord.read(folder / "release.json")
    return (
        replace(registry, model_name=release.model_name, alias=release.alias),
        replace(promotion, candidate_alias=release.candidate_alias or promotion.candidate_alias),
    )


def _decided(shelf: Registry, version: Version, folder: Path | None) -> tuple[Decision, Evidence]:
    """Decide again what the version was registered for, from the run's folder or from what MLflow holds."""
    made = replayed(folder) if folder else _logged(shelf, version)
    noted = version.tags.get("decision_digest")
    if made.decision.digest != noted:
        raise EvidenceError(
            f"version {version.number} of {shelf.name} was registered for the decision {noted}, the one in "
            f"{folder or 'its MLflow run'} is {made.decision.digest}; nothing was changed. Give the run of that decision"
        )
    check_meant(made.policy, made.evidence)
    return made.decision, made.evidence


def _logged(shelf: Registry, version: Version) -> Decided:
    """Decide again from the records and the policy that the gate logged; the documents lie with the registered model."""
    with mlflow_errors("looking for the decision", shelf.uri):
        listed = shelf.client.list_artifacts(version.run_id, RECORDS_FOLDER) if version.run_id else []
    if f"{RECORDS_FOLDER}/{POLICY_FILE}" not in {found.path for found in listed}:
        raise EvidenceError(
            f"the MLflow run of version {version.number} of {shelf.name} ({version.run_id or 'none'}) holds no decision "
            "with its policy, so nothing can be replayed; give the run's folder instead of --model-name"
        )
    with tempfile.TemporaryDirectory(prefix="beear-approve-") as place:
        with mlflow_errors("reading the decision back", shelf.uri):
            records = Path(shelf.client.download_artifacts(version.run_id, RECORDS_FOLDER, place))
        policy, evidence = GatePolicy.load(str(records / POLICY_FILE)), Evidence.read(records)
        decision = redecide(Decision.read(records / DECISION, as_written=True), policy, evidence)
        return Decided(decision, policy, evidence, {})


def _approval_tags(approval: Approval) -> dict[str, str]:
    return {
        "approved_by": approval.by[:TAG_LENGTH],
        "approved_reason": approval.reason[:TAG_LENGTH],
        "approved_at": approval.at,
    }


def _approval_of(version: Version) -> Approval | None:
    """Read who approved a version, ``None`` where it became champion without that."""
    by, reason, at = (version.tags.get(f"approved_{name}", "") for name in ("by", "reason", "at"))
    return Approval(by=by, reason=reason, at=at) if by else None


def _leave(tracker: Tracker, folder: Path | None, decision: Decision, evidence: Evidence, release: ReleaseRecord) -> None:
    """Write record and report again; without the run's folder there are no replies, and the report stays as it was."""
    if folder is not None:
        leave(tracker, folder, decision, evidence, release, samples_of(folder, evidence))
        return
    with mlflow_errors("logging the release", tracker.uri):
        tracker.log_record(release, "release")
