"""One local release from configuration to outcome: pre-flight, MLflow run, pipeline, report."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beear_core.config import ReleaseConfig
from beear_core.errors import ConfigError, EvidenceError
from beear_core.files import disk_errors, write_atomically
from components.preflight.looks import preflight, raise_faults
from pipelines.local import Outcome, read_outcome, run_release

_REMEDY = "free space or choose another folder with --out"


def run(config: ReleaseConfig, out: Path, *, keep: bool) -> Outcome:
    """Run a release in a new folder below ``out``; MLflow is local to ``out`` unless one is configured.

    Raises:
        BeearError: the pre-flight's first fault, or that of the step that failed; the MLflow run is then FAILED.
    """
    from components.mlflow_store.client import mlflow_errors, resolve_uri
    from components.mlflow_store.tracking import end_run, open_run

    uri = resolve_uri(config.registry.tracking_uri, out)
    raise_faults(preflight(config, out, uri, out))
    config = _absolute(config, out)
    folder = _new_folder(out)
    tracker = open_run(uri, config.registry.experiment, folder.name, out / "mlartifacts")
    failed = True
    try:
        with mlflow_errors("logging the configuration", uri):
            tracker.log_config(config.plain())
        with disk_errors(f"write {folder}", remedy=_REMEDY):
            outcome = run_release(config, policy_text(config.policy), folder, tracker.run_id, keep=keep)
        failed = False
        return outcome
    finally:
        end_run(tracker, failed=failed)


def policy_text(policy: str) -> str:
    """Give a shipped policy by its name, any other as its text: a step cannot read this machine's files."""
    from beear_core.policy import find_policy, shipped_policies

    # shipped names first, as everywhere: a file that happens to be called "standard" is not another policy
    return policy if policy in shipped_policies() else find_policy(policy)[1]


def _new_folder(out: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(100):
        folder = out / (stamp if number == 0 else f"{stamp}-{number}")
        if not folder.exists():
            with disk_errors(f"write {folder}", remedy=_REMEDY):
                folder.mkdir(parents=True)
            return folder.resolve()
    raise ConfigError(f"{out} holds a hundred runs of this second; choose another folder with --out")


def _absolute(config: ReleaseConfig, out: Path) -> ReleaseConfig:
    """Make paths absolute: the steps run in processes of their own."""
    from components.mlflow_store.client import with_store
    from components.storage.places import local_path

    def fixed(value: str | None) -> str | None:
        return str(Path(value).resolve()) if value and Path(value).exists() else value

    places: dict[str, Any] = {n: fixed(v) for n, v in dataclasses.asdict(config.data).items()}
    data = dataclasses.replace(config.data, **places)
    registry = with_store(config.registry, out)
    if registry.signing:
        registry = dataclasses.replace(registry, signing=registry.signing.absolute())
    artifacts = config.artifacts
    if artifacts.uri and (folder := local_path(artifacts.uri)) is not None:
        artifacts = dataclasses.replace(artifacts, uri=str(folder.resolve()))
    model = fixed(config.model) or ""
    return dataclasses.replace(config, model=model, data=data, registry=registry, artifacts=artifacts)


def write_report(folder: Path, before_samples: Path | None, after_samples: Path | None, *, redact: bool) -> Path:
    """Write ``report.html`` again from the records of a run.

    Raises:
        EvidenceError: if a record is missing, altered or not of this decision; replies are to be shown whole, and are not.
    """
    from beear_core.report import read_pairs, render

    outcome = read_outcome(folder)
    pairs = read_pairs(before_samples, after_samples)
    if not redact and any(pair.before_left_out or pair.after_left_out for pair in pairs):
        raise EvidenceError(
            f"the replies in {before_samples} or {after_samples} are cut and cannot be shown whole; give those that hold "
            "them in full, work/safety_eval-before/samples.jsonl and work/safety_eval-after/samples.jsonl in the run's "
            "folder or on the steps' volume, or leave out --unredacted"
        )
    page = render(outcome.decision, outcome.evidence, pairs, outcome.release, redact=redact)
    write_atomically(folder / "report.html", page.encode())
    return folder / "report.html"
