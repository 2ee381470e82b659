"""What became of pipeline runs, as the registry says: Kubeflow keeps no output of a run's steps where it can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from beear_core.config import PromotionConfig, RegistryConfig
from components.mlflow_store.champion import Alias, Version, number_of, version_of
from components.mlflow_store.client import check_reachable, client_for, mlflow_errors

PROMOTED, AWAITING, REFUSED, ROLLED_BACK = "promoted", "awaiting approval", "refused", "rolled back"
NOT_PROMOTED = "passed, not promoted"
UNCLEAR = "two versions that differ"


def fates(uri: str, registry: RegistryConfig, promotion: PromotionConfig) -> dict[str, str]:
    """Tell what became of every pipeline run that registered a version of a model.

    Args:
        uri: of MLflow.
        registry: names the model and the champion's alias.
        promotion: names the candidate's alias.

    Returns:
        Kubeflow's id of the run -> one of the words above. ``promoted``: it is champion, or was until another replaced it.

    Raises:
        RegistryError: MLflow fails.
    """
    check_reachable(uri)
    client = client_for(uri)
    with mlflow_errors("looking for the versions of pipeline runs", uri):
        found = [version_of(x) for x in client.search_model_versions(f"name='{registry.model_name}'")]
    champion = Alias(client, uri, registry).champion()
    candidate = Alias(client, uri, replace(registry, alias=promotion.candidate_alias)).champion()
    led = set(_line(champion, {version.number: version for version in found}))
    told: dict[str, str] = {}
    for version in found:
        run, fate = version.tags.get("kfp_run_id", "none"), _fate(version, led, candidate)
        # a step that was tried again may have decided again
        told[run] = fate if told.get(run, fate) == fate else UNCLEAR
    told.pop("none", None)
    return told


def _fate(version: Version, led: set[str], candidate: Version | None) -> str:
    # a promotion that was cut off leaves its tags too, so that only the alias and what it came along count
    if version.number in led:
        return PROMOTED
    if version.tags.get("rolled_back") == "true":
        return ROLLED_BACK
    if version.tags.get("verdict") == "refused":
        return REFUSED
    return AWAITING if number_of(candidate) == version.number else NOT_PROMOTED


def _line(champion: Version | None, versions: Mapping[str, Version]) -> Iterator[str]:
    """Walk from the champion back along what each one replaced."""
    seen: set[str] = set()
    while champion is not None and champion.number not in seen:
        seen.add(champion.number)
        yield champion.number
        champion = versions.get(champion.tags.get("replaced_version", "none"))
