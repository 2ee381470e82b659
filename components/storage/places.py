"""One interface to every place a folder can come from or go to.

=============================  ==========================================================================
``path/to/folder``             a local folder; also ``file:///path``
``s3://bucket/prefix``         S3 and compatible stores (AWS_ENDPOINT_URL)
``models:/name@alias``         a version in the MLflow registry; also ``models:/name/3``
``hub:org/name[@revision]``    the Hugging Face hub; only what a causal language model needs
=============================  ==========================================================================

A folder arrives whole or not at all, and nothing that exists is written over. From and to S3 a call that was cut off
goes on when it is made again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from beear_core.errors import ConfigError, ModelNotFoundError
from beear_core.files import check_writable, write_atomically
from beear_core.models.folder import digest_entries, list_files, needed
from beear_core.models.safety import walk
from beear_core.uris import has_secret, without_secrets
from components.storage import hub, s3
from components.storage import mlflow_models as registry
from components.storage.common import Fetched, Select, Uploaded, copy_files, staging, take_all

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FORMS = "a folder, file://, s3://bucket/prefix, models:/name@alias, models:/name/version or hub:org/name"


def local_path(uri: str) -> Path | None:
    """Find the folder that a local path or ``file://`` URI names; ``None`` for every other kind.

    Raises:
        ConfigError: for an empty URI, an unknown scheme, a user or a password in it, or a ``file://`` URI with a host.
    """
    if not uri.strip():
        raise ConfigError(f"no place given; name {_FORMS}")
    if has_secret(uri):
        # places stand in records, which are shown to everybody
        raise ConfigError(
            f"{without_secrets(uri)!r} was given with a user, a password or a token; leave it out and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or HF_TOKEN"
        )
    if uri.startswith("file:"):
        try:
            parts = urlparse(uri)
        except ValueError as error:
            raise ConfigError(f"{uri!r} is no URI ({error}); write file:///absolute/path") from error
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigError(f"{uri!r} does not name a local folder; write file:///absolute/path")
        return Path(unquote(parts.path))
    if uri.startswith(("s3://", "models:/", "hub:")):
        return None
    if _SCHEME.match(uri) and not Path(uri).exists():
        raise ConfigError(f"{uri!r} is of an unknown kind; name {_FORMS}")
    return Path(uri).expanduser()


def fetch(uri: str, dest: Path, *, select: Select = take_all, accept: Callable[[Path, str], None] | None = None) -> Fetched:
    """Copy or download a folder to ``dest``, which must be empty or not exist.

    Args:
        uri: one of the forms above.
        dest: appears by a rename when everything has arrived.
        select: given the relative POSIX names at the place, those to take; may raise to refuse the place.
        accept: given the complete folder before it is renamed, and what the URI stood for; may raise to refuse it.

    Raises:
        ConfigError: a URI of no known form.
        ModelNotFoundError: nothing there.
        UnsafeModelError: a local folder with symbolic links that leave it.
        StorageError: unreachable, refused, incomplete, no room, or ``dest`` exists.
        RegistryError: MLflow cannot be reached.
    """
    with _arriving(uri, dest, select) as (folder, fetched):
        if accept is not None:
            accept(folder, fetched.resolved)
    return fetched


@contextmanager
def _arriving(uri: str, dest: Path, select: Select) -> Iterator[tuple[Path, Fetched]]:
    """Yield the folder with all that was wanted, which becomes ``dest`` when the block ends well."""
    source = local_path(uri)
    if source is None and uri.startswith("s3://"):
        with s3.fetched(uri, dest, select) as (folder, left_out):
            yield folder, Fetched(left_out)
        return
    with staging(dest) as temporary:
        if source is not None:
            names = tuple(path.relative_to(source).as_posix() for path in walk(source))
            chosen = select(names)
            copy_files(source, chosen, temporary, f"copying {source}")
            fetched = Fetched(tuple(sorted(set(names) - set(chosen))))
        elif uri.startswith("models:/"):
            fetched = registry.fetch(uri, temporary, select)
        else:
            # pickles and code in a hub repository stay there: only what is needed is ever offered
            fetched = hub.fetch(uri, temporary, lambda names: select(needed(names)))
        yield temporary, fetched


def upload_dir(source: Path, uri: str) -> Uploaded:
    """Copy a local folder to a new folder, or to a prefix ``s3://bucket/prefix`` that is new or holds a part of it already.

    Returns:
        The digest of what was written, and how many bytes were sent and skipped.

    Raises:
        ConfigError: a place that cannot be written to.
        ModelNotFoundError: no such local folder, or nothing in it.
        UnsafeModelError: symbolic links that leave the folder.
        StorageError: unreachable, refused, no room, or something else is there already.
    """
    names = tuple(path.relative_to(source).as_posix() for path in walk(source))
    if not names:
        raise ModelNotFoundError(f"{source} is empty, there is nothing to upload; name another folder")
    dest = local_path(uri)
    if dest is not None:
        with staging(dest) as temporary:
            copy_files(source, names, temporary, f"copying {source}")
            files = list_files(temporary)
        return Uploaded(digest_entries(files), sum(file.size for file in files))
    if uri.startswith("s3://"):
        return s3.upload(source, names, uri)
    raise ConfigError(f"cannot upload to {uri!r}; name a folder or s3://bucket/prefix")


def look(uri: str) -> tuple[str, Mapping[str, int]]:
    """List what lies at a place that is not local, without fetching anything.

    Returns:
        What the URI stands for now, and sizes in bytes by name; of a hub nothing is asked, and there are no names.

    Raises:
        ConfigError: a URI of no known form, or a local one.
        ModelNotFoundError: nothing there.
        StorageError: unreachable, refused or unfinished.
        RegistryError: MLflow cannot be reached.
    """
    if uri.startswith("s3://"):
        return uri, s3.look(uri)
    if uri.startswith("models:/"):
        return registry.look(uri)
    if not uri.startswith("hub:"):
        raise ConfigError(
            f"{uri!r} cannot be looked at from afar; name s3://bucket/prefix, models:/name@alias or hub:org/name"
        )
    hub.parse(uri)
    return uri, {}


def put_files(uri: str, files: Mapping[str, bytes]) -> None:
    """Write small files below a folder or ``s3://bucket/prefix``; what is there by such a name is replaced.

    Args:
        uri: made if it is not there.
        files: by relative POSIX name.

    Raises:
        ConfigError: a place that cannot be written to.
        StorageError: unreachable, refused, or no room.
    """
    folder = _writable(uri)
    if folder is None:
        s3.put(uri, files)
        return
    for name, data in files.items():
        write_atomically(folder / name, data)


def probe(uri: str) -> None:
    """Write something small to a folder or ``s3://bucket/prefix`` and remove it.

    Raises:
        ConfigError: a place that cannot be written to.
        StorageError: unreachable or refused.
    """
    folder = _writable(uri)
    if folder is None:
        s3.probe(uri)
        return
    check_writable(folder, "choose a folder that can be written")


def _writable(uri: str) -> Path | None:
    """Find the folder that can be written to; ``None`` for S3."""
    folder = local_path(uri)
    if folder is None and not uri.startswith("s3://"):
        raise ConfigError(f"cannot write to {uri!r}; name a folder or s3://bucket/prefix")
    return folder
