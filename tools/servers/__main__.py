"""Bring the servers up or down: ``python -m tools.servers up | down [--folder DIR] [--port N]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from beear_core.errors import BeearError
from tools.servers.cluster import BUCKET, PORT, USER, Cluster


def main() -> int:
    """Do what was asked and say what runs; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools.servers", description=__doc__)
    parser.add_argument("verb", choices=("up", "down"))
    parser.add_argument("--folder", type=Path, default=Path(".servers"), help="for data, logs and passwords")
    parser.add_argument("--port", type=int, help=f"the first of their ports; as the last time, else {PORT}")
    given = parser.parse_args()
    try:
        return _up(Cluster(given.folder, given.port)) if given.verb == "up" else _down(given.folder)
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _up(cluster: Cluster) -> int:
    started = cluster.up()
    places = {
        cluster.database.name: f"127.0.0.1:{cluster.database.port}",
        cluster.store.name: f"{cluster.store.endpoint}, bucket {BUCKET}",
        cluster.mlflow.name: f"{cluster.mlflow.uri}, user {USER}",
    }
    for name, place in places.items():
        print(f"{name:10}  {'started' if started[name] else 'runs   '}  {place}")
    print(
        f"\nPasswords: {cluster.env_file}; of MLflow's user admin: {cluster.folder / 'passwords.json'}. Data and logs lie\n"
        "beside them. To release with these servers, and to end them:\n\n"
        f"  source {cluster.env_file}\n  beear release --model s3://{BUCKET}/...\n  make down"
    )
    return 0


def _down(folder: Path) -> int:
    if not folder.is_dir():
        print(f"nothing was started in {folder}")
        return 0
    for name, ran in Cluster(folder).down().items():
        print(f"{name:10}  {'ended' if ran else 'did not run'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
