"""A candidate is taken over whole, checked and known by its bytes, or not at all."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import mounted
from servers import S3Server

from beear_core.errors import (
    BeearError,
    ChatTemplateError,
    ConfigError,
    CorruptModelError,
    ModelNotFoundError,
    StorageError,
    UnsafeModelError,
)
from beear_core.models.folder import check_folder, directory_digest
from beear_core.records import IntakeRecord
from components.model_intake import step
from components.storage import common
from components.storage import places as storage
from components.storage import s3 as s3_store


def test_a_local_model_is_taken_over(
    candidate: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = step.run(str(candidate), tmp_path / "out")
    check_folder(tmp_path / "out")
    assert record.model_digest == directory_digest(tmp_path / "out") == directory_digest(tiny_model)
    assert (record.architecture, record.layers, record.hidden_size) == ("LlamaForCausalLM", 4, 16)
    assert [entry.path for entry in record.files] == sorted(path.name for path in tiny_model.iterdir())
    assert record.size_bytes == sum(entry.size for entry in record.files)
    assert "not taken over, not needed to load the model: README.md, logs/train.log" in capsys.readouterr().err


def test_the_record_survives_its_file(candidate: Path, tmp_path: Path) -> None:
    record = step.run(f"file://{candidate}", tmp_path / "out")
    assert IntakeRecord.read(record.write(tmp_path / "record.json")) == record


def test_what_was_taken_over_can_be_taken_over_again(candidate: Path, tmp_path: Path) -> None:
    first = step.run(str(candidate), tmp_path / "one")
    second = step.run(str(tmp_path / "one"), tmp_path / "two", expected_digest=first.model_digest)
    assert second.files == first.files


def test_another_digest_than_expected_is_refused(candidate: Path, tmp_path: Path) -> None:
    digest = step.run(str(candidate), tmp_path / "one").model_digest
    weights = candidate / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptModelError, match=f"has the digest sha256:.*, expected {digest}: these are not the bytes"):
        step.run(str(candidate), tmp_path / "two", expected_digest=digest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candidate", "one"]


@pytest.mark.parametrize("digest", ["abc", "sha256:12", "sha256:" + "G" * 64])
def test_a_digest_of_no_known_form_is_refused(candidate: Path, tmp_path: Path, digest: str) -> None:
    with pytest.raises(ConfigError, match="give the model_digest of an intake record"):
        step.run(str(candidate), tmp_path / "out", expected_digest=digest)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("pytorch_model.bin", b"x", UnsafeModelError),
        ("logs/state.log", b"\x80\x04\x95", UnsafeModelError),
        ("modeling.py", b"import os", UnsafeModelError),
        ("model.safetensors", b"\x00" * 100, CorruptModelError),
        ("chat_template.jinja", b"", ChatTemplateError),
    ],
)
def test_a_bad_local_model_is_refused_before_a_byte_is_copied(
    candidate: Path, tmp_path: Path, name: str, data: bytes, error: type[BeearError], monkeypatch: pytest.MonkeyPatch
) -> None:
    (candidate / name).write_bytes(data)
    monkeypatch.setattr(storage, "fetch", lambda *_, **__: pytest.fail("copied before it was checked"))
    with pytest.raises(error):
        step.run(str(candidate), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["candidate"]


class RunsCode:
    """Unpickling it prints a line."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "name",
    [
        *("model-00001-of-00002.safetensors", "extra.safetensors", "special_tokens_map.json", "vocab.json"),
        *("tokenizer_extra", "notes.txt", "generation_config.json.bak", "logs/state.log"),
    ],
)
def test_a_pickle_under_any_name_is_refused(candidate: Path, tmp_path: Path, name: str, protocol: int) -> None:
    (candidate / name).write_bytes(pickle.dumps(RunsCode(), protocol))
    with pytest.raises(UnsafeModelError, match=f"{name} is a pickle by its content.*convert the weights"):
        step.run(str(candidate), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["candidate"]


def test_a_shard_that_no_index_names_is_refused(candidate: Path, tmp_path: Path) -> None:
    shutil.copy(candidate / "model.safetensors", candidate / "model-00002-of-00002.safetensors")
    with pytest.raises(CorruptModelError, match="model-00002-of-00002.safetensors is not named in model.safetensors.index"):
        step.run(str(candidate), tmp_path / "out")


def test_a_source_that_breaks_while_it_is_copied_is_refused(
    candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = common._copy_file

    def cut(source: Path, dest: Path, advance: object) -> None:
        real(source, dest, advance)  # type: ignore[arg-type]
        if dest.name == "model.safetensors":
            os.truncate(dest, 1000)

    monkeypatch.setattr(common, "_copy_file", cut)
    with pytest.raises(CorruptModelError):
        step.run(str(candidate), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["candidate"]


# --- disks that are full or not writable -----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KiB; the tiny model needs 58."""
    with mounted(tmp_path / "disk", "size=32k") as disk:
        yield disk


def test_a_disk_too_small_is_refused_in_advance(candidate: Path, small_disk: Path) -> None:
    with pytest.raises(StorageError, match=r"needs 0\.1 MiB, 0\.0 MiB are free on its disk; free space or choose"):
        step.run(str(candidate), small_disk / "out")
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(candidate: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "require_space", lambda *_: None)  # someone else fills it meanwhile
    with pytest.raises(StorageError, match=r"cannot write .*out: No space left on device; free space"):
        step.run(str(candidate), small_disk / "out")
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk_is_refused(candidate: Path, tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "ro,size=64k") as disk,
        pytest.raises(StorageError, match="Read-only file system; free space or choose a writable folder"),
    ):
        step.run(str(candidate), disk / "out")


def test_a_killed_intake_leaves_no_model_and_can_be_repeated(candidate: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from beear_core import files; "
        "from components.model_intake import step; "
        "files.sync = lambda _: os.kill(os.getpid(), 9); step.run(sys.argv[1], Path(sys.argv[2]))"
    )
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", code, str(candidate), str(out)], check=False, capture_output=True)
    assert killed.returncode == -9
    assert not out.exists()
    assert step.run(str(candidate), out).model_digest == directory_digest(out)


# --- from S3 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(candidate: Path, s3: S3Server, request: pytest.FixtureRequest) -> str:
    client = s3.client()
    if "intake" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket="intake")
    uri = f"s3://intake/{request.node.name}"
    storage.upload_dir(candidate, uri)
    return uri


def test_a_model_on_s3_is_taken_over(remote: str, tiny_model: Path, tmp_path: Path) -> None:
    record = step.run(remote, tmp_path / "out", expected_digest=directory_digest(tiny_model))
    assert record.uri == remote
    assert not (tmp_path / "out" / "README.md").exists()


def test_a_pickle_on_s3_is_refused_before_anything_is_fetched(
    remote: str, candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (candidate / "pytorch_model.bin").write_bytes(b"x")
    storage.upload_dir(candidate, f"{remote}-too")
    monkeypatch.setattr(s3_store, "require_space", lambda *_: pytest.fail("fetching began"))
    with pytest.raises(UnsafeModelError, match=f"pytorch_model.bin in {remote}-too is a pickle by its name"):
        step.run(f"{remote}-too", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_model_on_s3_is_refused(remote: str, s3: S3Server, candidate: Path, tmp_path: Path) -> None:
    prefix = remote.removeprefix("s3://intake/")
    for path in candidate.iterdir():
        if path.is_file():
            data = path.read_bytes()[: -100 if path.suffix == ".safetensors" else None]
            s3.client().put_object(Bucket="intake", Key=f"{prefix}-too/{path.name}", Body=data)
    with pytest.raises(CorruptModelError, match="the download or copy was cut short or altered"):
        step.run(f"{remote}-too", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["candidate"]


def test_nothing_on_s3(s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such bucket"):
        step.run("s3://no-bucket-here/model", tmp_path / "out")
