"""The gate run on made up evidence, and what its registry then holds, for the tests of the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gate_evidence import Case, make_case, other_seconds
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from beear_core.config import RegistryConfig
from beear_core.records import Decision, EvaluationRecord, ReleaseRecord
from components.registry_gate import step

NAME = "release-candidate"


def config(store: str) -> RegistryConfig:
    return RegistryConfig(tracking_uri=store)


def gate(case: Case, store: str, out: Path, **changes: Any) -> tuple[Decision, ReleaseRecord]:
    given: dict[str, Any] = {
        "policy": "standard",
        "registry": config(store),
        "out": out,
        "before_samples": case.before_samples,
        "after_samples": case.after_samples,
        **changes,
    }
    return step.run(case.model, case.evidence, **given)


def registry_of(store: str) -> MlflowClient:
    # without the second argument MLflow takes whatever registry this process used last
    return MlflowClient(store, registry_uri=store)


def champion(store: str) -> str | None:
    try:
        return str(registry_of(store).get_model_version_by_alias(NAME, "champion").version)
    except MlflowException:
        return None


def versions(store: str) -> list[Any]:
    found = registry_of(store).search_model_versions(f"name='{NAME}'")
    return sorted(found, key=lambda v: int(v.version))


def again(case: Case, folder: Path, seconds: float) -> Case:
    """The same model measured once more: another decision."""
    made = make_case(folder, case.model)
    made.change("after", other_seconds(EvaluationRecord.read(made.evidence["after"]), seconds))
    return made


def broken(*_: Any, **__: Any) -> None:
    raise MlflowException("the connection was dropped")
