"""Every way a model folder can be wrong is refused, each with the error and the words that say what to do."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy

from beear_core.errors import (
    BeearError,
    ChatTemplateError,
    CorruptModelError,
    ModelError,
    ModelNotFoundError,
    UnsafeModelError,
)
from beear_core.models import folder as model_files
from beear_core.models.weights import INDEX


def edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in values.items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return change


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def change_json(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, **values)


def renamed_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def added_token(content: str, number: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        edit(folder / "tokenizer.json", added_tokens=[*tokens, {"id": number, "content": content}])

    return change


def pad_beyond_the_embedding(folder: Path) -> None:
    added_token("[PAD]", 500)(folder)
    edit(folder / "tokenizer_config.json", pad_token="[PAD]")


SHARD = "model-00001-of-00002.safetensors"
BAD: list[tuple[str, Callable[[Path], Any], type[BeearError], str]] = [
    ("no folder", shutil.rmtree, ModelNotFoundError, "does not exist; name the folder that holds config.json"),
    ("no weights", remove("model.safetensors"), ModelNotFoundError, r"no \*\.safetensors file; expected model\.safete"),
    ("odd weights", renamed_weights, ModelNotFoundError, r"only weights\.safetensors; expected model\.safetensors"),
    ("adapter", put("adapter_config.json", b"{}"), ModelError, "is an adapter, not a whole model; merge it"),
    *(
        (f"pickle {name}", put(name), UnsafeModelError, f"{name.split('/')[-1]} in .* is a pickle by its name.*convert")
        for name in (
            *("pytorch_model.bin", "a.pt", "original/consolidated.00.pth", "x.ckpt", "x.PKL", "x.pickle", "x.joblib"),
            *("x.npz", "training_args.bin", "vocab.pkl"),
        )
    ),
    (
        "pickle in disguise",
        put("notes.txt", pickle.dumps([1])),
        UnsafeModelError,
        "notes.txt is a pickle by its content",
    ),
    ("pickled vocabulary", put("vocab.txt", pickle.dumps({}, 2)), UnsafeModelError, "vocab.txt is a pickle by its con"),
    (
        "pickled tokens",
        put("special_tokens_map.json", b"cbuiltins\nprint\n(S'x'\ntR."),
        UnsafeModelError,
        r"special_tokens_map.json is a pickle by its content \(imports builtins.print\).*convert the weights",
    ),
    ("no JSON", put("added_tokens.json", b"x"), ModelError, r"added_tokens.json is not JSON \(.*fetch it again"),
    ("pickled shard", put(SHARD, pickle.dumps(print)), UnsafeModelError, f"{SHARD} is a pickle by its content"),
    ("pickled weights", put("sub/x.safetensors", pickle.dumps(1)), UnsafeModelError, "x.safetensors is a pickle"),
    ("no safetensors", put("sub/x.SafeTensors", b"x" * 9), CorruptModelError, "x.SafeTensors announces a header of"),
    (
        "shard without index",
        put(SHARD, struct.pack("<Q", 2) + b"{}"),
        CorruptModelError,
        f"{SHARD} is not named in {INDEX}; no such index is there; remove it",
    ),
    ("zip in disguise", put("logo.png", b"PK\x03\x04abc"), UnsafeModelError, "logo.png is an archive by its content"),
    ("objects", put("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O',"), UnsafeModelError, "NumPy file of objects"),
    ("module", put("modeling_tiny.py"), UnsafeModelError, "modeling_tiny.py in .* is program code"),
    ("library", put("sub/op.so"), UnsafeModelError, "op.so in .* is program code"),
    (
        "auto_map",
        change_json("config.json", auto_map={"AutoModel": "m.M"}),
        UnsafeModelError,
        r"config.json asks for custom code \(auto_map = .*remove the key",
    ),
    (
        "nested auto_map",
        change_json("config.json", text_config={"auto_map": {"AutoModel": "m.M"}}),
        UnsafeModelError,
        "config.json asks for custom code",
    ),
    (
        "auto_map of the tokenizer",
        change_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["a.B", None]}),
        UnsafeModelError,
        "tokenizer_config.json asks for custom code",
    ),
    ("link out", link("notes", "/etc/hostname"), UnsafeModelError, "symbolic link to /etc/hostname, outside.*cp -rL"),
    ("link to nowhere", link("notes", "nothing"), UnsafeModelError, "a symbolic link that leads nowhere; remove"),
    ("link to a folder", link("notes", "."), UnsafeModelError, "a symbolic link to a folder"),
    ("no config", remove("config.json"), ModelError, "config.json is missing; copy the whole"),
    ("broken config", put("config.json", b"{"), ModelError, r"config.json is not JSON \(.*fetch it again"),
    ("list as config", put("config.json", b"[]"), ModelError, "config.json holds a list, expected an object"),
    ("no model_type", change_json("config.json", model_type=None), ModelError, "config.json has no model_type"),
    ("no layers", change_json("config.json", num_hidden_layers=None), ModelError, "not give the number of layers"),
    ("no width", change_json("config.json", hidden_size=None), ModelError, "does not give the hidden size"),
    ("no template", remove("chat_template.jinja"), ChatTemplateError, "has no chat template; add chat_template.jinja"),
    (
        "empty template",
        put("chat_template.jinja", b" \n"),
        ChatTemplateError,
        "chat_template.jinja holds an empty chat",
    ),
    ("template of bytes", put("chat_template.jinja", b"\xff\xfe"), ChatTemplateError, "is not UTF-8 text"),
    ("no tokenizer", remove("tokenizer.json"), ModelError, "neither tokenizer.json nor tokenizer.model"),
    ("broken tokenizer", put("tokenizer.json", b"{"), ModelError, "tokenizer.json is not JSON"),
    ("no vocabulary", put("tokenizer.json", b'{"model": {}}'), ModelError, "tokenizer.json holds no vocabulary"),
    (
        "another tokenizer",
        change_json("config.json", vocab_size=20),
        ModelError,
        r"does not fit the model: token .* has id \d+, config.json has vocab_size 20; take the tokenizer that belongs",
    ),
    ("padding token", pad_beyond_the_embedding, ModelError, r"token '\[PAD\]' has id 500, config.json has vocab_size"),
]


@pytest.mark.parametrize(("change", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_folder_is_refused_with_its_remedy(
    folder: Path, change: Callable[[Path], None], error: type[BeearError], message: str
) -> None:
    change(folder)
    with pytest.raises(error, match=message) as caught:
        model_files.check_folder(folder)
    assert type(caught.value) is error
    assert str(folder) in str(caught.value)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is a file, not a folder"):
        model_files.check_folder(folder / "config.json")


def test_links_inside_the_folder_and_harmless_files_pass(folder: Path) -> None:
    (folder / "merges.txt").symlink_to("README.md")
    (folder / "README.md").write_text("# A model")
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    edit(folder / "config.json", auto_map={})
    model_files.check_folder(folder)


def test_an_unused_token_beyond_the_embedding_passes(folder: Path) -> None:
    added_token("<image_soft_token>", 500)(folder)
    model_files.check_folder(folder)
    (folder / "chat_template.jinja").write_text(toy.TEMPLATE + "{{ '<image_soft_token>' }}")
    with pytest.raises(ModelError, match="<image_soft_token>"):
        model_files.check_folder(folder)


def test_template_of_the_tokenizer_configuration_counts(folder: Path) -> None:
    digest = model_files.describe(folder).chat_template_digest
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=template)
    model_files.check_folder(folder)
    assert model_files.describe(folder).chat_template_digest == digest
    edit(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": template}])
    model_files.check_folder(folder)


def test_a_folder_that_cannot_be_read_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"cannot read .*: Permission denied; give this user read access"):
        model_files.check_folder(folder)
