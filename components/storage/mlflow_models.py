"""Model versions in MLflow, taken back out as one plain Hugging Face folder.

A version logged with MLflow's transformers flavour keeps the model in ``model/`` and, where it was logged from objects,
its tokenizer in ``components/tokenizer/``; a version registered from a plain folder has config.json at its top.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beear_core.errors import ConfigError, ModelNotFoundError, StorageError
from beear_core.progress import stage
from components.mlflow_store.client import NOT_THERE, mlflow_errors, set_bounds
from components.storage.common import Fetched, Select, check_relative, require_space

_FORM = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_PARTS = ("model/", "components/tokenizer/")


def parse(uri: str) -> tuple[str, str | None, str | None]:
    """Read name, alias and version of ``models:/name@alias`` or ``models:/name/version``; one of the last two is ``None``.

    Raises:
        ConfigError: if it is not of that form.
    """
    match = _FORM.fullmatch(uri)
    if match is None:
        raise ConfigError(f"{uri!r} is not a model version; write models:/name@alias or models:/name/3")
    return match["name"], match["alias"], match["version"]


@contextmanager
def _explained(uri: str, tracking_uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    with mlflow_errors(f"reading {uri}", tracking_uri):
        try:
            yield
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise
            raise ModelNotFoundError(f"{uri} is not in the registry ({error}); check the name, version or alias") from error


def tracking_server(uri: str) -> str:
    """Find the server that holds the registry.

    Raises:
        ConfigError: no tracking server is set.
    """
    import mlflow
    from mlflow.tracking import is_tracking_uri_set

    if not is_tracking_uri_set():
        raise ConfigError(f"{uri} needs an MLflow server; set MLFLOW_TRACKING_URI")
    return str(mlflow.get_tracking_uri())


def resolve(uri: str) -> str:
    """Replace the alias of a URI by the version that it stands for at this moment.

    Raises:
        ConfigError: no tracking server is set.
        ModelNotFoundError: no such model, alias or version.
        RegistryError: MLflow cannot be reached.
    """
    import mlflow

    name, alias, version = parse(uri)
    place = tracking_server(uri)
    with _explained(uri, place):
        set_bounds()
        client = mlflow.MlflowClient()
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    return f"models:/{name}/{found.version}"


def look(uri: str) -> tuple[str, dict[str, int]]:
    """List the plain folder that a version holds, without fetching it: (the version, sizes in bytes by name).

    Raises:
        ConfigError, ModelNotFoundError, RegistryError: see ``resolve``.
        StorageError: its artifacts hold no model folder.
    """
    import mlflow

    pinned = resolve(uri)
    with _explained(uri, tracking_server(uri)):
        sizes = dict(_list(mlflow, pinned, ""))
    return pinned, {name: sizes[place] for name, place in sorted(_assemble(sizes, uri).items())}


def fetch(uri: str, dest: Path, select: Select) -> Fetched:
    """Download a model version into an existing folder as one plain model folder.

    Raises:
        ConfigError, ModelNotFoundError, RegistryError: see ``resolve``.
        StorageError: its artifacts hold no model folder, cannot be read, or there is no room.
    """
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    pinned = resolve(uri)
    with _explained(uri, tracking_server(uri)):
        sizes = dict(_list(mlflow, pinned, ""))
    places = _assemble(sizes, uri)
    chosen = select(tuple(sorted(places)))
    require_space(dest, sum(sizes[places[name]] for name in chosen))
    with tempfile.TemporaryDirectory(prefix=".mlflow.", dir=dest) as folder, stage(f"fetching {uri} ({pinned})"):
        for name in chosen:
            try:
                path = download_artifacts(artifact_uri=f"{pinned}/{places[name]}", dst_path=folder)
            except (MlflowException, OSError) as error:
                raise StorageError(f"{pinned}/{places[name]} cannot be fetched: {error}; try again") from error
            Path(path).replace(dest / name)
    return Fetched(tuple(sorted(set(sizes) - {places[name] for name in chosen})), pinned)


def _list(mlflow: Any, uri: str, below: str) -> Iterator[tuple[str, int]]:
    """List every artifact of a version with its size in bytes (0 where the store does not say)."""
    for item in mlflow.artifacts.list_artifacts(artifact_uri=f"{uri}/{below}" if below else uri):
        if item.is_dir:
            yield from _list(mlflow, uri, item.path)
        else:
            yield check_relative(item.path, uri), item.file_size or 0


def _assemble(names: dict[str, int], uri: str) -> dict[str, str]:
    """Find each file of the plain folder among the artifacts; ``model/`` wins over ``components/tokenizer/``."""
    if "config.json" in names:
        return {name: name for name in names}
    if "model/config.json" not in names:
        raise StorageError(
            f"{uri} holds no model folder: neither config.json nor model/config.json is among its {len(names)} "
            "artifacts; register it with MLflow's transformers flavour"
        )
    places: dict[str, str] = {}
    for part in _PARTS:
        for name in names:
            if name.startswith(part):
                places.setdefault(name.removeprefix(part), name)
    return places
