"""Can every part be reached and written, before anything long is begun?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from beear_core.config import ArtifactsConfig, DataConfig, EvaluationConfig, MitigationConfig, ReleaseConfig, SigningConfig
from beear_core.errors import BeearError, ConfigError, DataError, ModelNotFoundError, PolicyError, StorageError
from beear_core.files import check_writable
from beear_core.mitigation.layers import resolve_layers
from beear_core.wording import bytes_text, plural

if TYPE_CHECKING:
    from beear_core.models.folder import ModelFacts

_OTHER = "choose another folder with --out"
COPIES_OF_MODEL = 3  # taken over, cleaned, registered


@dataclass(frozen=True, slots=True)
class Finding:
    """One part that was looked at; ``error`` is ``None`` where nothing is wrong."""

    part: str
    detail: str
    error: BeearError | None = None


Look = tuple[str, Callable[[], str]]
"""A part, and what looks at it: tells in words what is there, or raises a ``BeearError``."""


def preflight(config: ReleaseConfig, folder: Path, tracking_uri: str, tracking_root: Path) -> list[Finding]:
    """Look at every part from the machine that is to run the whole release.

    Args:
        config: the release.
        folder: where the run is to leave its files.
        tracking_uri: of MLflow.
        tracking_root: where a local MLflow store is to be.
    """
    looks = looks_at(config, tracking_uri)
    looks.insert(3, ("disk", lambda: _disk(config, folder)))
    looks.insert(4, ("registry", lambda: _registry(tracking_uri, tracking_root)))
    return examine(looks)


def looks_at(config: ReleaseConfig, tracking_uri: str) -> list[Look]:
    """List the looks at what is the same from every machine: policy, data, model, signing, artifacts."""
    return [
        ("policy", lambda: check_policy(config)),
        ("data", lambda: _data(config.data, config.evaluation)),
        ("model", lambda: _model(config, tracking_uri)),
        ("signing", lambda: _signing(config.registry.signing)),
        ("artifacts", lambda: _artifacts(config.artifacts)),
    ]


def examine(looks: Iterable[Look]) -> list[Finding]:
    """Look at every part and report all that is wrong, not the first alone."""
    findings = []
    for part, look in looks:
        try:
            findings.append(Finding(part, look()))
        except BeearError as error:
            findings.append(Finding(part, "", error))
    return findings


def raise_faults(findings: Iterable[Finding]) -> None:
    """Raise what was found to be wrong: one fault as it is, several as one error that names them all.

    Raises:
        BeearError: as described.
    """
    faults = [finding.error for finding in findings if finding.error]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError(f"the pre-flight found {len(faults)} faults:", [str(fault) for fault in faults])


def check_policy(config: ReleaseConfig) -> str:
    """Check that the policy can be met and missed with these sample sizes; returns it in words.

    Raises:
        PolicyError: it cannot be read, or cannot be meant.
    """
    from beear_core.policy import GatePolicy, feasibility_faults

    policy = GatePolicy.load(config.policy)
    faults = feasibility_faults(policy, config.evaluation.sizes())
    if faults:
        raise PolicyError(f"policy {policy.name} cannot be meant with these sample sizes:", faults)
    return f"{policy.name}, {len(policy.checks)} checks"


def _data(data: DataConfig, evaluation: EvaluationConfig) -> str:
    from beear_core.data import read_prompts, read_triggers

    if data.triggers:
        read_triggers(data.triggers)
    found = {}
    for role, wanted in (
        ("harmful", evaluation.harmful),
        ("ordinary", evaluation.ordinary),
        ("borderline", evaluation.borderline),
    ):
        found[role] = len(read_prompts(getattr(data, role), role, "evaluation"))
        if found[role] == 0:
            raise DataError(f"{role} holds no evaluation prompts; add rows with split 'evaluation'")
        if found[role] < wanted:
            raise DataError(
                f"evaluation.{role} asks for {wanted} prompts, {getattr(data, role)} has {found[role]} with split "
                "'evaluation'; lower the number or give more"
            )
    return ", ".join(f"{n} {role}" for role, n in found.items()) + " prompts to evaluate on"


def _model(config: ReleaseConfig, tracking_uri: str) -> str:
    from beear_core.models.folder import check_folder, describe
    from components.storage.places import local_path

    local = local_path(config.model)
    if local is None:
        return _far_model(config.model, tracking_uri)
    check_folder(local)
    facts = describe(local)
    layers = ", ".join(map(str, resolve_layers(config.mitigation, facts.layers)))
    return f"{facts.architecture}, {facts.parameters / 1e6:.0f} M parameters, {facts.layers} layers, perturbed at {layers}"


def _far_model(uri: str, tracking_uri: str) -> str:
    """Look at a model's names and sizes where it lies; its bytes are looked at when they are fetched."""
    from beear_core.models.folder import needed
    from beear_core.models.safety import check_names
    from components.mlflow_store.client import client_for
    from components.storage.places import look

    if uri.startswith("models:/") and tracking_uri:
        client_for(tracking_uri)
    resolved, sizes = look(uri)
    if not sizes:
        return f"{resolved}: looked at when it is fetched"
    check_names(tuple(sizes), uri)
    wanted = needed(tuple(sizes))
    if "config.json" not in wanted:
        raise ModelNotFoundError(
            f"{uri} holds {plural(len(sizes), 'file')} and no config.json, so it is no model; name the folder that holds it"
        )
    return f"{resolved}: {plural(len(wanted), 'file')}, {bytes_text(sum(sizes[name] for name in wanted))}"


