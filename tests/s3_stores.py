"""The implementations of S3 that storage is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ceph import MISSING, Ceph, installed
from servers import new_seaweedfs

from tools.servers.seaweedfs import SeaweedFS

KINDS = ("seaweedfs", "ceph")


@contextmanager
def s3_store(kind: str, folder: Path) -> Iterator[SeaweedFS | Ceph]:
    """Run one with its data in ``folder``; ``kill`` and ``start`` in the block stop it and let it go on with its data.

    Skips the test where it is not installed; SeaweedFS always is.
    """
    if kind == "ceph" and not installed():
        pytest.skip(MISSING)
    store = Ceph(folder) if kind == "ceph" else new_seaweedfs(folder)
    try:
        store.start()
        yield store
    finally:
        (store.end if isinstance(store, Ceph) else store.kill)()
