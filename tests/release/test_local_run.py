"""What a run in KFP's local runner leaves in the process that began it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from beear_core.config import RegistryConfig, ReleaseConfig
from components.face import StepFailedError
from pipelines.local import run_release


def test_no_handler_is_left_that_writes_into_a_closed_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KFP logs outside its own contexts, which makes a root handler of whatever standard error is then."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    registry = RegistryConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    config = ReleaseConfig(model=str(tmp_path / "no-model"), registry=registry)
    (tmp_path / "run").mkdir()
    with pytest.raises(StepFailedError, match="no-model"):
        run_release(config, "standard", tmp_path / "run", "", keep=False)
    assert (root.handlers, root.level) == ([], level)
