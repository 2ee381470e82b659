"""Transfers that are killed, whose store goes away, or that meet each other go on, and no byte goes twice that had arrived.

Bytes are counted by a proxy between client and store, which also stops them where a test needs it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ceph import Ceph
from counting_proxy import CountingProxy, counting_proxy
from s3_stores import KINDS, s3_store
from servers import S3Server
from storage_folders import nothing_left, total
from storage_processes import MIB, PART, SIZE, UNDER_WAY, WORKERS, begin, counts, ended, memory

from beear_core.errors import StorageError
from beear_core.models.folder import directory_digest
from components.storage import places as storage
from components.storage import s3 as s3_module
from components.storage import s3_fetch, s3_upload
from tools.servers.seaweedfs import SeaweedFS

HALF = SIZE // 2
BUCKET = "resuming"
LITTLE = 60
"""MiB; less than the large file has at any size, and more than the parts that are under way."""
OVERHEAD = MIB // 2
"""Bytes of all headers."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one large file and two small ones; not to be changed."""
    folder = tmp_path_factory.mktemp("large") / "model"
    (folder / "sub").mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(0, SIZE, MIB):
            file.write(os.urandom(MIB))
        file.write(b"and a few")
    (folder / "config.json").write_bytes(b"{}")
    (folder / "sub" / "tokenizer.json").write_bytes(os.urandom(100_000))
    return folder


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    """All that this process and those that it begins say to the store goes through it; parts are small."""
    for module in (s3_module, s3_fetch, s3_upload):
        monkeypatch.setattr(module, "PART", PART, raising=False)
    monkeypatch.setattr(s3_module, "WORKERS", WORKERS)
    s3.make_bucket(BUCKET)
    with counting_proxy(s3.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture
def uri() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def there(s3_server: S3Server, large: Path) -> str:
    """A place that the large folder was uploaded to; not to be changed."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_server.environment().items():
            environment.setenv(name, value)
        s3_server.make_bucket(BUCKET)
        storage.upload_dir(large, f"s3://{BUCKET}/there")
    return f"s3://{BUCKET}/there"


def unfinished(s3: S3Server, uri: str) -> list[str]:
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    return [u["UploadId"] for u in s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", ())]


def partial_of(dest: Path) -> Path:
    (found,) = dest.parent.glob(f".{dest.name}.partial-*")
    return found


def test_an_upload_that_was_killed_goes_on(
    s3: S3Server, proxy: CountingProxy, large: Path, uri: str, tmp_path: Path
) -> None:
    proxy.hold_up = HALF
    process = begin("upload", large, uri, s3, proxy.endpoint)
    proxy.wait_until_held()
    process.kill()
    ended(process)
    proxy.reset()
    with pytest.raises(StorageError, match="holds an upload that has not ended"):
        storage.fetch(uri, tmp_path / "dest")
    proxy.reset()
    done = storage.upload_dir(large, uri)
    assert done.sent + done.skipped == total(large)
    assert done.skipped >= HALF - UNDER_WAY
    assert proxy.up <= done.sent + OVERHEAD
    assert unfinished(s3, uri) == []
    storage.fetch(uri, tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(large) == done.digest


@pytest.mark.parametrize("plain", [False, True])
def test_a_download_that_was_killed_goes_on(
    s3: S3Server, proxy: CountingProxy, large: Path, there: str, uri: str, tmp_path: Path, plain: bool
) -> None:
    if plain:
        put(s3, large, uri)
    else:
        uri = there
    interrupt(s3, proxy, uri, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    proxy.reset()
    storage.fetch(uri, tmp_path / "dest")
    assert proxy.down <= total(large) - HALF + UNDER_WAY
    assert directory_digest(tmp_path / "dest") == directory_digest(large)
    nothing_left(tmp_path, "dest")


def put(s3: S3Server, folder: Path, uri: str) -> None:
    """Upload a folder as others do, without manifest."""
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    for path in folder.rglob("*"):
        if path.is_file():
            s3.client().upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")


def interrupt(s3: S3Server, proxy: CountingProxy, uri: str, dest: Path) -> None:
    """Fetch half of a folder in a process that is killed then."""
    proxy.reset()
    proxy.hold_down = HALF
    process = begin("fetch", uri, dest, s3, proxy.endpoint)
    proxy.wait_until_held()
    process.kill()
    ended(process)
    proxy.reset()


def test_files_that_had_arrived_whole_are_not_fetched_again(
    s3: S3Server, proxy: CountingProxy, large: Path, there: str, tmp_path: Path
) -> None:

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.fetch(there, tmp_path / "dest", accept=fail)
    proxy.reset()
    storage.fetch(there, tmp_path / "dest")
    assert proxy.down < OVERHEAD
    assert directory_digest(tmp_path / "dest") == directory_digest(large)
    nothing_left(tmp_path, "dest")


@pytest.mark.parametrize("where", ["files", "incoming"])
def test_what_a_power_cut_left_is_not_believed(
    s3: S3Server, proxy: CountingProxy, large: Path, there: str, tmp_path: Path, where: str
) -> None:
    if where == "files":
        with pytest.raises(KeyboardInterrupt):
            storage.fetch(there, tmp_path / "dest", accept=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    else:
        interrupt(s3, proxy, there, tmp_path / "dest")
    (data,) = (path for path in (partial_of(tmp_path / "dest") / where).rglob("*") if path.stat().st_size > SIZE)
    with data.open("r+b") as file:
        file.write(bytes(MIB))
    storage.fetch(there, tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(large)
    nothing_left(tmp_path, "dest")


def test_an_object_that_changed_since_is_not_mixed_with_what_it_was(
    s3: S3Server, proxy: CountingProxy, large: Path, uri: str, tmp_path: Path
) -> None:
    put(s3, large, uri)
    interrupt(s3, proxy, uri, tmp_path / "dest")
    before = partial_of(tmp_path / "dest")
    changed = Path(shutil.copytree(large, tmp_path / "changed"))
    with (changed / "model.safetensors").open("r+b") as file:
        file.write(b"another")
    put(s3, changed, uri)
    storage.fetch(uri, tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(changed)
    assert not before.exists()
    nothing_left(tmp_path, "changed", "dest")


def test_an_object_that_changes_while_it_is_fetched_is_refused(
    s3: S3Server, proxy: CountingProxy, large: Path, uri: str, tmp_path: Path
) -> None:
    put(s3, large, uri)
    proxy.reset()
    proxy.hold_down = HALF
    process = begin("fetch", uri, tmp_path / "dest", s3, proxy.endpoint)
    proxy.wait_until_held()
    prefix, size = uri.removeprefix(f"s3://{BUCKET}/"), (large / "model.safetensors").stat().st_size
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/model.safetensors", Body=bytes(size))
    proxy.reset()
    code, text = ended(process)
    assert code != 0
    assert "model.safetensors changed while it was fetched; try again" in text
    nothing_left(tmp_path)


def test_two_uploads_at_the_same_time_both_end_well(
    s3: S3Server, proxy: CountingProxy, large: Path, uri: str, tmp_path: Path
) -> None:
    both = [begin("upload", large, uri, s3, proxy.endpoint) for _ in range(2)]
    sent = [counts(process) for process in both]
    assert all(one >= 0 and skipped <= total(large) for one, skipped in sent)
    assert unfinished(s3, uri) == [] or all(size for size, _ in sent)
    storage.fetch(uri, tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(large)
    assert storage.upload_dir(large, uri).sent == 0


def test_memory_does_not_grow_with_the_file(
    s3: S3Server, large: Path, uri: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    s3.make_bucket(BUCKET)
    up = memory(begin("upload", large, uri, s3, s3.endpoint))
    down = memory(begin("fetch", uri, tmp_path / "dest", s3, s3.endpoint))
    record_property("MiB of memory up and down", (up, down))
    assert max(up, down) < LITTLE < SIZE // MIB


@pytest.mark.parametrize("fails_first", [True, False])
def test_an_upload_that_fails_takes_nothing_from_one_that_goes_well(
    s3: S3Server, proxy: CountingProxy, large: Path, uri: str, tmp_path: Path, fails_first: bool
) -> None:
    """One begins, and its file is changed under it; the other goes on with the parts of the first."""
    doomed = Path(shutil.copytree(large, tmp_path / "doomed"))
    proxy.hold_up = HALF
    failing = begin("upload", doomed, uri, s3, proxy.endpoint)
    proxy.wait_until_held()
    with (doomed / "model.safetensors").open("r+b") as file:
        file.seek(SIZE - MIB)
        file.write(b"changed")
    with counting_proxy(s3.endpoint) as second:
        second.hold_up = PART if fails_first else second.hold_up
        going_well = begin("upload", large, uri, s3, second.endpoint)
        if fails_first:
            second.wait_until_held()
        else:
            assert counts(going_well)[1] > 0
        proxy.reset()
        code, text = ended(failing)
        assert code != 0
        assert "model.safetensors was changed while it was uploaded; upload again when nobody writes to it" in text
        second.reset()
        if fails_first:
            counts(going_well)
    storage.fetch(uri, tmp_path / "dest")
    assert directory_digest(tmp_path / "dest") == directory_digest(large)


def test_two_downloads_to_the_same_place_do_not_mix(
    s3: S3Server, proxy: CountingProxy, large: Path, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.reset()
    proxy.hold_down = HALF
    process = begin("fetch", there, tmp_path / "dest", s3, proxy.endpoint)
    proxy.wait_until_held()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(StorageError, match="dest is being filled by another process; wait until it has ended, or choose"):
        storage.fetch(there, tmp_path / "dest")
    proxy.reset()
    assert ended(process)[0] == 0
    assert directory_digest(tmp_path / "dest") == directory_digest(large)
    nothing_left(tmp_path, "dest")


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_was_stopped_and_started_again(
    kind: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_store(kind, tmp_path / "store") as store:
        s3 = S3Server(store.endpoint)
        s3.make_bucket(BUCKET)
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        for module in (s3_module, s3_fetch, s3_upload):
            monkeypatch.setattr(module, "PART", PART, raising=False)
        uri = f"s3://{BUCKET}/m"
        with counting_proxy(s3.endpoint) as proxy:
            proxy.hold_up = HALF
            _stopped_under(store, proxy, "upload", large, uri)
            done = storage.upload_dir(large, uri)
            assert done.skipped >= HALF - UNDER_WAY
            proxy.reset()
            proxy.hold_down = HALF
            text = _stopped_under(store, proxy, "fetch", uri, tmp_path / "dest")
            assert f"what has arrived is kept in {partial_of(tmp_path / 'dest')}; the same call goes on from there" in text
            proxy.reset()
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            storage.fetch(uri, tmp_path / "dest")
            assert proxy.down <= total(large) - HALF + UNDER_WAY
    assert directory_digest(tmp_path / "dest") == directory_digest(large)
    nothing_left(tmp_path, "dest", "store")


def _stopped_under(store: SeaweedFS | Ceph, proxy: CountingProxy, verb: str, one: object, other: object) -> str:
    """End the store in the middle of a transfer, let that fail, and start the store again; returns what it said."""
    process = begin(verb, one, other, S3Server(store.endpoint), proxy.endpoint)
    proxy.wait_until_held()
    store.kill()
    proxy.reset()
    code, text = ended(process)
    assert code != 0
    assert "StorageError" in text
    store.start()
    return text