def own_disk(folder: Path) -> str:
    """Look whether a step of the pipeline can write on its own disk.

    Raises:
        StorageError: it cannot.
    """
    check_writable(folder, _OTHER)
    return f"{shutil.disk_usage(folder).free / 1e9:.0f} GB free in {folder}"


def _disk(config: ReleaseConfig, folder: Path) -> str:
    from beear_core.models.folder import describe
    from components.storage.places import local_path

    check_writable(folder, _OTHER)
    free = shutil.disk_usage(folder).free
    need = 0
    # what is wrong with the model is said once, where the model is looked at
    with suppress(BeearError, OSError):
        if (local := local_path(config.model)) is not None:
            need = _needed(describe(local), config.mitigation)
    if free < need:
        raise StorageError(
            f"{folder} has {free / 1e9:.1f} GB free, {need / 1e9:.1f} GB are needed for {COPIES_OF_MODEL} copies of "
            "the model and the mitigation's intermediate weights; free space or choose another folder with --out"
        )
    return f"{free / 1e9:.0f} GB free, {need / 1e9:.1f} GB needed"


def _needed(model: ModelFacts, mitigation: MitigationConfig) -> int:
    """Count bytes on disk at once: copies of the folder, and float32 weights to go back to: three, and planted triggers."""
    kept = 0 if not mitigation.enabled else 3 if mitigation.method == "beear" else 4
    return COPIES_OF_MODEL * model.size_bytes + kept * 4 * model.parameters


def _registry(tracking_uri: str, root: Path) -> str:
    from beear_core.uris import without_secrets
    from components.mlflow_store.client import check_reachable, local_store

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if tracking_uri == local_store(root):
        try:
            check_writable(root, _OTHER)
        except StorageError:
            # said once, where the disk is looked at
            return f"to be kept in {root}: see disk"
    check_reachable(tracking_uri)
    return without_secrets(tracking_uri)


def _signing(signing: SigningConfig | None) -> str:
    if signing is None:
        return "models are not signed"
    from components.passport.signature import check_signing

    check_signing(signing)
    return f"by {signing.method}{', tried when a model is signed' if signing.method == 'sigstore' else ''}"


def _artifacts(config: ArtifactsConfig) -> str:
    from components.storage.artifacts import ArtifactStore

    store = ArtifactStore.of(config)
    if store is None:
        return "nothing is left besides MLflow"
    store.check()
    return f"{store.uri}{'' if store.with_model else ', without the model'}"
