"""Low-rank adapters that a model carries for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from beear_core.models.load import LoadedModel

if TYPE_CHECKING:
    from peft import PeftModel


@contextmanager
def low_rank(loaded: LoadedModel, rank: int, seed: int, *, merge: bool = False) -> Iterator[PeftModel]:
    """Put a fresh low-rank adapter, inside the context, on every linear layer but the output head; it alone is trained.

    Afterwards the model is as it was, or with ``merge`` has what was trained added to its weights.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    asked = [p.requires_grad for p in loaded.model.parameters()]
    parameters = list(loaded.model.parameters())
    wrapped = get_peft_model(
        loaded.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    done = False
    try:
        yield wrapped
        done = True
    finally:
        wrapped.merge_and_unload() if merge and done else wrapped.unload()
        for parameter, wanted in zip(parameters, asked, strict=True):
            parameter.requires_grad_(wanted)
