"""What follows from a decision: the version's tags, registration, promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from beear_core.config import PromotionConfig, RegistryConfig
from beear_core.errors import EvidenceError, PolicyError
from beear_core.evidence import CHAMPION, Evidence
from beear_core.files import disk_errors
from beear_core.models.folder import list_files
from beear_core.policy import GatePolicy, feasibility_faults, sizes
from beear_core.progress import stage
from beear_core.records import Approval, CheckResult, Decision, ReleaseRecord, Waiver
from beear_core.uris import without_secrets
from components.mlflow_store.candidate import Candidate
from components.mlflow_store.champion import Grounds, Version, number_of
from components.mlflow_store.client import store_of_run
from components.mlflow_store.registry import Registry
from components.mlflow_store.tracking import Tracker, attach, key_part
from components.passport import folder
from components.passport.signature import check_signing
from components.registry_gate.champion import check_same_champion
from components.registry_gate.outcome import leave, samples_of, told_of_move
from components.registry_gate.replay import Decided, replayed
from components.registry_gate.waiving import clear, waiver_tags


def version_tags(decision: Decision, evidence: Evidence) -> dict[str, str]:
    """Describe a registered version in tags: verdict, digests, policy, code, runs, and which checks failed and why."""
    failed, data, mitigation = decision.failed_checks(), evidence.validation, evidence.mitigation
    bound = decision.provenance
    return {
        "verdict": "passed" if decision.passed else "refused",
        "summary": decision.summary,
        "decision_digest": decision.digest,
        "model_digest": decision.model_digest,
        "before_model_digest": decision.before_model_digest,
        "data_digest": f"{data.anchors_digest} {data.suites_digest}" if data else "none",
        "policy": decision.policy,
        "policy_digest": decision.policy_digest,
        "code_version": evidence.after.environment.code_version,
        "kfp_run_id": (bound.kfp_run_id if bound else "") or "none",
        "mitigation": (mitigation.ending or mitigation.outcome) if mitigation else "none",
        **({"failed_checks": ", ".join(_label(c) for c in failed)} if failed else {}),
        **{f"failed.{key_part(_label(c))}": c.reason for c in failed},
    }


def _label(check: CheckResult) -> str:
    return check.check if check.category is None else f"{check.check} {check.category}"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version with its verdict, before the alias moves.

    ``before``: the champion when the gate looked. ``waivers``: what a refused one may be promoted by; ``approval``: on
    whose word it becomes champion.
    """

    shelf: Registry
    version: Version
    before: Version | None
    decision: Decision
    tags: Mapping[str, str]
    run_id: str
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    waivers: tuple[Waiver, ...] = ()
    approval: Approval | None = None

    def promote(self, again: str = "") -> ReleaseRecord:
        """Move the alias on a pass, or the candidate's where approval is required, and tell where they are then.

        Args:
            again: see ``Alias.move_to``.
        """
        waiting = None
        if self._may_pass and self.promotion.require_approval:
            candidate = Candidate(self.shelf.alias, self.promotion.candidate_alias)
            with stage("make it candidate"):
                candidate.nominate(self.version, again)
            waiting = candidate.current()
        elif self._may_pass:
            grounds = Grounds(reason=again, tags=waiver_tags(self.waivers), waivers=self.waivers)
            with stage("promote"):
                self.shelf.alias.move_to(self.version, self.before, again, grounds)
        return self.record(self.shelf.alias.champion(), waiting)

    @property
    def _may_pass(self) -> bool:
        return self.decision.passed or bool(self.waivers)

    def record(self, after: Version | None, waiting: Version | None = None) -> ReleaseRecord:
        """Say what became of it; a version that somebody else made champion was not promoted."""
        promoted = self._may_pass and number_of(after) == self.version.number
        return ReleaseRecord(
            promoted=promoted,
            awaiting_approval=not promoted and number_of(waiting) == self.version.number,
            candidate_alias=self.promotion.candidate_alias if self.promotion.require_approval else "",
            approval=self.approval,
            waivers=self.waivers,
            decision_digest=self.decision.digest,
            model_name=self.shelf.name,
            model_version=self.version.number,
            alias=self.shelf.alias.alias,
            champion_before=number_of(self.before),
            champion_after=number_of(after),
            mlflow_run_id=self.run_id,
            tracking_uri=without_secrets(self.shelf.uri),
            tags=dict(self.tags),
        )


