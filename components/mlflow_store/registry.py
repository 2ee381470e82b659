"""The MLflow registry: log, register, verify, roll back; what moves the alias is in ``champion``."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from beear_core.config import RegistryConfig, SigningConfig
from beear_core.errors import EvidenceError, ModelNotFoundError
from beear_core.models.folder import list_files
from beear_core.records import Decision, Environment, EvaluationRecord
from beear_core.uris import without_secrets
from components.mlflow_store import package
from components.mlflow_store.champion import Alias, Version, version_of
from components.mlflow_store.client import NOT_THERE, client_for, mlflow_errors
from components.mlflow_store.ledger import Ledger
from components.mlflow_store.lock import Held
from components.mlflow_store.tracking import Tracker
from components.passport import folder as released
from components.passport.folder import DECISION, Inspection
from components.passport.signature import SIGNATURE, sign

TAG_LENGTH = 4900  # MLflow takes 5000 characters


class Registry:
    """One registered model and its alias."""

    def __init__(self, uri: str, config: RegistryConfig) -> None:
        self.uri, self.name, self.signing = uri, config.model_name, config.signing
        with mlflow_errors("opening the registry", uri):
            self.client = client_for(uri)
        self.ledger = Ledger(self.client, uri, config)
        self.alias = Alias(self.client, uri, config, self.ledger.begin)

    def evaluation(self, version: Version) -> EvaluationRecord:
        """Read how a version was measured, after cleaning, when it was released; labelled as the champion's.

        Raises:
            EvidenceError: if its run holds no such record, or another than its decision was made on; the message is a
                reason, what to do instead is for the caller to say.
        """
        who = f"version {version.number} of {self.name}"
        if not version.run_id:
            raise EvidenceError(f"{who} came from no run, so nothing says how it was measured")
        try:
            with tempfile.TemporaryDirectory(prefix="beear-champion-") as folder:
                paths = [
                    Path(self.client.download_artifacts(version.run_id, f"records/{name}.json", folder))
                    for name in ("decision", "after")
                ]
                decision, measured = Decision.read(paths[0]), EvaluationRecord.read(paths[1])
        except Exception as error:
            # MLflow lets through whatever its store raises: no such artifact, no such run, no connection
            raise EvidenceError(f"{who} has no measurements that can be read ({error})") from error
        digests = (decision.digest, decision.evidence.get("after"), decision.model_digest)
        if digests != (version.tags.get("decision_digest"), measured.digest, measured.model_digest):
            raise EvidenceError(f"{who} carries other measurements than it was decided on")
        return dataclasses.replace(measured, label="champion")

    def find(self, decision_digest: str) -> Version | None:
        """Find the version that was registered for a decision, or ``None``."""
        return next(iter(self._registered_for(decision_digest)), None)

    def _registered_for(self, decision_digest: str) -> list[Version]:
        with mlflow_errors("looking for an earlier version", self.uri):
            # by name alone: not every store filters versions by tags
            found = [version_of(x) for x in self.client.search_model_versions(f"name='{self.name}'")]
        same = [version for version in found if version.tags.get("decision_digest") == decision_digest]
        return sorted(same, key=lambda version: int(version.number))

    def register(self, tracker: Tracker, folder: Path, tags: Mapping[str, str], measured: Environment) -> Version:
        """Log a model with its papers to the run and register it, once for each decision; see ``find`` for one that is.

        Args:
            tracker: the run.
            folder: of the released model.
            tags: of the version; ``decision_digest`` among them.
            measured: where the model was measured.

        Raises:
            RegistryError: MLflow fails, or another promotion does not end.
        """
        decided = tags["decision_digest"]
        with mlflow_errors("logging the model", self.uri):
            model_id = self._logged(tracker, folder, decided, measured)
        # in turn with others: the same decision may be registered twice at a time, by a retry of the step say
        with self.alias.lock.held() as held:
            if earlier := self.find(decided):
                return earlier
            held.check()
            with mlflow_errors("registering the version", self.uri):
                self._ensure_model()
                self.client.create_model_version(
                    self.name,
                    source=f"models:/{model_id}",
                    run_id=tracker.run_id,
                    model_id=model_id,  # a server refuses the source without it, SQLite does not
                    tags={k: v[:TAG_LENGTH] for k, v in tags.items()},
                )
            return self._only(decided, held)

    def _only(self, decided: str, held: Held) -> Version:
        """Remove what a request that was sent again after a lost answer made twice; the first stays."""
        first, *again = self._registered_for(decided)
        for version in again:
            held.check()
            with mlflow_errors(f"removing version {version.number}, registered twice", self.uri):
                self.client.delete_model_version(self.name, version.number)
        return first

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _logged(self, tracker: Tracker, folder: Path, decided: str, measured: Environment) -> str:
        """Log the folder and return the id of the logged model; one that an earlier try began is gone on with."""
        run = tracker.client.get_run(tracker.run_id)
        experiment = run.info.experiment_id
        found = tracker.client.search_logged_models([experiment], filter_string=f"tags.decision_digest = '{decided}'")
        begun = min(found, key=lambda model: model.creation_timestamp, default=None)
        if begun is not None and str(begun.status) == "READY":
            return str(begun.model_id)
        # made by the client: MLflow's own way takes the experiment from an active run, and one that is made active is ended
        model = begun or tracker.client.create_logged_model(
            experiment, "model", tracker.run_id, tags={"decision_digest": decided}, params=run.data.params
        )
        with tempfile.TemporaryDirectory(prefix="beear-package-") as place:
            ids = {"run_id": tracker.run_id, "model_id": model.model_id}
            package.build(folder, Path(place) / "p", name=self.name, measured=measured, **ids)
            tracker.client.log_model_artifacts(model.model_id, str(Path(place) / "p"))
        tracker.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def named(self, number: str | None) -> Version:
        """Find a version by its number, or the one that the alias points to.

        Raises:
            ModelNotFoundError: there is none.
            RegistryError: MLflow fails.
        """
        from mlflow.exceptions import MlflowException

        found = None
        with mlflow_errors("looking for the version", self.uri):
            try:
                found = self.alias.champion() if number is None else self.client.get_model_version(self.name, number)
            except MlflowException as error:
                if error.error_code not in NOT_THERE:
                    raise
        if found is None:
            what = f"version {number}" if number else f"version with the alias {self.alias.alias}"
            raise ModelNotFoundError(f"{self.name} has no {what} in MLflow at {without_secrets(self.uri)}; check the name")
        return found if isinstance(found, Version) else version_of(found)

    def inspect(self, version: Version, decided: str = "") -> Inspection:
        """Compare all that is registered with the decision that lies in it and with the version's tags.

        Args:
            version: what is registered.
            decided: digest of the decision that it was registered for, where that is known.

        Raises:
            EvidenceError: it holds no decision, or that was altered.
            RegistryError: MLflow fails.
        """
        with self._read_back(version) as root:
            files = list_files(root)
            faults = package.faults(root, files)
            try:
                found = released.inspect(root / package.MODEL, self.signing, package.model_files(files))
            except EvidenceError as error:
                raise type(error)(f"version {version.number} of {self.name}: {error}") from error
        told = {"decision_digest": found.decision.digest, "model_digest": found.decision.model_digest}
        told["verdict"] = "passed" if found.decision.passed else "refused"
        faults += [f"the tag {key} is {version.tags.get(key)}" for key, v in told.items() if version.tags.get(key) != v]
        if decided and found.decision.digest != decided:
            faults.append(f"its decision is {found.decision.digest}, expected was {decided}")
        return dataclasses.replace(found, faults=(*found.faults, *faults))

    def verify(self, version: Version, decided: str = "") -> Decision:
        """Make sure that what is registered is what was decided on; see ``inspect``.

        Returns:
            The decision, as it lies there.

        Raises:
            EvidenceError: files are extra, missing or changed, beside the model too; it is another decision, the tags tell
                of another, or it is not signed by whom it must be.
        """
        try:
            found = self.inspect(version, decided)
        except released.AlteredError as error:
            raise self._not_decided_on(version, f"changed: {DECISION}: {error}") from error
        if found.faults:
            raise self._not_decided_on(version, *found.faults)
        return found.decision

    def _not_decided_on(self, version: Version, *faults: str) -> EvidenceError:
        return EvidenceError(
            f"version {version.number} of {self.name} is not what was decided on ({'; '.join(faults)}); do not use it, and "
            "release the model again"
        )

    def make_sure(self, version: Version, decision: Decision) -> None:
        """Verify a version before it becomes champion, and sign one that was refused and is waived; see ``verify``.

        A pass was signed before it was registered. A refusal gets its signature now, when somebody answers for it.
        """
        if self.signing and not decision.passed:
            self._sign(version, decision, self.signing)
        self.verify(version, decision.digest)

    def _sign(self, version: Version, decision: Decision, signing: SigningConfig) -> None:
        with self._read_back(version) as root, tempfile.TemporaryDirectory(prefix="beear-sign-") as place:
            found = released.inspect(root / package.MODEL, None)
            if found.faults or found.decision.digest != decision.digest or found.signed != "no":
                # what is wrong with it is said by whoever verifies it
                return
            signature = Path(place) / SIGNATURE
            sign(root / package.MODEL, signature, signing)
            with mlflow_errors("adding the signature", self.uri):
                source = self.client.get_model_version(self.name, version.number).source
                self.client.log_model_artifact(source.removeprefix("models:/"), str(signature), package.MODEL)

    @contextmanager
    def _read_back(self, version: Version) -> Iterator[Path]:
        """Give the folder of all that is registered; what lies on this machine is not copied."""
        from mlflow.artifacts import download_artifacts
        from mlflow.utils.file_utils import local_file_uri_to_path
        from mlflow.utils.uri import is_local_uri

        doing = f"reading version {version.number} of {self.name} back"
        with tempfile.TemporaryDirectory(prefix="beear-verify-") as folder:
            with mlflow_errors(doing, self.uri):
                place = self.client.get_model_version_download_uri(self.name, version.number)
                if place.startswith("models:/m-"):
                    place = self.client.get_logged_model(place.removeprefix("models:/")).artifact_location
                if is_local_uri(place, is_tracking_or_registry_uri=False):
                    root = Path(local_file_uri_to_path(place))
                else:
                    root = Path(download_artifacts(place, dst_path=folder, tracking_uri=self.uri))
            yield root

    def rollback(self, reason: str = "") -> tuple[Version, Version]:
        """Move the alias back to the version that the champion replaced; returns (left, champion now).

        Args:
            reason: why, for the ledger.

        Raises:
            RegistryError: if there is no champion, it replaced none, or the one before did not pass its gate.
            EvidenceError: the one before does not hold what was decided on.
        """
        return self.alias.move_back(self.verify, reason)
