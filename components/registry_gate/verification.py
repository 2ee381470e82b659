"""Whether a released model, in a folder or in the registry, still is what was decided on."""

from __future__ import annotations

from dataclasses import replace

from beear_core.config import RegistryConfig
from beear_core.errors import ConfigError, ModelNotFoundError
from beear_core.records import Verification
from components.mlflow_store.client import RUNS, resolve_uri
from components.mlflow_store.registry import Registry
from components.passport import folder
from components.passport.folder import Inspection
from components.storage import mlflow_models
from components.storage.places import local_path


def verify(place: str, registry: RegistryConfig) -> Verification:
    """Compare a model with the decision that lies in it, its signature, and for a version its tags and what MLflow adds.

    Args:
        place: a folder, or ``models:/name@alias`` or ``models:/name/3``.
        registry: where MLflow is, and by whom models are signed; without the latter a signature is not checked.

    Raises:
        ConfigError: another kind of place; nothing can be verified with these keys.
        EvidenceError: there is no decision, so nothing to compare with.
        ModelNotFoundError: there is no such folder or version.
        RegistryError: MLflow fails.
    """
    version: str | None = None
    try:
        if place.startswith("models:/"):
            name, alias, number = mlflow_models.parse(place)
            named = replace(registry, model_name=name, alias=alias or registry.alias)
            shelf = Registry(resolve_uri(registry.tracking_uri, RUNS), named)
            found = shelf.named(number)
            version = found.number
            return _told(place, version, shelf.inspect(found), any(tag.startswith("waived.") for tag in found.tags))
        path = local_path(place)
        if path is None:
            raise ConfigError(f"{place!r} cannot be verified where it is; name a folder or models:/name@alias")
        if not path.is_dir():
            raise ModelNotFoundError(f"there is no folder {path}; name the folder of a released model")
        return _told(place, version, folder.inspect(path, registry.signing))
    except folder.AlteredError as error:
        # what can be said of it is that it is not what was decided on
        return Verification(
            place=place,
            version=version,
            passed=False,
            decision_digest="",
            model_digest="",
            signed="not checked",
            extra=(),
            missing=(),
            changed=(folder.DECISION,),
            faults=(str(error),),
        )


def _told(place: str, version: str | None, found: Inspection, waived: bool = False) -> Verification:
    faults = list(found.faults)
    # a refusal is signed only where somebody answered for it
    if not (found.decision.passed or waived or found.signed == "yes"):
        faults.append(f"its decision is a refusal: {found.decision.summary}")
    unlike = found.differences
    return Verification(
        place=place,
        version=version,
        passed=not faults,
        decision_digest=found.decision.digest,
        model_digest=found.decision.model_digest,
        signed=found.signed,
        extra=unlike.extra,
        missing=unlike.missing,
        changed=unlike.changed,
        faults=tuple(faults),
    )
