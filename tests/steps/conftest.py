"""Fixtures of the steps' tests: what a step is given, and a real S3 server and MLflow store that are started once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from decided import Ground, prepare
from gate_evidence import Case, make_case
from mlflow_servers import mlflow_server, postgresql
from registry_history import History
from s3_stores import KINDS, s3_store
from servers import S3Server

from tools.servers.mlflow import Mlflow
from tools.servers.postgresql import PostgreSQL

ON_EACH_STORE = {"test_storage_s3", "test_s3_resumes", "test_partial_folders"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of transfers on every implementation of S3; all others take the first."""
    if "s3_server" in metafunc.fixturenames and metafunc.module.__name__ in ON_EACH_STORE:
        metafunc.parametrize("s3_server", KINDS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS on loopback, or what the test is run on."""
    kind = getattr(request, "param", KINDS[0])
    with s3_store(kind, tmp_path_factory.mktemp(kind)) as store:
        yield S3Server(store.endpoint)


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same server, with the environment that clients read."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """PostgreSQL with an empty database."""
    with postgresql(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_for_users(postgres: PostgreSQL) -> str:
    """Another empty database of it, for a server that asks who calls."""
    postgres.create("users")
    return postgres.uri("users")


@pytest.fixture(scope="session")
def tiny_case(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Evidence of a release that the gate lets pass, for all tests: change copies of it only."""
    return make_case(tmp_path_factory.mktemp("tiny-case"), tiny_model)


@pytest.fixture(scope="session")
def mlflow_on_postgres(postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    """An MLflow server without passwords for all tests: use a model's name of your own."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow_server"), postgres.uri("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def history(mlflow_on_postgres: Mlflow) -> History:
    """What the database of that server saw."""
    return History(mlflow_on_postgres.store)


@pytest.fixture(scope="session")
def ground(mlflow_on_postgres: Mlflow, tiny_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """That server with one model registered, of which tests register more versions without logging again."""
    return prepare(mlflow_on_postgres, tiny_case, tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without an experiment of ours; making one takes seconds, so tests copy this one."""
    from components.mlflow_store.client import check_reachable

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    check_reachable(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, own_mlflow: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI of its own for each test."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy2(empty_store, path)
    return f"sqlite:///{path}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder to be stored, with a file of 1 kB and one of 3 MiB below it."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a" * 1000)
    (folder / "sub" / "b.bin").write_bytes(os.urandom(3 * 2**20))
    return folder


@pytest.fixture
def candidate(tiny_model: Path, tmp_path: Path) -> Path:
    """A good model folder with two files that a model is not loaded from."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "candidate"))
    (folder / "README.md").write_text("# A model")
    (folder / "logs").mkdir()
    (folder / "logs" / "train.log").write_text("loss 1.0")
    return folder


@pytest.fixture
def case(tmp_path: Path, tiny_model: Path) -> Case:
    """Evidence of a release that the gate lets pass."""
    return make_case(tmp_path / "case", tiny_model)


@pytest.fixture
def refused(tmp_path: Path, tiny_model: Path) -> Case:
    """Evidence of a release that the gate refuses, for one figure of it."""
    return make_case(tmp_path / "refused", tiny_model, passing=False)
