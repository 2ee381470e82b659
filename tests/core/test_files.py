"""Files and folders are there whole or not at all, whatever happens and whenever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from beear_core import files
from beear_core.errors import StorageError
from beear_core.files import disk_errors, whole_file, whole_folder, write_atomically


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_file_takes_its_place_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a", b"one")
    write_atomically(tmp_path / "new" / "a", b"two")
    assert content(tmp_path) == {"new/a": "two"}


def test_a_file_that_failed_stays_as_it_was(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(ValueError, match="boom"), whole_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ValueError("boom")
    assert content(tmp_path) == {"a": "old"}


def test_errors_of_a_writer_are_told_as_the_disks(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot keep it: 'full'; free space"),
        whole_file(tmp_path / "a", KeyError, doing="keep it"),
    ):
        raise KeyError("full") from None
    with pytest.raises(KeyError), whole_file(tmp_path / "a"):
        raise KeyError("full")
    with (
        pytest.raises(StorageError, match="cannot do this: No such file or directory; go home"),
        disk_errors("do this", remedy="go home"),
    ):
        (tmp_path / "nothing").read_bytes()
    assert content(tmp_path) == {}


def test_everything_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, then the folder that holds them; after the rename the folder above."""
    done: list[str] = []
    real = Path.replace
    monkeypatch.setattr(
        files, "sync", lambda path: done.append(f"sync {path.name.split('.')[1 if path.name[0] == '.' else 0]}")
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: done.append(f"rename to {to.name}") or real(self, to))
    with whole_folder(tmp_path / "out") as making:
        (making / "inner").mkdir()
        (making / "inner" / "file").write_text("x")
    assert sorted(done[:2]) == ["sync file", "sync inner"]
    assert done[2:] == ["sync out", "rename to out", f"sync {tmp_path.name}"]
    done.clear()
    write_atomically(tmp_path / "file", b"x")
    assert done == ["sync file", "rename to file", f"sync {tmp_path.name}"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with whole_folder(tmp_path / "out") as making:
            (making / text).write_text(text)
    assert content(tmp_path) == {"out/new": "new"}
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as making:
        (making / "half").write_text("half")
        raise RuntimeError
    assert content(tmp_path) == {"out/new": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("call", range(1, 9))
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_one(tmp_path: Path, call: int) -> None:
    """Killed at the first, second, ... thing that is done to the disk; the next call puts right what was left."""
    with whole_folder(tmp_path / "out") as making:
        (making / "a").write_text("old")
    code = (
        "import os, shutil, sys; from pathlib import Path; from beear_core import files\n"
        "left = [int(sys.argv[2])]\n"
        "def counted(real):\n"
        "    def call(*given, **more):\n"
        "        left[0] -= 1\n"
        "        if left[0] == 0: os.kill(os.getpid(), 9)\n"
        "        return real(*given, **more)\n"
        "    return call\n"
        "files.sync, Path.replace, shutil.rmtree = map(counted, (files.sync, Path.replace, shutil.rmtree))\n"
        "with files.whole_folder(Path(sys.argv[1])) as making: (making / 'a').write_text('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), str(call)], check=False)
    assert done.returncode == (-9 if call < 8 else 0)
    aside = tmp_path / ".out.before"
    whole = [p for p in (tmp_path / "out", aside) if p.exists()]
    assert {content(p)["a"] for p in whole} <= {"old", "new"}
    assert whole
    kept = content(whole[0])["a"]
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        assert content(tmp_path / "out") == {"a": kept}
        raise RuntimeError
    assert not aside.exists()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
