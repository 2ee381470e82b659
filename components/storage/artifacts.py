"""The place where releases leave their models and what was found, and where each has its own there.

::

    <uri>/models/<SHA-256 of the model>                a model, once for all releases of it; in S3 with a manifest
    <uri>/models/<SHA-256 of the model>.release.json   what was decided of it last: promoted, refused, awaiting approval
    <uri>/runs/<id>/                                   decision, evidence, policy, report, release.json; status and logs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beear_core.config import ArtifactsConfig
from beear_core.models.folder import directory_digest
from components.storage.common import Uploaded
from components.storage.places import local_path, probe, put_files, upload_dir


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """A folder or a prefix of a bucket that holds releases. ``with_model``: models go there too."""

    uri: str
    with_model: bool = True

    @classmethod
    def of(cls, config: ArtifactsConfig) -> ArtifactStore | None:
        """Give the store that is configured; ``None`` where none is."""
        return cls(config.uri, config.model) if config.uri else None

    def check(self) -> None:
        """Make sure that it can be written to.

        Raises:
            ConfigError, StorageError: see ``places.probe``.
        """
        probe(self.uri)

    def model(self, digest: str) -> str:
        """Name the place of the model with a digest."""
        return f"{self.uri}/models/{digest.removeprefix('sha256:')}"

    def run(self, kfp_run_id: str, mlflow_run_id: str) -> str:
        """Name the place of a run."""
        return f"{self.uri}/runs/{run_name(kfp_run_id, mlflow_run_id)}"

    def put_run(self, kfp_run_id: str, mlflow_run_id: str, files: Mapping[str, bytes]) -> None:
        """Write files of a run; what is there by such a name is replaced.

        Raises:
            ConfigError, StorageError: see ``places.put_files``.
        """
        put_files(self.run(kfp_run_id, mlflow_run_id), files)

    def put_model(self, folder: Path, digest: str, release: bytes) -> Uploaded:
        """Put a model to its place, unless it is there, and beside it what was decided of it.

        Args:
            folder: the model.
            digest: of the folder.
            release: the release record, as JSON.

        Raises:
            ConfigError, ModelError, StorageError: see ``places.upload_dir``.
        """
        place = self.model(digest)
        there = local_path(place)
        if there is not None and there.is_dir() and directory_digest(there) == digest:
            done = Uploaded(digest, 0, sum(path.stat().st_size for path in there.rglob("*") if path.is_file()))
        else:
            done = upload_dir(folder, place)
        name = digest.removeprefix("sha256:")
        put_files(f"{self.uri}/models", {f"{name}.release.json": release})
        return done


def run_name(kfp_run_id: str, mlflow_run_id: str) -> str:
    """Name a run by Kubeflow's id, a UUID; KFP's local runner draws eight digits instead, and MLflow's id is taken."""
    return kfp_run_id if "-" in kfp_run_id else mlflow_run_id or kfp_run_id
