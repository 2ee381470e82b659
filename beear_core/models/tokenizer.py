"""Does a folder's tokenizer fit its model, and which chat template does it carry? Read from the files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beear_core.errors import ChatTemplateError, ModelError
from beear_core.models.json_files import read_object

_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_TEMPLATE_REMEDY = (
    "add chat_template.jinja or a chat_template in tokenizer_config.json: without the one the model was trained "
    "with, its answers mean nothing"
)


def _section(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there is an empty one."""
    return read_object(path) if path.is_file() else {}


def read_chat_template(folder: Path) -> str:
    """Read the text of the chat template as transformers takes it: the file, else the entry in tokenizer_config.json.

    Several named templates are given as ``repr`` of the mapping from names to templates.

    Raises:
        ChatTemplateError: if there is none or it is empty.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            template: Any = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ChatTemplateError(f"{file} is not UTF-8 text ({error}); fetch it again") from error
        where = file
    else:
        where = folder / "tokenizer_config.json"
        template = _section(where).get("chat_template")
        if isinstance(template, list):
            named = [item for item in template if isinstance(item, dict) and {"name", "template"} <= item.keys()]
            template = repr({str(item["name"]): item["template"] for item in named}) if named else ""
    if template is None:
        raise ChatTemplateError(f"{folder} has no chat template; {_TEMPLATE_REMEDY}")
    if not isinstance(template, str) or not template.strip():
        raise ChatTemplateError(f"{where} holds an empty chat template; {_TEMPLATE_REMEDY}")
    return template


def check_tokenizer(folder: Path, vocab_size: int | None, template: str) -> None:
    """Refuse a folder without tokenizer, or with one that makes ids the embedding does not have.

    An added token beyond the embedding is let pass where nothing uses it: neither a special role nor the chat template
    (text-only Gemma 3 keeps an image token of this kind).

    Args:
        folder: the model folder.
        vocab_size: rows of the embedding as config.json gives them; ``None`` where it does not.
        template: the text of the chat template.

    Raises:
        ModelError: naming the token, its id and the vocabulary size.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ModelError(f"{folder} has neither tokenizer.json nor tokenizer.model; copy the tokenizer to the weights")
    config = _section(folder / "tokenizer_config.json")
    vocabulary, added = _vocabularies(folder / "tokenizer.json")
    added |= {str(k): v for k, v in _section(folder / "added_tokens.json").items() if type(v) is int}
    added |= _decoder_entries(config)
    used = {_content(config.get(role)) for role in _ROLES}
    ids = vocabulary | {token: i for token, i in added.items() if token in used or token in template}
    if vocab_size is None or not ids:
        return
    token, largest = max(ids.items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise ModelError(
            f"the tokenizer in {folder} does not fit the model: token {token!r} has id {largest}, config.json has "
            f"vocab_size {vocab_size}; take the tokenizer that belongs to the weights, or resize the embedding"
        )


def _content(token: Any) -> str | None:
    """Read a special token's text; configurations give it plain or as an object."""
    return token.get("content") if isinstance(token, dict) else token if isinstance(token, str) else None


def _vocabularies(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Read the ids of the model's own vocabulary and of added tokens in tokenizer.json; both empty without such a file."""
    values = _section(path)
    if not values:
        return {}, {}
    model = values.get("model")
    table = model.get("vocab") if isinstance(model, dict) else None
    added = {
        str(item.get("content")): item["id"]
        for item in values.get("added_tokens") or ()
        if isinstance(item, dict) and type(item.get("id")) is int
    }
    if isinstance(table, dict):
        return {token: i for token, i in table.items() if type(i) is int}, added
    if isinstance(table, list):  # unigram: [token, score] in order of their ids
        return {str(item[0] if isinstance(item, list) and item else item): i for i, item in enumerate(table)}, added
    raise ModelError(f"{path} holds no vocabulary; fetch it again")


def _decoder_entries(config: dict[str, Any]) -> dict[str, int]:
    decoder = config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return {}
    return {_content(token) or "": int(i) for i, token in decoder.items() if str(i).isdecimal()}
