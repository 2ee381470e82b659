"""The MLflow registry: log, register, verify, roll back; what moves the alias is in ``champion``."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from beear_core.config import RegistryConfig
from beear_core.errors import EvidenceError
from beear_core.models.folder import digest_entries, list_files
from beear_core.records import Decision, EvaluationRecord, FileEntry
from components.mlflow_store.champion import Alias, Version, version_of
from components.mlflow_store.client import client_for, mlflow_errors
from components.mlflow_store.tracking import Tracker

TAG_LENGTH = 4900  # MLflow takes 5000 characters
_MODEL = "model"  # where the transformers flavour keeps the folder as it was given


class Registry:
    """One registered model and its alias."""

    def __init__(self, uri: str, config: RegistryConfig) -> None:
        self.uri, self.name = uri, config.model_name
        with mlflow_errors("opening the registry", uri):
            self.client = client_for(uri)
        self.alias = Alias(self.client, uri, config)

    def evaluation(self, version: Version) -> EvaluationRecord:
        """Read how a version was measured, after cleaning, when it was released; labelled as the champion's.

        Raises:
            EvidenceError: if its run holds no such record, or another than its decision was made on.
        """
        where = f"version {version.number} of {self.name}, the {self.alias.alias} that the policy compares with,"
        remedy = f"release that model again through this gate, or move {self.alias.alias} to a version that was"
        if not version.run_id:
            raise EvidenceError(f"{where} came from no run, so nothing says how it was measured; {remedy}")
        try:
            with tempfile.TemporaryDirectory(prefix="beear-champion-") as folder:
                paths = [
                    Path(self.client.download_artifacts(version.run_id, f"records/{name}.json", folder))
                    for name in ("decision", "after")
                ]
                decision, measured = Decision.read(paths[0]), EvaluationRecord.read(paths[1])
        except Exception as error:
            # MLflow lets through whatever its store raises: no such artifact, no such run, no connection
            raise EvidenceError(f"{where} has no measurements that can be read ({error}); {remedy}") from error
        digests = (decision.digest, decision.evidence.get("after"), decision.model_digest)
        if digests != (version.tags.get("decision_digest"), measured.digest, measured.model_digest):
            raise EvidenceError(f"{where} carries other measurements than it was decided on; {remedy}")
        return dataclasses.replace(measured, label="champion")

    def find(self, decision_digest: str) -> Version | None:
        """Find the version that was registered for a decision, or ``None``."""
        with mlflow_errors("looking for an earlier version", self.uri):
            for found in self.client.search_model_versions(f"name='{self.name}'"):
                if found.tags.get("decision_digest") == decision_digest:
                    return version_of(found)
        return None

    def register(self, tracker: Tracker, model_dir: Path, tags: Mapping[str, str]) -> Version:
        """Log the model to the run with the transformers flavour and register it, once for each decision.

        Args:
            tracker: the run.
            model_dir: a plain model folder.
            tags: of the version; ``decision_digest`` among them.
        """
        if earlier := self.find(tags["decision_digest"]):
            return earlier
        with mlflow_errors("logging the model", self.uri):
            source, model_id = _log_model(tracker, model_dir)
        with mlflow_errors("registering the version", self.uri):
            self._ensure_model()
            made = self.client.create_model_version(
                self.name,
                source=source,
                run_id=tracker.run_id,
                model_id=model_id,  # a server refuses the source without it, SQLite does not
                tags={k: v[:TAG_LENGTH] for k, v in tags.items()},
            )
            return version_of(self.client.get_model_version(self.name, made.version))

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def verify(self, version: Version, decided: str, model_dir: Path | None = None) -> None:
        """Compare the registered model with the one that was decided on, by digest.

        Args:
            version: what is registered.
            decided: digest of the model that was decided on.
            model_dir: that model, to name the files that differ.

        Raises:
            EvidenceError: it is another; naming files that are extra, missing or changed.
        """
        registered = self._registered(version)
        found = digest_entries(registered)
        if found == decided:
            return
        faults = _differences(list_files(model_dir), registered) if model_dir else ""
        if faults:
            raise EvidenceError(
                f"version {version.number} of {self.name} does not hold the model that was decided on ({faults}); it was "
                "not promoted"
            )
        raise EvidenceError(
            f"version {version.number} of {self.name} holds a model with the digest {found}, decided was on "
            f"{decided or 'nothing that is noted'}; it was not promoted"
        )

    def _registered(self, version: Version) -> tuple[FileEntry, ...]:
        """List the model's files with their digests as the registry holds them; files on this machine are not copied."""
        from mlflow.artifacts import download_artifacts
        from mlflow.utils.file_utils import local_file_uri_to_path
        from mlflow.utils.uri import is_local_uri

        with mlflow_errors("reading the registered model back", self.uri):
            place = self.client.get_model_version_download_uri(self.name, version.number)
            if place.startswith("models:/m-"):
                place = self.client.get_logged_model(place.removeprefix("models:/")).artifact_location
            if is_local_uri(place, is_tracking_or_registry_uri=False):
                return list_files(Path(local_file_uri_to_path(place)) / _MODEL)
            with tempfile.TemporaryDirectory(prefix="beear-verify-") as folder:
                return list_files(Path(download_artifacts(f"{place}/{_MODEL}", dst_path=folder)))

    def rollback(self) -> tuple[Version, Version]:
        """Move the alias back to the version that the champion replaced; returns (left, champion now).

        Raises:
            RegistryError: if there is no champion, it replaced none, or the one before did not pass its gate.
            EvidenceError: the one before does not hold the bytes that were decided on.
        """
        return self.alias.move_back(lambda earlier: self.verify(earlier, earlier.tags.get("model_digest", "")))


def _log_model(tracker: Tracker, model_dir: Path) -> tuple[str, str]:
    """Log the folder as it is; returns the logged model's URI and id."""
    from importlib.metadata import version

    # the flavour would ask the hub for a model card; the gate's models are folders
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text = Schema([ColSpec(DataType.string)])
    run = tracker.client.get_run(tracker.run_id)
    # made here, because MLflow takes its experiment from an active run, and one that is made active is ended too
    made = tracker.client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=tracker.run_id, params=run.data.params
    )
    logged = mlflow.transformers.log_model(
        transformers_model=str(model_dir),
        name="model",
        model_id=made.model_id,
        run_id=tracker.run_id,
        task="text-generation",
        signature=ModelSignature(inputs=text, outputs=text),
        pip_requirements=[f"{p}=={version(p).split('+')[0]}" for p in ("torch", "transformers", "accelerate")],
    )
    return str(logged.model_uri), str(made.model_id)


def _differences(decided: Iterable[FileEntry], registered: Iterable[FileEntry]) -> str:
    """Name files that are extra, missing or changed; empty where there are none."""
    wanted, found = ({entry.path: entry.digest for entry in files} for files in (decided, registered))
    parts = {
        "extra": found.keys() - wanted.keys(),
        "missing": wanted.keys() - found.keys(),
        "changed": {name for name in found.keys() & wanted.keys() if found[name] != wanted[name]},
    }
    return "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in parts.items() if names)