def register(
    tracker: Tracker,
    model_dir: Path,
    made: Decided,
    registry: RegistryConfig,
    work: Path,
    promotion: PromotionConfig | None = None,
    waivers: tuple[Waiver, ...] = (),
) -> Registered:
    """Register with the verdict, once for each decision; on a pass, or with waivers, verify all that was registered.

    Args:
        tracker: the run.
        model_dir: what was decided on.
        made: the decision, with what it rests on.
        registry: where.
        work: a folder for a copy of the model, for as long as it takes; on the model's disk its files are linked.
        promotion: whether it only becomes candidate.
        waivers: what a refusal is promoted by.

    Raises:
        EvidenceError: what is registered is not what was decided on.
        RegistryError: MLflow fails, or another champion is there than was compared with.
        StorageError: no room to lay model and documents together.
    """
    decision = made.decision
    shelf = Registry(tracker.uri, registry)
    before = shelf.alias.champion()
    may_pass = decision.passed or bool(waivers)
    if may_pass:
        check_champion(decision, made.evidence, before, registry)
    tags = version_tags(decision, made.evidence)
    with stage("register the model in MLflow"):
        version = shelf.find(decision.digest)
        if version is None:
            with (
                disk_errors("lay the model and its papers together"),
                TemporaryDirectory(prefix=".released-", dir=work) as place,
            ):
                folder.assemble(model_dir, decision, made.documents, Path(place), registry.signing)
                version = shelf.register(tracker, Path(place), tags, made.evidence.after.environment)
    if may_pass:
        with stage("verify the registered model"):
            shelf.make_sure(version, decision)
    return Registered(shelf, version, before, decision, tags, tracker.run_id, promotion or PromotionConfig(), waivers)


def check_champion(decision: Decision, evidence: Evidence, now: Version | None, registry: RegistryConfig) -> None:
    """Refuse a decision that was made against another champion than the present one: it holds against that one alone.

    Raises:
        RegistryError: as described.
    """
    if not any(f"− {CHAMPION}" in check.comparison for check in decision.checks):
        return
    check_same_champion(evidence, now, registry)


def check_meant(policy: GatePolicy, evidence: Evidence) -> None:
    """Refuse a policy that cannot pass or cannot fail: one that cannot fail would promote anything.

    The pre-flight looked at it too, but that is nothing to rely on here.
    """
    if faults := feasibility_faults(policy, sizes(evidence.after)):
        raise PolicyError(f"policy {policy.name} cannot be meant with what was measured; nothing was decided:", faults)


def promote(
    out: Path,
    model_dir: Path,
    registry: RegistryConfig,
    again: str = "",
    promotion: PromotionConfig | None = None,
    waivers: Sequence[Any] = (),
    now: datetime | None = None,
) -> ReleaseRecord:
    """Promote what an earlier gate passed: it is replayed, verified against the bytes, and registered once.

    Release record and report in the folder are written again.

    Args:
        out: what the gate left. Where no MLflow is named, the store is the one beside the run, else that of runs/.
        model_dir: the model that was decided on.
        registry: where.
        again: why it is to be champion though a newer version was promoted since, or it was rolled back.
        promotion: whether it only becomes candidate.
        waivers: entries of a file of waivers, for a decision that did not pass.
        now: when they are looked at; by default the present.

    Raises:
        ConfigError: models cannot be signed as configured.
        EvidenceError: the decision does not replay, did not pass and is not waived, or is about another model.
        PolicyError: it was made by a policy that cannot fail.
        RegistryError: MLflow fails or somebody else promoted meanwhile.
    """
    if registry.signing:
        check_signing(registry.signing)
    made = replayed(out)
    needed = clear(made.decision, waivers, now)
    check_meant(made.policy, made.evidence)
    _check_bound(made.decision, model_dir, registry.model_name)
    uri = store_of_run(registry.tracking_uri, out)
    with attach(uri, registry.experiment) as tracker:
        release = register(tracker, model_dir, made, registry, out, promotion, needed).promote(again)
        with told_of_move(release):
            leave(tracker, out, made.decision, made.evidence, release, samples_of(out, made.evidence))
        return release


def _check_bound(decision: Decision, model_dir: Path, name: str) -> None:
    """Make sure that a decision is about these bytes and this registered model."""
    if decision.provenance is None:
        raise EvidenceError("the decision is of schema 1 and names no files; run the gate again for one that does")
    if name != decision.provenance.model_name:
        raise EvidenceError(
            f"the decision is about the registered model {decision.provenance.model_name}, not {name}; give that name"
        )
    wanted = {entry.path: entry.digest for entry in decision.provenance.files}
    if faults := folder.differences(wanted, {entry.path: entry.digest for entry in list_files(model_dir)}):
        raise EvidenceError(f"{model_dir} is not the model that was decided on ({faults}); give that model")
