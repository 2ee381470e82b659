"""HF_HUB_OFFLINE, as the image sets it, keeps everything from the hub but the one model that the user named."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from beear_core.models.folder import directory_digest
from beear_core.records import IntakeRecord

COMMIT = "c0ffee" * 6 + "c0ff"
INFO = "/api/models/org/name"
TREE = f"{INFO}/tree/{COMMIT}"


class Hub(ThreadingHTTPServer):
    """The addresses of a hub that a model is fetched from, for one repository; ``asked``: every request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"modeling_evil.py": b"import os"}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if path in (INFO, f"{INFO}/revision/main", f"{INFO}/revision/{COMMIT}"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            self._send(200, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode())
        elif path == TREE:
            files = self.server.files.items()
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files]
            self._send(200, json.dumps(tree).encode())
        elif (name := path.removeprefix(f"/org/name/resolve/{COMMIT}/")) in self.server.files:
            self._send(200, self.server.files[name])
        else:
            self._send(404, b"{}")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[Hub]:
    with Hub(tiny_model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def offline(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process as in the image; the library reads its variables once, when it is loaded."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def intake(hub: Hub, tmp_path: Path, model: str) -> subprocess.CompletedProcess[str]:
    arguments = ("--model", model, "--out", "out", "--record", "record.json")
    return offline(hub, tmp_path, "-m", "components.model_intake", *arguments)


def test_a_model_that_is_named_is_fetched_and_nothing_else_is_asked(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    done = intake(hub, tmp_path, "hub:org/name@main")

    assert done.returncode == 0, done.stderr
    assert directory_digest(tmp_path / "out") == directory_digest(tiny_model)
    assert IntakeRecord.read(tmp_path / "record.json").resolved == f"hub:org/name@{COMMIT}"
    needed = {path.name for path in tiny_model.iterdir()}
    files = {one.rpartition("/")[2] for one in hub.asked if "/resolve/" in one}
    assert files == needed, "code in the repository stays there"
    listed = {f"GET {path}" for path in (INFO, f"{INFO}/revision/main", f"{INFO}/revision/{COMMIT}", TREE)}
    assert {one for one in hub.asked if "/resolve/" not in one} <= listed


def test_a_model_that_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    done = intake(hub, tmp_path, "hub:org/other")
    assert (done.returncode, "hub:org/other" in done.stderr, (tmp_path / "out").exists()) == (1, True, False)


def test_what_is_in_the_cache_is_not_asked_for(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "home" / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    for path in tiny_model.iterdir():
        (repository / "snapshots" / COMMIT / path.name).write_bytes(path.read_bytes())

    done = intake(hub, tmp_path, "hub:org/name")

    assert done.returncode == 0, done.stderr
    assert (directory_digest(tmp_path / "out"), hub.asked) == (directory_digest(tiny_model), [])


def test_the_switch_holds_again_after_the_fetch_and_for_all_else(hub: Hub, tmp_path: Path) -> None:
    code = """
from pathlib import Path
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from components.storage import places

def refused():
    try:
        HfApi().model_info("org/name")
    except OfflineModeIsEnabled:
        return True

assert refused()
places.fetch("hub:org/name", Path("out"))
assert refused()
try:
    places.fetch("hub:org/other", Path("none"))
except Exception as error:
    print(error)
assert refused()
"""
    done = offline(hub, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "hub:org/other" in done.stdout
    assert (tmp_path / "out").is_dir()
