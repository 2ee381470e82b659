"""What follows from a decision: the version's tags, registration, promotion, replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beear_core.config import RegistryConfig
from beear_core.errors import EvidenceError, PolicyError, RegistryError
from beear_core.evidence import CHAMPION, Evidence
from beear_core.models.folder import directory_digest
from beear_core.policy import GatePolicy, feasibility_faults, redecide, sizes
from beear_core.progress import stage
from beear_core.records import CheckResult, Decision, ReleaseRecord
from beear_core.uris import without_secrets
from components.mlflow_store.champion import Version, number_of
from components.mlflow_store.client import store_of_run
from components.mlflow_store.registry import Registry
from components.mlflow_store.tracking import Tracker, attach, key_part

POLICY_FILE = "policy.yaml"


def version_tags(decision: Decision, evidence: Evidence, kfp_run_id: str) -> dict[str, str]:
    """Describe a registered version in tags: verdict, digests, policy, code, runs, and which checks failed and why."""
    failed, data, mitigation = decision.failed_checks(), evidence.validation, evidence.mitigation
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
        "kfp_run_id": kfp_run_id or "none",
        "mitigation": (mitigation.ending or mitigation.outcome) if mitigation else "none",
        **({"failed_checks": ", ".join(_label(c) for c in failed)} if failed else {}),
        **{f"failed.{key_part(_label(c))}": c.reason for c in failed},
    }


def _label(check: CheckResult) -> str:
    return check.check if check.category is None else f"{check.check} {check.category}"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version with its verdict, before the alias moves. ``before``: the champion when the gate looked."""

    shelf: Registry
    version: Version
    before: Version | None
    decision: Decision
    tags: Mapping[str, str]
    run_id: str

    def promote(self, again: str = "") -> ReleaseRecord:
        """Move the alias on a pass, and tell where it is then; ``again``: see ``Alias.move_to``."""
        if self.decision.passed:
            with stage("promote"):
                self.shelf.alias.move_to(self.version, self.before, again)
        return self.record(self.shelf.alias.champion())

    def record(self, after: Version | None) -> ReleaseRecord:
        """Say what became of it; a version that somebody else made champion was not promoted."""
        return ReleaseRecord(
            promoted=self.decision.passed and number_of(after) == self.version.number,
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
    decision: Decision,
    evidence: Evidence,
    registry: RegistryConfig,
    kfp_run_id: str,
) -> Registered:
    """Register with the verdict, once for each decision; on a pass verify the registered bytes."""
    shelf = Registry(tracker.uri, registry)
    before = shelf.alias.champion()
    _check_champion(decision, evidence, before, registry)
    tags = version_tags(decision, evidence, kfp_run_id)
    with stage("register the model in MLflow"):
        version = shelf.register(tracker, model_dir, tags)
    if decision.passed:
        with stage("verify the registered model"):
            shelf.verify(version, decision.model_digest, model_dir)
    return Registered(shelf, version, before, decision, tags, tracker.run_id)


def _check_champion(decision: Decision, evidence: Evidence, now: Version | None, registry: RegistryConfig) -> None:
    """Refuse a pass that was decided against another champion than the present one: it holds against that one alone."""
    if not decision.passed or not any(f"− {CHAMPION}" in check.comparison for check in decision.checks):
        return
    compared = evidence.champion.model_digest if evidence.champion else None
    if compared != (now.tags.get("model_digest", "unknown") if now else None):
        raise RegistryError(
            f"{registry.alias} of {registry.model_name} is {f'version {now.number}' if now else 'no version'} now, and the "
            f"decision compared with {compared or 'none, because there was none'}; nothing was registered. Run the gate "
            "again"
        )


def check_meant(policy: GatePolicy, evidence: Evidence) -> None:
    """Refuse a policy that cannot pass or cannot fail: one that cannot fail would promote anything.

    The pre-flight looked at it too, but that is nothing to rely on here.
    """
    if faults := feasibility_faults(policy, sizes(evidence.after)):
        raise PolicyError(f"policy {policy.name} cannot be meant with what was measured; nothing was decided:", faults)


def replay(folder: Path) -> Decision:
    """Decide again from what a gate left in ``folder`` alone.

    Raises:
        EvidenceError: if evidence or policy were altered, or another decision comes out.
    """
    return _replayed(folder)[0]


def _replayed(folder: Path) -> tuple[Decision, GatePolicy, Evidence]:
    """Decide again, and give what was decided by and on."""
    policy, evidence = GatePolicy.load(str(folder / POLICY_FILE)), Evidence.read(folder / "evidence")
    return redecide(Decision.read(folder / "decision.json"), policy, evidence), policy, evidence


def promote(folder: Path, model_dir: Path, registry: RegistryConfig, again: str = "") -> ReleaseRecord:
    """Promote what an earlier gate passed: it is replayed, verified against the bytes, and registered once.

    Args:
        folder: what the gate left. Where no MLflow is named, the store is the one beside the run, else that of runs/.
        model_dir: the model that was decided on.
        registry: where.
        again: why it is to be champion though a newer version was promoted since, or it was rolled back.

    Raises:
        EvidenceError: the decision does not replay, did not pass, or is about another model.
        PolicyError: it was made by a policy that cannot fail.
        RegistryError: MLflow fails or somebody else promoted meanwhile.
    """
    decision, policy, evidence = _replayed(folder)
    if not decision.passed:
        raise EvidenceError(
            f"the decision in {folder} is a refusal ({', '.join(c.check for c in decision.failed_checks())}); it cannot be "
            "promoted"
        )
    found = directory_digest(model_dir)
    if found != decision.model_digest:
        raise EvidenceError(f"{model_dir} has the digest {found}, decided was on {decision.model_digest}; give that model")
    check_meant(policy, evidence)
    uri = store_of_run(registry.tracking_uri, folder)
    with attach(uri, registry.experiment) as tracker:
        return register(tracker, model_dir, decision, evidence, registry, "").promote(again)
