"""The pre-flight counts what a release keeps on disk at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from beear_core.config import MitigationConfig, ReleaseConfig
from beear_core.errors import StorageError
from beear_core.models.folder import describe
from pipelines import preflight


@pytest.mark.parametrize(
    ("mitigation", "weights"),
    [
        (MitigationConfig(enabled=False), 0),
        (MitigationConfig(), 2),
        (MitigationConfig(method="flush"), 3),
        (MitigationConfig(method="both"), 3),
    ],
)
def test_intermediate_weights_are_counted_with_those_of_planted_triggers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mitigation: MitigationConfig, weights: int
) -> None:
    facts = describe(tiny_model)
    need = 3 * facts.size_bytes + weights * 4 * facts.parameters
    config = ReleaseConfig(model=str(tiny_model), mitigation=mitigation)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need))
    assert "needed" in preflight._disk(config, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need - 1))
    with pytest.raises(StorageError, match="3 copies of the model and the mitigation's intermediate weights"):
        preflight._disk(config, tmp_path)
