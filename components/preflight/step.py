"""Look at everything that a release needs, from a pod like those of its steps, and open the MLflow run that they share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from beear_core.config import (
    ArtifactsConfig,
    DataConfig,
    EvaluationConfig,
    MitigationConfig,
    PromotionConfig,
    RegistryConfig,
    ReleaseConfig,
    parse_json,
)
from beear_core.errors import ConfigError
from beear_core.progress import say
from beear_core.uris import without_secrets
from components.mlflow_store.client import mlflow_errors, required_uri
from components.mlflow_store.steps import open_pipeline_run
from components.mlflow_store.tracking import Tracker
from components.preflight.looks import Finding, examine, looks_at, own_disk, raise_faults

_SECTIONS: Mapping[str, type] = {
    "data": DataConfig,
    "mitigation": MitigationConfig,
    "evaluation": EvaluationConfig,
    "registry": RegistryConfig,
    "promotion": PromotionConfig,
    "artifacts": ArtifactsConfig,
}
CONFIGURATION = "configuration.json"


def run(
    model: str,
    policy: str,
    sections: Mapping[str, str],
    *,
    mlflow_run_id: str = "",
    kfp_run_id: str = "",
    opened: Callable[[str], None] = lambda _: None,
) -> str:
    """Open the run and look at every part; all that is wrong is said at once, and stands in the run.

    Args:
        model: where the candidate is.
        policy: a shipped policy's name, or the text of one.
        sections: of the configuration, each as JSON: ``data``, ``mitigation``, ``evaluation``, ``registry``, ``promotion``,
            ``artifacts``.
        mlflow_run_id: of a run to attach to; empty: MLFLOW_RUN_ID, else one is opened, or found that an earlier attempt
            opened.
        kfp_run_id: of the pipeline's run, which the MLflow run is found by.
        opened: told the run's id as soon as there is one.

    Returns:
        The run's id.

    Raises:
        ConfigError: every fault of the configuration, or several faults of any kind.
        BeearError: the only fault.
    """
    parsed: dict[str, Any] = {}
    trackers: list[Tracker] = []

    def parse(name: str) -> str:
        parsed[name] = parse_json(_SECTIONS[name], sections[name], f"{name} configuration")
        return ""

    def open_run() -> str:
        registry = parsed["registry"]
        uri = required_uri(registry.tracking_uri)
        tracker = open_pipeline_run(uri, registry.experiment, mlflow_run_id, kfp_run_id, "preflight")
        trackers.append(tracker)
        opened(tracker.run_id)
        return f"run {tracker.run_id} at {without_secrets(uri)}"

    findings = examine((name, lambda name=name: parse(name)) for name in sections)  # type: ignore[misc]
    if "registry" in parsed:
        # first of all: whatever else is found is left in this run
        findings += examine([("registry", open_run)])
    if len(parsed) == len(sections):
        findings += examine([("configuration", lambda: _log(trackers, _configuration(model, policy, parsed)))])
    if not any(finding.error for finding in findings if finding.part != "registry"):
        config = _configuration(model, policy, parsed)
        uri = config.registry.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        findings += examine([*looks_at(config, uri), ("disk", lambda: own_disk(Path(tempfile.gettempdir())))])
    _show(findings)
    raise_faults(findings)
    return trackers[0].run_id


def _configuration(model: str, policy: str, parsed: Mapping[str, Any]) -> ReleaseConfig:
    try:
        return ReleaseConfig(model=model, policy=policy, **parsed)
    except ValueError as error:
        raise ConfigError(f"the configuration has 1 fault(s): {error}") from error


def _log(trackers: list[Tracker], config: ReleaseConfig) -> str:
    """Log the configuration as parameters and as a file, so that both stores were written to before anything long."""
    for tracker in trackers:
        with mlflow_errors("logging the configuration", tracker.uri):
            tracker.log_config(config.plain())
            tracker.client.log_dict(tracker.run_id, config.plain(), CONFIGURATION)
    return "logged" if trackers else "can be meant"


def _show(findings: list[Finding]) -> None:
    for finding in findings:
        if finding.detail:
            say(f"{finding.part}: {finding.detail}")


def run_component(
    *,
    model_uri: str,
    policy: str,
    sections: Mapping[str, str],
    mlflow_run_id: str,
    kfp_run_id: str,
    opened: Callable[[str], None],
) -> str:
    """Run the step as its Kubeflow face calls it; returns the id of the MLflow run."""
    return run(model_uri, policy, sections, mlflow_run_id=mlflow_run_id, kfp_run_id=kfp_run_id, opened=opened)
