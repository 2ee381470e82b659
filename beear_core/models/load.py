"""Load and save causal language models, find their decoder layers, and say what they can compute in."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from beear_core.errors import CorruptModelError, ModelError
from beear_core.files import whole_folder
from beear_core.models.chat import ChatFormat
from beear_core.models.folder import check_folder, directory_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ComputeName = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its chat format, the folder it came from and that folder's digest."""

    model: PreTrainedModel
    chat: ChatFormat
    source: Path
    digest: str


def best_device() -> torch.device:
    """Choose the accelerator where there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def device_names() -> tuple[str, ...]:
    """Name the devices of this process in words, for records."""
    if torch.cuda.is_available():
        return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return (f"cpu ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)",)


def resolve_compute(choice: Literal["auto", "float32", "bfloat16"]) -> ComputeName:
    """Resolve ``auto`` to bfloat16 where the processor multiplies it natively, else to float32.

    The choice depends on the processor alone, never on a timing, so that two runs on one machine agree bit by bit.
    """
    if choice != "auto":
        return choice
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def load(folder: Path, *, device: torch.device | None = None, dtype: torch.dtype | None = torch.float32) -> LoadedModel:
    """Load a checked safetensors folder; nothing is fetched and no code of the folder is run.

    Args:
        folder: a model folder as ``model_intake`` leaves it.
        device: where to; by default the accelerator where there is one.
        dtype: of the weights; ``None`` keeps what the folder holds.

    Raises:
        ModelError: one of its kinds, see ``folder.check_folder``, or when transformers cannot build the model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or "auto",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded by transformers: {error}") from error
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise CorruptModelError(
            f"{folder} lacks {len(missing)} tensors that its architecture needs, first {missing[0]!r}; "
            "they would be random. Fetch the complete model"
        )
    model.to(device or best_device())
    model.eval()
    # only the last columns' logits are asked for: a slice of the hidden states, which the head would multiply row by row
    model.get_output_embeddings().register_forward_pre_hook(lambda _head, given: (given[0].contiguous(), *given[1:]))
    return LoadedModel(model=model, chat=ChatFormat(tokenizer), source=folder, digest=directory_digest(folder))


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Find the decoder layers in order: the one list of modules as long as the configuration says.

    Raises:
        ModelError: if there is none or more than one.
    """
    wanted = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == wanted]
    # an expert or adapter list can be as long by accident; decoder layers share one class with attention inside
    found = [m for m in found if any("attention" in type(s).__name__.lower() for s in m[0].modules())]
    if len(found) != 1:
        raise ModelError(
            f"{type(model).__name__}: expected one list of {wanted} decoder layers, found {len(found)}; "
            "this architecture is not supported"
        )
    return found[0]


def save(model: PreTrainedModel, source: Path, out: Path) -> str:
    """Save a model as safetensors beside the source's tokenizer files, byte by byte as they were.

    Weights keep the dtype that the source's configuration names. The folder is there whole or not at all.

    Returns:
        The folder's digest.

    Raises:
        StorageError: if the disk is full or ``out`` cannot be written.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"))
    with whole_folder(out, SafetensorError, doing=f"write the model to {out}") as temporary:
        state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
        model.save_pretrained(temporary, state_dict=state, max_shard_size="4GB")
        for file in sorted(source.iterdir()):
            weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
            if file.is_file() and not weights:
                shutil.copy2(file, temporary / file.name)
    return directory_digest(out)
