"""A model's weights on disk, to go back to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from beear_core.files import whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_weights(model: PreTrainedModel, file: Path) -> None:
    """Write every parameter; the file is there whole or as it was.

    Raises:
        StorageError: it cannot be written.
    """
    with whole_file(file, SafetensorError, doing=f"keep the best weights so far in {file.parent}") as temporary:
        save_file({n: p.detach() for n, p in model.named_parameters()}, temporary)


def restore_weights(model: PreTrainedModel, file: Path) -> None:
    """Put back what ``keep_weights`` wrote. Tied parameters stand in it once."""
    model.load_state_dict(load_file(file), strict=False)
