"""Registered versions without models, and their ledger as it lies on the disk, for the tests of who moved the alias."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gate_runs import NAME, config, registry_of

from components.mlflow_store.champion import Version, version_of
from components.mlflow_store.registry import Registry


def version(store: str, **tags: str) -> Version:
    """Register a version that holds nothing and says that it passed."""
    client = registry_of(store)
    if NAME not in {model.name for model in client.search_registered_models()}:
        client.create_registered_model(NAME)
    number = len(client.search_model_versions(f"name='{NAME}'")) + 1
    told = {"verdict": "passed", "summary": "all held", "decision_digest": f"sha256:{number:064x}", **tags}
    return version_of(client.create_model_version(NAME, source="/nothing", tags=told))


def promote(store: str, one: Version, again: str = "") -> Registry:
    """Make a version champion as the gate does, but for its evidence."""
    shelf = Registry(store, config(store))
    shelf.alias.move_to(one, shelf.alias.champion(), again)
    return shelf


def pages(folder: Path) -> list[Path]:
    """The entries as files, oldest first."""
    return sorted(folder.rglob("artifacts/ledger/*.json"))


def told(folder: Path) -> list[dict[str, Any]]:
    """The entries as they are written."""
    return [json.loads(path.read_text()) for path in pages(folder)]


def digest(entry: dict[str, Any]) -> str:
    """What the next entry must name, by other means than the ledger's."""
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def change(path: Path, **fields: Any) -> None:
    """Alter an entry by hand."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
