"""The champion as evidence: how it was measured, and that it is the one of now."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from beear_core.config import RegistryConfig
from beear_core.errors import EvidenceError, RegistryError
from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy, measured_otherwise
from beear_core.records import ChampionRecord, EvaluationRecord
from components.mlflow_store.champion import Version
from components.mlflow_store.registry import Registry

_REMEDY = (
    "measure it with 'beear champion', by the same policy, suites and configuration as the model, and give what that "
    "writes with --champion"
)


def with_champion(
    policy: GatePolicy, evidence: Evidence, given: Path | None, uri: str, registry: RegistryConfig
) -> Evidence:
    """Add how the champion was measured, where the policy compares with it and the registry says that there is one.

    Args:
        policy: where no check of it compares with the champion, the registry is not asked and ``given`` not read.
        evidence: of the model.
        given: a file of champion_eval, or of ``beear evaluate --label champion``; ``None``: what the champion was released
            on is taken, if it was measured as the model was.
        uri: of MLflow.
        registry: where the champion is.

    Raises:
        EvidenceError: what was given is no such file, or nothing tells how the champion was measured.
        RegistryError: what was given is about another champion than the one of now; MLflow fails.
    """
    if not policy.compares_with_champion:
        return evidence
    shelf = Registry(uri, registry)
    now = shelf.alias.champion()
    found = _read(given, registry) if given else _stored(shelf, now, evidence.after, registry)
    evidence = replace(evidence, champion=found.evaluation, champion_eval=replace(found, evaluation=None))
    check_same_champion(evidence, now, registry)
    if found.version is None and now is not None:
        # an evaluation by itself does not say of which version; by its bytes it is this one's
        evidence = replace(evidence, champion_eval=replace(found, evaluation=None, version=now.number))
    return evidence


def _read(given: Path, registry: RegistryConfig) -> ChampionRecord:
    kind = None
    with suppress(OSError, ValueError, AttributeError):  # told by the record's own reader below
        kind = json.loads(given.read_bytes()).get("kind")
    if kind == "evaluation":
        evaluation = EvaluationRecord.read(given)
        return ChampionRecord(
            state="measured",
            model_name=registry.model_name,
            alias=registry.alias,
            model_digest=evaluation.model_digest,
            reasons=("the gate was given an evaluation made by hand",),
            evaluation=evaluation,
        )
    found = ChampionRecord.read(given)
    if (found.model_name, found.alias) != (registry.model_name, registry.alias):
        raise EvidenceError(
            f"{given} is about the {found.alias} of {found.model_name}, the model is to become the {registry.alias} of "
            f"{registry.model_name}; {_REMEDY}"
        )
    if found.state == "not compared":
        raise EvidenceError(
            f"{given} was made by a policy that does not compare with the champion, this one does; {_REMEDY}"
        )
    return found


def _stored(shelf: Registry, champion: Version | None, after: EvaluationRecord, registry: RegistryConfig) -> ChampionRecord:
    if champion is None:
        return ChampionRecord(state="none", model_name=shelf.name, alias=registry.alias)
    try:
        stored = shelf.evaluation(champion)
    except EvidenceError as error:
        raise EvidenceError(f"the policy compares with the {registry.alias}, and {error}; {_REMEDY}") from error
    if faults := measured_otherwise(stored, after):
        raise EvidenceError(
            f"the policy compares with the {registry.alias}, and version {champion.number} of {shelf.name} was measured "
            f"otherwise than the model: {'; '.join(faults)}; {_REMEDY}"
        )
    return ChampionRecord(
        state="stored",
        model_name=shelf.name,
        alias=registry.alias,
        version=champion.number,
        model_digest=stored.model_digest,
        evaluation=stored,
    )


def check_same_champion(evidence: Evidence, now: Version | None, registry: RegistryConfig) -> None:
    """Refuse evidence about another champion than the present one: what it decides holds against that one alone.

    Raises:
        RegistryError: naming both.
    """
    compared = evidence.champion.model_digest if evidence.champion else None
    if compared is None and now is None:
        return
    if compared is not None and now is not None and _is(now, evidence, compared):
        return
    raise RegistryError(
        f"{registry.alias} of {registry.model_name} is {f'version {now.number}' if now else 'no version'} now, and the "
        f"evidence is about {compared or 'none, because there was none'}; nothing was registered. Run the gate again, with "
        "the champion of now"
    )


def _is(now: Version, evidence: Evidence, compared: str) -> bool:
    """Tell by the bytes whether the champion of now was measured; of one registered by hand only its number is known."""
    if registered := now.tags.get("model_digest"):
        return registered == compared
    looked_up = evidence.champion_eval
    return looked_up is not None and (looked_up.version, looked_up.model_digest) == (now.number, compared)
