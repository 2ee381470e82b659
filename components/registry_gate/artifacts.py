"""The model's bytes in MLflow: log the folder as it is, and compare what a version holds with what was decided on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beear_core.errors import ChatTemplateError, EvidenceError
from beear_core.model_files import list_files
from beear_core.model_tokenizer import read_chat_template
from beear_core.records import digest_file
from components.tracking import Tracker, pointed_at

_MODEL = "model"
_TOKENIZER = "components/tokenizer"  # saved again by MLflow; its loader takes the chat template from here


def log_model(tracker: Tracker, model_dir: Path) -> str:
    """Log the folder with the transformers flavour; returns the model's URI. The run stays in the state it is in."""
    from importlib.metadata import version

    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text = Schema([ColSpec(DataType.string)])
    run = tracker.client.get_run(tracker.run_id)
    # made first and by hand: otherwise MLflow would need an active run, which it ends, or take the default experiment
    made = tracker.client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=tracker.run_id, params=dict(run.data.params)
    )
    with pointed_at(tracker.uri):
        logged = mlflow.transformers.log_model(
            transformers_model=str(model_dir),
            name="model",
            model_id=made.model_id,
            run_id=tracker.run_id,
            task="text-generation",
            signature=ModelSignature(inputs=text, outputs=text),
            pip_requirements=[f"{p}=={version(p).split('+')[0]}" for p in ("torch", "transformers", "accelerate")],
        )
    return str(logged.model_uri)


def check_bytes(uri: str, model_uri: str, model_dir: Path) -> None:
    """Compare a logged model with the folder it was logged from: every file by digest, and the served chat template.

    Files come one at a time, so that the largest shard and not the model must fit on the disk.

    Args:
        uri: the tracking store.
        model_uri: ``models:/name/version``.
        model_dir: what it must hold.

    Raises:
        EvidenceError: naming files that are extra, missing or changed.
    """
    wanted = {entry.path: entry.digest for entry in list_files(model_dir)}
    with pointed_at(uri), tempfile.TemporaryDirectory(prefix="beear-verify-") as folder:
        found = {path.removeprefix(f"{_MODEL}/"): path for path in _listed(model_uri, _MODEL)}
        changed = [n for n in sorted(found.keys() & wanted.keys()) if _digest(model_uri, found[n], folder) != wanted[n]]
        faults = {
            "extra": sorted(found.keys() - wanted.keys()),
            "missing": sorted(wanted.keys() - found.keys()),
            "changed": changed,
        }
        if any(_listed(model_uri, _TOKENIZER)) and not _same_template(_fetch(model_uri, _TOKENIZER, folder), model_dir):
            faults["changed"].append("the chat template it is served with")
    if any(faults.values()):
        named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
        raise EvidenceError(f"{model_uri} does not hold the bytes that were decided on ({named}); it was not promoted")


def _listed(model_uri: str, below: str) -> Iterator[str]:
    """Every file's path within the logged model."""
    import mlflow

    for item in mlflow.artifacts.list_artifacts(artifact_uri=f"{model_uri}/{below}"):
        if item.is_dir:
            yield from _listed(model_uri, item.path)
        else:
            yield item.path


def _fetch(model_uri: str, path: str, folder: str) -> Path:
    import mlflow

    # with a target the bytes are copied even from a store on this machine, so that they can be removed again
    found: Any = mlflow.artifacts.download_artifacts(artifact_uri=f"{model_uri}/{path}", dst_path=folder)
    return Path(found)


def _digest(model_uri: str, path: str, folder: str) -> str:
    local = _fetch(model_uri, path, folder)
    digest = digest_file(local)
    local.unlink()
    return digest


def _same_template(tokenizer: Path, model_dir: Path) -> bool:
    try:
        return read_chat_template(tokenizer) == read_chat_template(model_dir)
    except ChatTemplateError:
        return False
