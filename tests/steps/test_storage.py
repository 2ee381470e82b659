"""Folders from and to every store: whole or not at all, and with a message that helps when it fails."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from servers import S3Server, free_port

from beear_core.errors import BeearError, ConfigError, ModelNotFoundError, RegistryError, StorageError, UnsafeModelError
from beear_core.models.folder import directory_digest
from components.storage import common, hub
from components.storage import mlflow_models as registry
from components.storage import places as storage
from components.storage import s3 as s3_store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a" * 1000)
    (folder / "sub" / "b.bin").write_bytes(os.urandom(3 * common.MIB))
    return folder


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A fresh prefix in the one bucket of these tests, as ``bucket/prefix``."""
    with suppress(s3.client().exceptions.BucketAlreadyExists, s3.client().exceptions.BucketAlreadyOwnedByYou):
        s3.client().create_bucket(Bucket="storage-tests")
    return f"storage-tests/{uuid.uuid4().hex[:12]}"


def put(s3: S3Server, place: str, data: bytes) -> None:
    name, _, key = place.partition("/")
    s3.client().put_object(Bucket=name, Key=key, Body=data)


def keys(s3: S3Server, place: str) -> list[str]:
    name, _, prefix = place.partition("/")
    found = s3.client().list_objects_v2(Bucket=name, Prefix=f"{prefix}/").get("Contents", ())
    return [item["Key"].removeprefix(f"{prefix}/") for item in found]


def nothing_left(folder: Path, *kept: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


# --- local ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_folder_arrives_as_it_is(source: Path, tmp_path: Path, form: str) -> None:
    assert storage.fetch(form.format(source), tmp_path / "new" / "dest") == ()
    assert directory_digest(tmp_path / "new" / "dest") == directory_digest(source)
    nothing_left(tmp_path / "new", "dest")


def test_a_file_uri_may_be_quoted(source: Path, tmp_path: Path) -> None:
    source.rename(tmp_path / "with space")
    storage.fetch(f"file://{tmp_path}/with%20space", tmp_path / "dest")
    assert (tmp_path / "dest" / "a.txt").exists()


def test_a_copy_is_no_link_to_the_source(source: Path, tmp_path: Path) -> None:
    storage.fetch(str(source), tmp_path / "dest")
    with (source / "a.txt").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "dest" / "a.txt").read_bytes() == b"a" * 1000


