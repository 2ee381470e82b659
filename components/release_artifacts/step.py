"""Put the model that was decided on, and what it was decided by, to the place that the configuration names.

It runs after the gate and has only files: neither the decision nor the alias can change here. Refused models are put away
too, each to the place of its digest, with the release record that says so beside it.
"""

from __future__ import annotations

from pathlib import Path

from beear_core.config import ArtifactsConfig, RegistryConfig, parse_json
from beear_core.errors import BeearError, EvidenceError, RegistryError, StorageError
from beear_core.evidence import OPTIONAL, RECORDS
from beear_core.models.folder import directory_digest
from beear_core.progress import say, warn
from beear_core.records import Decision, ReleaseRecord
from beear_core.wording import bytes_text
from components.mlflow_store.client import client_for, mlflow_errors, resolve_uri
from components.mlflow_store.tracking import Tracker
from components.passport.bom import BILL
from components.passport.card import CARD
from components.passport.folder import DECISION, POLICY_FILE
from components.storage.artifacts import ArtifactStore

RELEASE = "release.json"
_FILES = (DECISION, POLICY_FILE, CARD, BILL, RELEASE, "report.html")
PLACE = "artifacts."
"""Tags of the run and of the version begin so: ``artifacts.run``, ``artifacts.model``."""


def run(
    model_dir: Path,
    folder: Path,
    config: ArtifactsConfig,
    registry: RegistryConfig,
    *,
    kfp_run_id: str = "",
    mlflow_run_id: str = "",
) -> dict[str, str]:
    """Put away what a gate left, and tag run and version with where it is.

    Nothing but what is named here is taken from the folder, and no reply in full is among it: the report redacts them.

    Args:
        model_dir: what was decided on.
        folder: what the gate left.
        config: where to.
        registry: where MLflow is.
        kfp_run_id, mlflow_run_id: of the run; what is put away is found by the first, locally by the second.

    Returns:
        Places by what lies there, ``run`` and ``model``; empty where no place is configured.

    Raises:
        EvidenceError: the folder holds no decision, or one about another model.
        StorageError: it cannot be written; the message says that the decision stands.
    """
    store = ArtifactStore.of(config)
    if store is None:
        say("artifacts.uri is not set: nothing is put away besides MLflow")
        return {}
    decision, release = Decision.read(folder / DECISION), ReleaseRecord.read(folder / RELEASE)
    if release.decision_digest != decision.digest:
        raise EvidenceError(
            f"{folder / RELEASE} is about another decision than {folder / DECISION}; give what one gate left"
        )
    places = {"run": store.run(kfp_run_id, mlflow_run_id)}
    try:
        store.put_run(kfp_run_id, mlflow_run_id, _files(folder))
        say(f"records and report are in {places['run']}")
        if store.with_model:
            places["model"] = store.model(decision.model_digest)
            _put_model(store, model_dir, decision, release)
    except BeearError as error:
        raise StorageError(
            f"the decision stands ({release.outcome}, version {release.model_version} of {release.model_name}; "
            f"{release.alias} is at {_number(release.champion_after)}), only the model and its records are not all in "
            f"{store.uri}: {error}. Mend that and retry this step, or run 'beear upload'; what is there is not sent twice"
        ) from error
    _tag(release, registry, places)
    return places


def _files(folder: Path) -> dict[str, bytes]:
    names = [*_FILES, *(f"evidence/{name}.json" for name in (*RECORDS, *OPTIONAL))]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _put_model(store: ArtifactStore, model_dir: Path, decision: Decision, release: ReleaseRecord) -> None:
    found = directory_digest(model_dir)
    if found != decision.model_digest:
        raise EvidenceError(f"{model_dir} has the digest {found}, decided was on {decision.model_digest}; give that model")
    done = store.put_model(model_dir, found, release.to_json())
    sent = f"{bytes_text(done.sent)} sent, {bytes_text(done.skipped)} were there"
    say(f"the model ({release.outcome}) is in {store.model(found)}: {sent}")


def _tag(release: ReleaseRecord, registry: RegistryConfig, places: dict[str, str]) -> None:
    """Say in MLflow where everything is; where that cannot be said, it is there all the same."""
    uri = resolve_uri(registry.tracking_uri, Path())
    tags = {f"{PLACE}{what}": place for what, place in places.items()}
    try:
        with mlflow_errors("noting where the artifacts are", uri):
            client = client_for(uri)
            Tracker(client, release.mlflow_run_id, uri).log_tags(tags)
            for key, value in tags.items():
                client.set_model_version_tag(release.model_name, release.model_version, key, value)
    except RegistryError as error:
        warn(f"everything was put away, and run and version do not say where: {error}")


def _number(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def run_component(
    *, model: str, decision: str, artifacts_json: str, registry_json: str, mlflow_run_id: str, kfp_run_id: str
) -> str:
    """Run the step as its Kubeflow face calls it; returns where the run's files are."""
    places = run(
        Path(model),
        Path(decision),
        parse_json(ArtifactsConfig, artifacts_json, "artifacts configuration"),
        parse_json(RegistryConfig, registry_json, "registry configuration"),
        kfp_run_id=kfp_run_id,
        mlflow_run_id=mlflow_run_id,
    )
    return places.get("run", "")
