"""A model's weights on disk, to go back to: within a run, and in the next one when this one is killed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from beear_core.files import disk_errors, whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_weights(model: PreTrainedModel, file: Path) -> None:
    """Write every parameter to a file, which is there whole or stays as it was.

    Raises:
        StorageError: it cannot be written.
    """
    with whole_file(file, SafetensorError, doing=f"keep the best weights so far in {file.parent}") as temporary:
        save_file({n: p.detach() for n, p in model.named_parameters()}, temporary)


def restore_weights(model: PreTrainedModel, file: Path) -> None:
    """Put back what ``keep_weights`` wrote. Tied parameters stand in it once."""
    model.load_state_dict(load_file(file), strict=False)


def check_weights(file: Path) -> None:
    """Look whether a file is whole: its header says how long it must be, and no tensor is read.

    Raises:
        OSError, SafetensorError: it is not.
    """
    with safe_open(file, framework="pt"):
        pass


class Checkpoints:
    """The weights that a loop goes back to; its files are gone when it is left, but for what ``keep`` was told of.

    Args:
        model: the candidate; its weights are the first to go back to.
        folder: made when it is not there; takes up to four times the weights in float32.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.planted = folder / "planted.safetensors"
        self.best: Path | None = None
        self._kept = frozenset[Path]()
        with disk_errors(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self.accepted = self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clear(self._kept)
        self.planted.unlink(missing_ok=True)

    def accept(self) -> None:
        """Keep the weights as they are now, for a refused round to go back to."""
        self.accepted = self._write()
        self._clear(self._kept | self._current())

    def go_back(self) -> None:
        """Undo a round. The optimiser begins anew with every round, so the weights are all there is to undo."""
        restore_weights(self.model, self.accepted)

    def accepted_is_best(self) -> None:
        """Remember what was accepted last as the best so far, which the loop ends with."""
        self.best = self.accepted

    def take_best(self) -> None:
        """Put back the best weights, which the loop ends with."""
        if self.best is not None:
            restore_weights(self.model, self.best)

    def take_up(self, accepted: str, best: str | None) -> None:
        """Take what an earlier run accepted and found best, names in the folder, and put the former into the model.

        Raises:
            OSError, SafetensorError: a file is missing or damaged; the model is as it was.
        """
        kept, found = self.folder / accepted, self.folder / best if best is not None else None
        for file in (kept, found):
            if file is not None:
                check_weights(file)
        restore_weights(self.model, kept)
        self.accepted, self.best = kept, found
        self.keep()

    def keep(self) -> None:
        """Leave what is accepted and best now on the disk when the loop is left; all else goes."""
        self._kept = self._current()
        self._clear(self._kept)

    def _write(self) -> Path:
        # a name that was never there: what is on the disk stays as it is until it is written where the loop stands
        file = self.folder / f"accepted-{uuid4().hex}.safetensors"
        keep_weights(self.model, file)
        return file

    def _current(self) -> frozenset[Path]:
        return frozenset(file for file in (self.accepted, self.best) if file is not None)

    def _clear(self, kept: frozenset[Path]) -> None:
        for file in self.folder.glob("accepted-*.safetensors"):
            if file not in kept:
                file.unlink(missing_ok=True)