def test_only_the_selected_files_are_taken(source: Path, tmp_path: Path) -> None:
    left_out = storage.fetch(str(source), tmp_path / "dest", select=lambda names: [n for n in names if n == "a.txt"])
    assert left_out == ("sub/b.bin",)
    nothing_left(tmp_path / "dest", "a.txt")


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("", ConfigError, "no place given; name a folder, file://"),
        ("gs://bucket/x", ConfigError, "is of an unknown kind; name a folder, file://, s3://"),
        ("file://host/x", ConfigError, "does not name a local folder; write file:///absolute/path"),
        ("s3://bucket", ConfigError, "names no folder in a bucket; write s3://bucket/prefix"),
        ("s3:///prefix", ConfigError, "names no folder in a bucket"),
        ("models:/name", ConfigError, "not a model version; write models:/name@alias or models:/name/3"),
        ("models:/name/latest", ConfigError, "not a model version"),
        ("hub:name", ConfigError, "not a model of the hub; write hub:org/name"),
        ("hub:or g/name", ConfigError, "'hub:or g/name' is not a model of the hub: Repo id must use.*; write hub:org/name"),
        ("file://[x/y", ConfigError, r"'file://\[x/y' is no URI \(.*\); write file:///absolute/path"),
        ("/nowhere/at/all", ModelNotFoundError, "model folder /nowhere/at/all does not exist"),
    ],
)
def test_a_place_that_cannot_be_is_refused(
    tmp_path: Path, uri: str, error: type[BeearError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error, match=message):
        storage.fetch(uri, tmp_path / "dest")
    nothing_left(tmp_path)


def test_nothing_is_written_over(source: Path, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "mine").write_text("keep")
    with pytest.raises(StorageError, match="dest exists already and is not overwritten; remove it or choose another"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path / "dest", "mine")


def test_an_empty_destination_is_filled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    storage.fetch(str(source), tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(source)


def test_links_out_of_the_folder_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "c").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeModelError, match="outside the model folder"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_a_folder_that_does_not_fit_is_refused_before_copying(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=common.MIB))
    with pytest.raises(StorageError, match=r"needs 3\.0 MiB, 1\.0 MiB are free on its disk; free space or choose"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path, "source")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=f"cannot write .*dest: {os.strerror(code)}; free space or choose a writable"):
        storage.fetch(str(source), tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_a_folder_that_is_refused_on_arrival_leaves_nothing(source: Path, tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def refuse(folder: Path) -> NoReturn:
        seen.append({path.name for path in folder.iterdir()})
        raise StorageError("not this one")

    with pytest.raises(StorageError, match="not this one"):
        storage.fetch(str(source), tmp_path / "dest", accept=refuse)
    assert seen == [{"a.txt", "sub"}]
    nothing_left(tmp_path, "source")


def test_upload_to_a_local_folder(source: Path, tmp_path: Path) -> None:
    storage.upload_dir(source, f"file://{tmp_path}/copy")
    assert directory_digest(tmp_path / "copy") == directory_digest(source)
    with pytest.raises(StorageError, match="exists already"):
        storage.upload_dir(source, str(tmp_path / "copy"))


def test_upload_where_it_cannot_go(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot upload to 'models:/a/1'; name a folder or s3://"):
        storage.upload_dir(source, "models:/a/1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="is empty, there is nothing to upload"):
        storage.upload_dir(tmp_path / "empty", str(tmp_path / "copy"))


# --- S3 ------------------------------------------------------------------------------------------------------------


def test_s3_round_trip(source: Path, tmp_path: Path, bucket: str) -> None:
    (source / "large.bin").write_bytes(os.urandom(20 * common.MIB))  # more than one part
    storage.upload_dir(source, f"s3://{bucket}/models/one/")
    storage.fetch(f"s3://{bucket}/models/one", tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(source)


def test_s3_prefixes_are_folders_not_beginnings(source: Path, tmp_path: Path, bucket: str) -> None:
    storage.upload_dir(source, f"s3://{bucket}/model-two")
    with pytest.raises(ModelNotFoundError, match=f"nothing lies below s3://{bucket}/model; check the bucket and the pref"):
        storage.fetch(f"s3://{bucket}/model", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_only_the_selected_objects_are_fetched(source: Path, tmp_path: Path, bucket: str, s3: S3Server) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    put(s3, f"{bucket}/m/folder/", b"")
    left_out = storage.fetch(f"s3://{bucket}/m", tmp_path / "dest", select=lambda names: ["a.txt"])
    assert left_out == ("sub/b.bin",)
    nothing_left(tmp_path / "dest", "a.txt")


def test_s3_missing_bucket(source: Path, tmp_path: Path, s3: S3Server) -> None:
    with pytest.raises(ModelNotFoundError, match="no such bucket for s3://no-such-bucket/x at http://127"):
        storage.fetch("s3://no-such-bucket/x", tmp_path / "dest")
    nothing_left(tmp_path, "source")


def test_s3_is_not_written_over(source: Path, bucket: str, s3: S3Server) -> None:
    put(s3, f"{bucket}/m/old.txt", b"old")
    with pytest.raises(StorageError, match=f"s3://{bucket}/m holds objects already and is not overwritten; choose"):
        storage.upload_dir(source, f"s3://{bucket}/m")
    assert keys(s3, f"{bucket}/m") == ["old.txt"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
    ],
)
def test_s3_wrong_key(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=f"refuses with {code}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path)


def test_s3_identity_that_may_only_read(source: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment(read_only=True).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"refuses with AccessDenied; check .* what this identity may do"):
        storage.upload_dir(source, f"s3://{bucket}/m")


def test_s3_unreachable_gives_up_soon(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match=f"{endpoint} cannot be reached after 4 attempts .*check AWS_ENDPOINT_URL"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")
    nothing_left(tmp_path)


def test_s3_at_an_endpoint_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
    with pytest.raises(ConfigError, match="S3: Invalid endpoint: nonsense; set AWS_ENDPOINT_URL to something like http"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")


def test_s3_without_credentials(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no credentials found; check AWS_ACCESS_KEY_ID"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")


def test_s3_names_that_leave_the_folder_are_refused(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_list", lambda *_: {"../evil.txt": 1})
    with pytest.raises(StorageError, match=r"holds the name '\.\./evil\.txt', which leaves its folder"):
        storage.fetch("s3://bucket/m", tmp_path / "dest")
    nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["/etc/x", "a/../b", "a//b", "./a", "..", "a\\b"])
def test_relative_names_stay_inside(name: str) -> None:
    with pytest.raises(StorageError, match="leaves its folder"):
        common.check_relative(name, "s3://b/m")


def test_s3_upload_that_reads_back_differently_is_taken_back(
    source: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3_store.digest_file
    monkeypatch.setattr(s3_store, "digest_file", lambda path: "sha256:0" if path.name == "b.bin" else real(path))
    with pytest.raises(StorageError, match=r"sub/b\.bin reads back differently from .*; try again"):
        storage.upload_dir(source, f"s3://{bucket}/m")
    assert keys(s3, bucket) == []


def test_s3_object_that_changes_meanwhile_leaves_nothing(
    source: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload_dir(source, f"s3://{bucket}/m")
    real = s3_store._list
    monkeypatch.setattr(s3_store, "_list", lambda *a: {name: size + 1 for name, size in real(*a).items()})
    with pytest.raises(StorageError, match=r"a\.txt: 1000 of 1001 bytes arrived; it changed meanwhile"):
        storage.fetch(f"s3://{bucket}/m", tmp_path / "dest")
    nothing_left(tmp_path, "source")


# --- MLflow and the hub ----------------------------------------------------------------------------------------------


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield mlflow
    mlflow.set_tracking_uri(before)


def log(mlflow: Any, model: Any) -> str:
    from mlflow.models import infer_signature

    with mlflow.start_run():
        info = mlflow.transformers.log_model(
            transformers_model=model,
            name="model",
            task="text-generation",
            signature=infer_signature("a", "b"),
            pip_requirements=["transformers"],
            registered_model_name="candidate",
        )
    mlflow.MlflowClient().set_registered_model_alias("candidate", "champion", info.registered_model_version)
    return str(info.registered_model_version)


def test_a_version_logged_from_a_folder_comes_back_byte_by_byte(
    mlflow_store: Any, tiny_model: Path, tmp_path: Path
) -> None:
    version = log(mlflow_store, str(tiny_model))
    for i, uri in enumerate(("models:/candidate@champion", f"models:/candidate/{version}")):
        left_out = storage.fetch(uri, tmp_path / f"dest{i}")
        assert "MLmodel" in left_out
        assert directory_digest(tmp_path / f"dest{i}") == directory_digest(tiny_model)


def test_a_version_logged_from_objects_is_put_together(mlflow_store: Any, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parts = {
        "model": AutoModelForCausalLM.from_pretrained(tiny_model),
        "tokenizer": AutoTokenizer.from_pretrained(tiny_model),
    }
    log(mlflow_store, parts)
    storage.fetch("models:/candidate@champion", tmp_path / "dest")
    assert {path.name for path in (tmp_path / "dest").iterdir()} == {path.name for path in tiny_model.iterdir()}


def test_versions_that_are_not_there(mlflow_store: Any, tiny_model: Path, tmp_path: Path) -> None:
    log(mlflow_store, str(tiny_model))
    for uri in ("models:/candidate@nobody", "models:/candidate/9", "models:/nothing/1", "models:/nothing@champion"):
        with pytest.raises(ModelNotFoundError, match=f"{uri} is not in the registry .*check the name, version or alias"):
            storage.fetch(uri, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_a_version_without_a_model_is_refused() -> None:
    with pytest.raises(StorageError, match=r"neither config\.json nor model/config\.json is among its 1 artifacts"):
        registry._assemble({"model.pkl": 1}, "models:/a/1")


def test_mlflow_unreachable(mlflow_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow_store.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        RegistryError, match=r"MLflow at http.* failed while reading models:/candidate/1: .*check that it runs"
    ):
        storage.fetch("models:/candidate/1", tmp_path / "dest")


def test_mlflow_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.tracking

    monkeypatch.setattr(mlflow.tracking, "is_tracking_uri_set", lambda: False)
    with pytest.raises(ConfigError, match="needs an MLflow server; set MLFLOW_TRACKING_URI"):
        storage.fetch("models:/candidate/1", tmp_path / "dest")


def test_the_hub_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="hub:no/such is not in the local cache and HF_HUB_OFFLINE is set"):
        storage.fetch("hub:no/such", tmp_path / "dest")
    nothing_left(tmp_path)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "http://host:port", "nonsense"])
def test_a_hub_that_cannot_be_reached_is_said(endpoint: str, tmp_path: Path) -> None:
    # the endpoint is read when the library is loaded, so this needs a process of its own
    done = subprocess.run(
        [sys.executable, "-m", "components.model_intake", "--model", "hub:org/name", "--out", str(tmp_path / "dest")],
        env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint.format(port=free_port())},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: hub:org/name cannot be fetched from the hub (" in done.stderr
    assert "Traceback" not in done.stderr
    nothing_left(tmp_path)


def test_of_a_hub_repository_only_what_is_needed_is_fetched(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    asked: list[dict[str, Any]] = []

    def download(repository: str, *, local_dir: Path, allow_patterns: list[str], **rest: Any) -> str:
        asked.append({"repository": repository, "allow_patterns": allow_patterns, **rest})
        for name in allow_patterns:
            shutil.copy(tiny_model / name, local_dir / name)
        (local_dir / ".cache").mkdir()
        return str(local_dir)

    sizes = {path.name: path.stat().st_size for path in tiny_model.iterdir()}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_sizes", lambda *_: {**sizes, "original/consolidated.00.pth": 10**15, "modeling.py": 1})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    left_out = storage.fetch("hub:org/name@main", tmp_path / "dest")
    assert left_out == ("modeling.py", "original/consolidated.00.pth")
    assert asked == [{"repository": "org/name", "revision": "main", "allow_patterns": sorted(sizes)}]
    assert directory_digest(tmp_path / "dest") == directory_digest(tiny_model)
