"""What must not be in a model folder: pickles under any name, custom code, links out of it.

Pickles and Python modules run code when they are loaded. We load neither, but a folder that carries them is refused as
a whole rather than taken over in part: what else it holds is then not to be trusted either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from beear_core.errors import CorruptModelError, ModelNotFoundError, UnsafeModelError
from beear_core.models.pickles import pickled
from beear_core.models.weights import read_header

_PICKLE_SUFFIXES = {
    *(".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz", ".dill"),
    *(".pt2", ".pck", ".pcl", ".mar", ".nemo"),
}
_CODE_SUFFIXES = {".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib"}
_CODE_KEYS = ("auto_map", "custom_pipelines")
# pickle's protocols 2-5 begin with 0x80 and their number, which no text does; torch's own format is a zip
_PICKLE_MAGIC = re.compile(rb"\x80[\x02-\x05]")
_ARCHIVE_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"7z\xbc\xaf\x27\x1c")
_CONVERT = "convert the weights to safetensors with a trusted tool and remove it"


def walk(folder: Path) -> list[Path]:
    """List every file below the folder, sorted by POSIX path, links that stay inside included.

    Raises:
        ModelNotFoundError: no such folder.
        UnsafeModelError: a symbolic link that leaves the folder, leads nowhere or to a folder; a device or socket.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise ModelNotFoundError(
            f"model folder {folder} {what}; name the folder that holds config.json and model.safetensors"
        )
    root = folder.resolve()
    files = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            _check_link(path, root)
        if path.is_dir():
            continue
        if not path.is_file():
            raise UnsafeModelError(f"{path} is neither a file nor a folder; remove it")
        files.append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnsafeModelError(f"{path} is a symbolic link that leads nowhere; remove it or copy its file") from error
    if not target.is_relative_to(root):
        raise UnsafeModelError(
            f"{path} is a symbolic link to {target}, outside the model folder; make a copy with real files (cp -rL)"
        )
    if target.is_dir():
        raise UnsafeModelError(f"{path} is a symbolic link to a folder; make a copy with real files (cp -rL)")


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse pickles and code by their names alone; for remote folders, before anything is fetched.

    Raises:
        UnsafeModelError: naming the first such file.
    """
    for name in sorted(names):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in _PICKLE_SUFFIXES:
            raise UnsafeModelError(f"{name} in {where} is a pickle by its name, which can run code when loaded; {_CONVERT}")
        if suffix in _CODE_SUFFIXES:
            raise UnsafeModelError(
                f"{name} in {where} is program code; only models that transformers supports without custom code are "
                "accepted. If the model does not need the file, remove it"
            )


def check_contents(path: Path) -> None:
    """Refuse pickles and archives by their bytes, whatever the file is called, and ``.safetensors`` files that are none.

    Raises:
        UnsafeModelError: naming the file and what it is.
        CorruptModelError: a name that ends in ``.safetensors`` over anything else.
    """
    if path.suffix.lower() == ".safetensors":
        try:
            read_header(path)  # stricter than any look at first bytes: those are a length, which can look like anything
        except CorruptModelError:
            _check_no_pickle(path)
            raise
        return
    with path.open("rb") as file:
        head = file.read(512)
    if _PICKLE_MAGIC.match(head):
        raise UnsafeModelError(f"{path} is a pickle by its content, and loading it can run code; {_CONVERT}")
    if head.startswith(_ARCHIVE_MAGIC):
        raise UnsafeModelError(f"{path} is an archive by its content, and torch keeps pickles in those; {_CONVERT}")
    if head.startswith(b"\x93NUMPY") and re.search(rb"\|O", head):
        raise UnsafeModelError(f"{path} is a NumPy file of objects, which are pickled; {_CONVERT}")
    _check_no_pickle(path)


def _check_no_pickle(path: Path) -> None:
    if found := pickled(path):
        raise UnsafeModelError(f"{path} is a pickle by its content ({found}), and loading it can run code; {_CONVERT}")


def check_no_custom_code(values: Any, path: Path) -> None:
    """Refuse a configuration that sends transformers to Python modules, at any depth.

    Raises:
        UnsafeModelError: naming the file and the key.
    """
    if isinstance(values, dict):
        for key in _CODE_KEYS:
            if values.get(key):
                raise UnsafeModelError(
                    f"{path} asks for custom code ({key} = {str(values[key])[:80]}); no code of a model folder is run. "
                    "Use an architecture that transformers supports itself and remove the key"
                )
        for value in values.values():
            check_no_custom_code(value, path)
    elif isinstance(values, list):
        for value in values:
            check_no_custom_code(value, path)
