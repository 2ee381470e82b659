"""Fixtures of the cluster's tests: a Kubeflow Pipelines on loopback, a configuration for it, and the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubeflow_command import Beear, Done, write
from kubeflow_server import Kubeflow, kubeflow

from pipelines import cli


@pytest.fixture
def server() -> Iterator[Kubeflow]:
    with kubeflow() as held:
        yield held


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A configuration that a cluster can see all of."""
    return write(tmp_path / "release.yaml", {"model": "s3://models/candidate", "registry": {"model_name": "chat"}})


@pytest.fixture
def beear(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Beear:
    """``beear pipeline`` in this process, told of the server and nothing else of the caller's Kubeflow and MLflow."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "KF_PIPELINES_", "KUBERNETES_", "BEEAR_KFP"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "no-context.json"))
    if "server" in request.fixturenames:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", request.getfixturevalue("server").host)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["beear", "pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run
