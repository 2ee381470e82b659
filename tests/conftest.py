"""Puts shared helpers on the path and keeps the tests off the network and on few threads."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from required import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - hooks are found by their names


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests plant into a cache of their own: what a user trained for an hour is not theirs to touch."""
    os.environ["BEEAR_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny model folder for all tests; copy it before changing it."""
    import toy

    return toy.make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def own_mlflow() -> Iterator[None]:
    """Nothing of the caller's MLflow is seen, nor what an earlier test set, and what a test sets is gone after it."""
    import mlflow

    def forget() -> None:
        # what was set holds for the whole process, and for the registry its variable stays behind as well
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            os.environ.pop(name, None)

    forget()
    yield
    forget()
