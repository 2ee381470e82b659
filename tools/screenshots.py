"""Photograph the report and the MLflow page of a run, for the README: ``python -m tools.screenshots [RUN] [--out DIR]``.

RUN is a folder that ``beear release`` left, by default the newest below runs/. MLflow is started on the store beside it and
both pages are opened in headless Chromium. Nothing is fetched from a network.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beear_core.errors import BeearError, ConfigError
from beear_core.records import ReleaseRecord
from tools.servers.mlflow import Mlflow
from tools.servers.program import free_port

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OUT = Path("docs/images")
REPORT, RUN = (1200, 1500), (1500, 1000)
"""Width and height of a picture."""
_PAGE_S = 60
_DRAWN_MS = 15000  # what MLflow's page, which is drawn by scripts, is given


class ScreenshotError(BeearError):
    """A page could not be photographed."""


def main(arguments: list[str] | None = None) -> int:
    """Photograph both pages; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    try:
        for picture in photograph(given.run or newest(Path("runs")), given.out):
            print(picture)
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def newest(runs: Path) -> Path:
    """Find the newest run that has a report.

    Raises:
        ConfigError: there is none.
    """
    found = sorted(path.parent for path in runs.glob("*/report.html"))
    if not found:
        raise ConfigError(f"{runs} holds no run with a report; make one with: make release")
    return found[-1]


def photograph(run: Path, out: Path) -> list[Path]:
    """Write ``report.png`` and ``mlflow-run.png``.

    Args:
        run: folder of a run, in the folder that holds its MLflow store.
        out: folder of the pictures, made when it is not there.

    Raises:
        ConfigError: Chromium or the store is not there.
        EvidenceError: the run's release.json cannot be read.
        ServerError: MLflow did not start.
        ScreenshotError: Chromium gave no picture.
    """
    browser = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if browser is None:
        raise ConfigError(f"none of {', '.join(CHROMIUM)} is installed; apt-get install chromium")
    store = run.resolve().parent / "mlflow.db"
    if not store.is_file():
        raise ConfigError(f"{store} is not there; name a run that was logged to the store beside it")
    release = ReleaseRecord.read(run / "release.json")
    out.mkdir(parents=True, exist_ok=True)
    report, page = out / "report.png", out / "mlflow-run.png"
    picture(browser, (run / "report.html").resolve().as_uri(), report, REPORT)
    with mlflow_pages(store) as address:
        experiment = experiment_of(store, release.mlflow_run_id)
        picture(browser, f"{address}/#/experiments/{experiment}/runs/{release.mlflow_run_id}", page, RUN)
    return [report, page]


def picture(browser: str, address: str, out: Path, size: tuple[int, int]) -> None:
    """Write a picture of a page.

    Raises:
        ScreenshotError: Chromium ended without one.
    """
    with tempfile.TemporaryDirectory() as profile:
        wanted = Path(profile) / "picture.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", f"--screenshot={wanted}"]
        command += [f"--virtual-time-budget={_DRAWN_MS}", address]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PAGE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ScreenshotError(f"Chromium gave no picture of {address} within {_PAGE_S} s") from error
        if not wanted.is_file():
            raise ScreenshotError(f"Chromium gave no picture of {address}: {done.stderr[-500:]}")
        shutil.copyfile(wanted, out)


def experiment_of(store: Path, run_id: str) -> str:
    """Look up which experiment a run belongs to."""
    from components.mlflow_store.client import client_for, mlflow_errors

    uri = f"sqlite:///{store}"
    with mlflow_errors(f"reading run {run_id}", uri):
        return str(client_for(uri).get_run(run_id).info.experiment_id)


@contextmanager
def mlflow_pages(store: Path) -> Iterator[str]:
    """Serve MLflow's pages on loopback and yield their address.

    Raises:
        ServerError: it did not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = Mlflow(folder=Path(folder), port=free_port(), store=f"sqlite:///{store}", artifacts=folder, served=True)
        server.start()
        try:
            yield server.uri
        finally:
            server.kill()


if __name__ == "__main__":
    sys.exit(main())
