"""MLflow servers on loopback for tests: on PostgreSQL or SQLite, with or without passwords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.servers.mlflow import Mlflow
from tools.servers.postgresql import PostgreSQL
from tools.servers.program import free_port

ADMIN, PASSWORD = "admin", "an-admin-password"
BASIC = "mlflow.server.auth:authenticate_request_basic_auth"


def new_mlflow(
    folder: Path, store: str, *, auth: bool = False, authorization: str = BASIC, given: Mapping[str, str] | None = None
) -> Mlflow:
    """A server that keeps its artifacts in ``folder`` and serves them.

    ``store``: SQLAlchemy's URI of its database. ``authorization``: the function that says who calls, where that is asked.
    """
    users = (
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder / 'auth.db'}\n"
        f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\nauthorization_function = {authorization}\n"
        # by default each call hashes the password anew, by scrypt: 0.1 s, and a release makes 500 calls
        "auth_cache_ttl_seconds = 600\n"
    )
    return Mlflow(
        folder=folder,
        port=free_port(),
        store=store,
        artifacts=str(folder / "artifacts"),
        served=True,
        auth=users if auth else "",
        given={"MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests alone", **(given or {})},
    )


@contextmanager
def mlflow_server(folder: Path, store: str, *, auth: bool = False) -> Iterator[Mlflow]:
    """Run an MLflow server; it answers when the block begins.

    Raises:
        ServerError: see ``Program.start``.
    """
    server = new_mlflow(folder, store, auth=auth)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Run PostgreSQL with its data in ``folder``."""
    server = PostgreSQL(folder=folder, port=free_port(), user="postgres", password="a-superusers-password")
    server.start()
    try:
        yield server
    finally:
        server.kill()
