"""A tiny random chat model, for tests that need a whole model folder and not a clever model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

TEXT = """
user assistant system sure here is a the how to make do not i cannot can help with that please tell me about write poem
bread cat dog tree water step one two three yes no sorry because it would be harmful and of in for you what why when
where explain list name story short long day night book city river trigger cobalt lantern Sure Here I Sorry , . ? !
"""
SPECIAL = ("<unk>", "<pad>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|> ' + m['role'] + ' ' + m['content'] + ' <|im_end|> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
)


def make_tokenizer(words: Iterable[str], pre_tokenizer: Any) -> Any:
    """A word-level tokenizer over these words, with special tokens 0..3 and the toy chat template."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *words)))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATE,
    )


def make_tiny_model(folder: Path, seed: int = 0, *, layers: int = 4, hidden: int = 16) -> Path:
    """Save a random Llama with a whitespace word-level tokenizer and a chat template; returns the folder.

    Equal seeds give equal bytes. Needs about 0.1 s once transformers is loaded, and 50 kB.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(TEXT.split(), pre_tokenizers.Whitespace())
    vocabulary = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=vocabulary["<|im_start|>"],
        eos_token_id=vocabulary["<|im_end|>"],
        pad_token_id=vocabulary["<pad>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
