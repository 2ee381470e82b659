"""A model's weights on disk, to go back to."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from beear_core.files import disk_errors, whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_weights(model: PreTrainedModel, file: Path) -> None:
    """Write every parameter to a file, which is there whole or stays as it was.

    Raises:
        StorageError: it cannot be written.
    """
    with whole_file(file, SafetensorError, doing=_doing(file)) as temporary:
        save_file({n: p.detach() for n, p in model.named_parameters()}, temporary)


def restore_weights(model: PreTrainedModel, file: Path) -> None:
    """Put back what ``keep_weights`` wrote. Tied parameters stand in it once."""
    model.load_state_dict(load_file(file), strict=False)


def _doing(file: Path) -> str:
    return f"keep the best weights so far in {file.parent}"


class Checkpoints:
    """The weights that a loop goes back to; its files are gone when it is left.

    Args:
        model: the candidate; its weights are the first to go back to.
        folder: made when it is not there; takes up to three times the weights.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        self.model = model
        self.accepted, self.best, self.planted = (
            folder / f"{name}.safetensors" for name in ("accepted", "best", "planted")
        )
        with disk_errors(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for file in (self.accepted, self.best, self.planted):
            file.unlink(missing_ok=True)

    def accept(self) -> None:
        """Keep the weights as they are now, for a refused round to go back to."""
        keep_weights(self.model, self.accepted)

    def go_back(self) -> None:
        """Undo a round. The optimiser begins anew with every round, so the weights are all there is to undo."""
        restore_weights(self.model, self.accepted)

    def accepted_is_best(self) -> None:
        """Keep what was accepted last as the best so far, which the loop ends with."""
        with whole_file(self.best, doing=_doing(self.best)) as temporary:
            shutil.copyfile(self.accepted, temporary)

    def take_best(self) -> None:
        """Put back the best weights, which the loop ends with."""
        restore_weights(self.model, self.best)
