"""The Hugging Face hub, used only where the user wrote ``hub:`` and only for files a causal language model needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from beear_core.errors import ConfigError, ModelNotFoundError, StorageError
from components.storage.common import MIB, Fetched, Select, copy_files, require_space


def parse(uri: str) -> tuple[str, str | None]:
    """Split ``hub:org/name[@revision]`` into repository and revision (``None``: the default branch).

    Raises:
        ConfigError: if it is not of that form.
    """
    repository, _, revision = uri.removeprefix("hub:").partition("@")
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise ConfigError(f"{uri!r} is not a model of the hub; write hub:org/name or hub:org/name@revision")
    return repository, revision or None


def fetch(uri: str, dest: Path, select: Select) -> Fetched:
    """Download the selected files of a hub repository.

    HF_HUB_OFFLINE, which the image sets, keeps libraries from asking the hub on their own. Under it a model that is in the
    local cache is taken from there; any other was named to be fetched, and is.

    Raises:
        ConfigError: a name that the hub does not allow.
        ModelNotFoundError: no such repository or revision, or it is private.
        StorageError: the hub cannot be reached.
    """
    from httpx import HTTPError, InvalidURL
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in __all__

    repository, revision = parse(uri)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{uri!r} is not a model of the hub: {error}; write hub:org/name") from error
    if cached := _cached(repository, revision):
        names = tuple(p.relative_to(cached).as_posix() for p in sorted(cached.rglob("*")) if p.is_file())
        chosen = select(names)
        copy_files(cached, chosen, dest, f"copying {uri} from the cache")
        # the cache keeps each commit in a folder of its name
        return Fetched(tuple(sorted(set(names) - set(chosen))), f"hub:{repository}@{cached.name}")
    try:
        with _online():
            commit, sizes = _listing(repository, revision)
            chosen = select(tuple(sorted(sizes)))
            require_space(dest, sum(sizes[name] for name in chosen))
            snapshot_download(repository, revision=commit, local_dir=dest, allow_patterns=list(chosen))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelNotFoundError(
            f"{uri} is not on the hub or not visible to you; check the name, or set HF_TOKEN for a private model"
        ) from error
    except (HfHubHTTPError, HTTPError, InvalidURL, OSError) as error:
        raise StorageError(
            f"{uri} cannot be fetched from the hub ({type(error).__name__}: {error}); check the network and "
            "HF_ENDPOINT, or fetch the model yourself and name its folder"
        ) from error
    shutil.rmtree(dest / ".cache", ignore_errors=True)
    return Fetched(tuple(sorted(set(sizes) - set(chosen))), f"hub:{repository}@{commit}")


def _cached(repository: str, revision: str | None) -> Path | None:
    """Find what the local cache holds under HF_HUB_OFFLINE; ``None`` where that is not set."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE:
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    return None


@contextmanager
def _online() -> Iterator[None]:
    """Lift HF_HUB_OFFLINE for as long as this lasts; the library read it once, when it was imported.

    Nor does the library then tell the hub of this machine, for which it would fetch a list of its own first.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = False, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = before


def _listing(repository: str, revision: str | None) -> tuple[str, dict[str, int]]:
    """Ask the hub for the commit that a branch stands for, and the sizes of all files, in bytes by name; one request."""
    from huggingface_hub import HfApi

    info: Any = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=20)
    return info.sha, {file.rfilename: file.size or MIB for file in info.siblings}
