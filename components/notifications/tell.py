"""What people are told: what was decided on which version and why, and where to look. No request, no reply, no secret."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from beear_core.config import NotifiedEvent, RegistryConfig
from beear_core.errors import BeearError
from beear_core.records import CheckResult, ReleaseRecord, StatusRecord
from components.notifications.send import send

_CHECKS = 10
_LINE = 300  # characters; chat services cut long messages anywhere
_MAY_QUOTE = frozenset({"DataError", "EvaluationError", "EvidenceError", "MitigationError"})
"""Errors that may repeat a row of data."""


def tell_decided(release: ReleaseRecord, registry: RegistryConfig, failed: Sequence[CheckResult] = ()) -> None:
    """Tell what was decided and became of the alias.

    Args:
        release: what the gate left.
        registry: which events are told.
        failed: the checks that failed, with their figures.
    """
    waiting: NotifiedEvent = "awaiting_approval" if release.awaiting_approval else "refused"
    event: NotifiedEvent = "promoted" if release.promoted else waiting
    version = f"{release.model_name} version {release.model_version}"
    lines = [
        f"{release.alias}: {_version(release.champion_after)}, before: {_version(release.champion_before)}",
        f"summary: {release.tags.get('summary', event)}",
        f"decision: {release.decision_digest}",
        *(f"approved by {a.by}: {a.reason}" for a in [release.approval] if a),
        *(f"waived by {w.owner} until {w.expires}: {w.label}: {w.reason}" for w in release.waivers),
        *(f"failed: {check.check}: {check.reason}" for check in failed[:_CHECKS]),
        *([f"failed: {len(failed) - _CHECKS} more"] if len(failed) > _CHECKS else []),
        f"MLflow run: {release.mlflow_run_id} at {release.tracking_uri}; report.html and records are among its artifacts",
    ]
    _tell(event, registry, f"{version}: {release.outcome}", lines)


def tell_rolled_back(registry: RegistryConfig, left: str, now: str, tracking_uri: str) -> None:
    """Tell that the alias was moved back from one version to another; ``tracking_uri`` without secrets."""
    lines = [f"{registry.alias}: version {now}, before: version {left}", f"MLflow: {tracking_uri}"]
    _tell("rolled_back", registry, f"{registry.model_name}: rolled back to version {now}", lines)


def tell_run_failed(status: StatusRecord, registry: RegistryConfig) -> None:
    """Tell that a run of the pipeline failed, in which step and why; nothing of one that did not."""
    if status.state != "failed":
        return
    failed = next((step for step in status.steps if step.step == status.failed_step and step.state == "failed"), None)
    lines = [
        f"step: {status.failed_step or 'unknown'}",
        _reason(status.error, status.message, failed.exit_code if failed else None),
        *([f"the model was decided on before: {status.outcome}"] if status.outcome else []),
        *([f"MLflow run: {status.mlflow_run_id}; status.html is among its artifacts"] if status.mlflow_run_id else []),
        *([f"Kubeflow run: {status.kfp_run_id}"] if status.kfp_run_id else []),
    ]
    _tell_failed(registry, lines)


@contextmanager
def telling_failure(registry: RegistryConfig) -> Iterator[None]:
    """Tell of an error that ends the block; it goes on its way unchanged."""
    try:
        yield
    except BeearError as error:
        _tell_failed(registry, [_reason(error.kind, f"{error}", error.exit_code)])
        raise
    except Exception as error:
        _tell_failed(registry, [_reason(type(error).__name__, "", 1)])
        raise


def _tell_failed(registry: RegistryConfig, lines: Sequence[str]) -> None:
    _tell("failed", registry, f"{registry.model_name}: the release failed", lines)


def _reason(kind: str, message: str, exit_code: int | None) -> str:
    first = message.partition("\n")[0]
    if not first or kind in _MAY_QUOTE:
        first = "its message is in the log"
    named = [kind] if kind else []
    named += [f"exit code {exit_code}"] if exit_code is not None else []
    return f"{', '.join(named)}: {first}" if named else first


def _tell(event: NotifiedEvent, registry: RegistryConfig, title: str, lines: Sequence[str]) -> None:
    if event in registry.notify_on:
        send(f"beear-gate: {title}", "\n".join(f"{line:.{_LINE}}" for line in lines))


def _version(number: str | None) -> str:
    return f"version {number}" if number else "no version"
