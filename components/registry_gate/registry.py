"""The MLflow registry: register, verify, promote, roll back.

MLflow lets anybody move an alias. So the champion is read before, set, and read again; whatever does not hold is an
error, and the alias is put back to where it was.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beear_core.config import RegistryConfig
from beear_core.errors import EvidenceError, RegistryError
from beear_core.records import EvaluationRecord
from components.registry_gate.artifacts import check_bytes, log_model
from components.tracking import Tracker, client_for, mlflow_errors, pointed_at

TAG_LENGTH = 4900  # MLflow takes 5000 characters
NONE = "none"


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version: its number as MLflow writes it, the run it came from, and its tags."""

    number: str
    run_id: str
    tags: Mapping[str, str]


class Registry:
    """One registered model and its alias."""

    def __init__(self, uri: str, config: RegistryConfig) -> None:
        self.uri, self.name, self.alias = uri, config.model_name, config.alias
        with mlflow_errors("opening the registry", uri):
            self.client = client_for(uri)

    def champion(self) -> Version | None:
        """The version the alias points to, or ``None``."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(f"reading the alias {self.alias}", self.uri):
            try:
                found = self.client.get_model_version_by_alias(self.name, self.alias)
            except MlflowException as error:
                # the first without such a model, the second without such an alias
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return None
                raise
            return _version(found)

    def rival(self, model_digest: str) -> Version | None:
        """The champion that a model is compared with: not that model itself, but then the version it replaced.

        So a gate that is run again after it promoted compares with the same version as the first time.
        """
        found, seen = self.champion(), set[str]()
        while found is not None and found.tags.get("model_digest") == model_digest and found.number not in seen:
            seen.add(found.number)
            number = found.tags.get("replaced_version", NONE)
            found = None if number == NONE else self._get(number)
        return None if found is not None and found.number in seen else found

    def evaluation(self, version: Version) -> EvaluationRecord:
        """What a version's own gate measured on it, in the champion's place.

        Raises:
            EvidenceError: if its run keeps no such record, or not the one that its tags name.
        """
        from mlflow.artifacts import download_artifacts

        what = f"version {version.number} of {self.name}"
        expected = version.tags.get("evaluation_digest")
        if expected is None:
            raise EvidenceError(
                f"the policy compares with the {self.alias}, but {what} was not measured by a gate; promote a first "
                "version under a policy without such checks"
            )
        with (
            tempfile.TemporaryDirectory(prefix="beear-champion-") as folder,
            mlflow_errors(f"reading what was measured on {what}", self.uri),
            pointed_at(self.uri),
        ):
            file = download_artifacts(run_id=version.run_id, artifact_path="records/after.json", dst_path=folder)
            record = EvaluationRecord.read(Path(file))
        if record.digest != expected:
            raise EvidenceError(f"records/after.json of {what} is {record.digest}, its tags name {expected}: it was altered")
        return dataclasses.replace(record, label="champion")

    def find(self, decision_digest: str) -> Version | None:
        """The version that was registered for a decision, or ``None``."""
        query = f"name='{self.name}' and tags.decision_digest='{decision_digest}'"
        with mlflow_errors("looking for an earlier version", self.uri):
            found = [v for v in self.client.search_model_versions(query) if v.status == "READY"]
        return min(map(_version, found), key=lambda v: int(v.number), default=None)

    def register(self, tracker: Tracker, model_dir: Path, tags: Mapping[str, str]) -> Version:
        """Log the model to the run with the transformers flavour and register it; the same decision gives one version.

        Args:
            tracker: the run.
            model_dir: a plain model folder.
            tags: of the version; ``decision_digest`` among them.
        """
        if earlier := self.find(tags["decision_digest"]):
            return earlier
        with mlflow_errors("logging the model", self.uri):
            source = log_model(tracker, model_dir)
        with mlflow_errors("registering the version", self.uri):
            self._ensure_model()
            made = self.client.create_model_version(
                self.name,
                source=source,
                run_id=tracker.run_id,
                tags={k: v[:TAG_LENGTH] for k, v in tags.items()},
            )
        return self._get(str(made.version))

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def verify(self, version: Version, model_dir: Path) -> None:
        """Compare the registered bytes with the decided ones, by digest; see ``check_bytes``."""
        with mlflow_errors("reading the registered model back", self.uri):
            check_bytes(self.uri, f"models:/{self.name}/{version.number}", model_dir)

    @contextmanager
    def promoted(self, version: Version, expected: Version | None) -> Iterator[None]:
        """Move the alias to ``version`` if it still points to ``expected``; put it back if the body fails.

        Raises:
            RegistryError: if somebody else moved the alias, or MLflow fails.
        """
        now = self.champion()
        if _number(now) != _number(expected):
            raise RegistryError(
                f"{self.alias} of {self.name} was expected at {_named(expected)} and is at {_named(now)}: somebody else "
                "promoted meanwhile. Nothing was changed; look at that version and run again"
            )
        if now is not None and now.number == version.number:
            # an earlier run moved it; that is not ours to take back
            yield
            return
        with mlflow_errors("noting which version is replaced", self.uri):
            self.client.set_model_version_tag(self.name, version.number, "replaced_version", _number(expected) or NONE)
        try:
            self._move(version)
            yield
        except BaseException as error:
            self._restore(version, expected, error)
            raise

    def _move(self, version: Version) -> None:
        with mlflow_errors(f"setting the alias {self.alias}", self.uri):
            self.client.set_registered_model_alias(self.name, self.alias, version.number)
        after = self.champion()
        if _number(after) != version.number:
            raise RegistryError(
                f"{self.alias} of {self.name} was set to version {version.number} and reads {_named(after)}: somebody "
                "else promoted at the same time; look at that version and run again"
            )

    def _restore(self, version: Version, expected: Version | None, cause: BaseException) -> None:
        """Take back our own move, and only that."""
        try:
            if _number(self.champion()) != version.number:
                return
            with mlflow_errors(f"putting the alias {self.alias} back", self.uri):
                if expected is None:
                    self.client.delete_registered_model_alias(self.name, self.alias)
                else:
                    self.client.set_registered_model_alias(self.name, self.alias, expected.number)
        except RegistryError as error:
            raise RegistryError(
                f"{cause or type(cause).__name__}. And {self.alias} of {self.name} could not be put back: it may be at version "
                f"{version.number}, and belongs at {_named(expected)} ({error})"
            ) from cause

    def rollback(self) -> tuple[Version, Version]:
        """Move the alias back to the version that the champion replaced; returns (left, champion now).

        Raises:
            RegistryError: if there is no champion, it replaced none, or that one did not pass a gate.
        """
        champion = self.champion()
        if champion is None:
            raise RegistryError(f"{self.name} has no {self.alias} to roll back from")
        number = champion.tags.get("replaced_version", NONE)
        if number == NONE:
            raise RegistryError(
                f"version {champion.number} of {self.name} replaced no earlier {self.alias}; nothing to roll back to"
            )
        earlier = self._get(number)
        if earlier.tags.get("verdict") != "passed":
            raise RegistryError(f"version {number} of {self.name} did not pass its gate; it cannot become {self.alias}")
        self._move(earlier)
        with mlflow_errors("noting the rollback", self.uri):
            self.client.set_model_version_tag(self.name, champion.number, "rolled_back", "true")
        return champion, earlier

    def _get(self, number: str) -> Version:
        with mlflow_errors(f"reading version {number} of {self.name}", self.uri):
            return _version(self.client.get_model_version(self.name, number))


def _version(found: Any) -> Version:
    return Version(number=str(found.version), run_id=found.run_id or "", tags=dict(found.tags))


def _number(version: Version | None) -> str | None:
    return version.number if version else None


def _named(version: Version | None) -> str:
    return f"version {version.number}" if version else "no version"
