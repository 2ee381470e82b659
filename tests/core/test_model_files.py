"""Every way a model folder can be wrong is refused, each with the error and the words that say what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beear_core.errors import (
    BeearError,
    ChatTemplateError,
    CorruptModelError,
    ModelError,
    ModelNotFoundError,
    UnsafeModelError,
)
from beear_core.models import folder as model_files
from beear_core.models.weights import INDEX, read_header


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in values.items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def write_safetensors(path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def shards(folder: Path) -> None:
    """Split the folder's single file into two shards with an index."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_a_good_folder_passes_and_is_described(folder: Path) -> None:
    model_files.check_folder(folder)
    facts = model_files.describe(folder)
    assert (facts.architecture, facts.layers, facts.hidden_size) == ("LlamaForCausalLM", 4, 16)
    assert facts.parameters == sum(entry.values for entry in read_header(folder / "model.safetensors"))
    assert facts.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_description_agrees_with_transformers(folder: Path) -> None:
    from beear_core.models.load import load

    loaded = load(folder)
    facts = model_files.describe(folder)
    assert facts.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert facts.chat_template_digest == loaded.chat.digest
    assert loaded.digest == model_files.directory_digest(folder)


def test_shards_pass_and_hold_the_same(folder: Path) -> None:
    before = model_files.describe(folder)
    shards(folder)
    model_files.check_folder(folder)
    assert model_files.describe(folder).parameters == before.parameters


def test_no_torch_is_imported() -> None:
    code = "import sys, beear_core.models.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- digests -------------------------------------------------------------------------------------------------------


def test_digest_is_of_names_and_bytes_alone(folder: Path, tmp_path: Path) -> None:
    digest = model_files.directory_digest(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    os.utime(copy / "config.json", (0, 0))
    assert model_files.directory_digest(copy) == digest


@pytest.mark.parametrize("change", ["byte", "name", "more", "fewer"])
def test_digest_changes_with_any_byte_name_or_file(folder: Path, change: str) -> None:
    digest = model_files.directory_digest(folder)
    weights = folder / "model.safetensors"
    if change == "byte":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif change == "name":
        (folder / "generation_config.json").rename(folder / "generation_config2.json")
    elif change == "more":
        (folder / "sub").mkdir()
        (folder / "sub" / "README.md").write_text("more")
    else:
        (folder / "generation_config.json").unlink()
    assert model_files.directory_digest(folder) != digest


def test_needed_files_are_what_a_model_is_loaded_from(folder: Path) -> None:
    every = set(model_files.needed_files(folder))
    assert every == {path.name for path in folder.iterdir()}
    for name in ("README.md", "consolidated.safetensors", "model.gguf"):
        (folder / name).write_text("x")
    (folder / "original").mkdir()
    (folder / "original" / "config.json").write_text("{}")
    assert set(model_files.needed_files(folder)) == every


# --- bad folders ---------------------------------------------------------------------------------------------------


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


def test_text_config_is_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    nested = {key: config.pop(key) for key in ("num_hidden_layers", "hidden_size", "vocab_size")}
    (folder / "config.json").write_text(json.dumps({**config, "text_config": nested}))
    model_files.check_folder(folder)
    assert model_files.describe(folder).layers == 4


def test_template_of_the_tokenizer_configuration_counts(folder: Path) -> None:
    digest = model_files.describe(folder).chat_template_digest
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=template)
    model_files.check_folder(folder)
    assert model_files.describe(folder).chat_template_digest == digest
    edit(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": template}])
    model_files.check_folder(folder)


# --- weights -------------------------------------------------------------------------------------------------------

ONE = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
BROKEN: list[tuple[str, dict[str, Any] | bytes, int, str]] = [
    ("not JSON", b"{abc", 0, "has a header that is not JSON"),
    ("a list", b"[]", 0, "has a header that is a list"),
    ("a name twice", b'{"a": {}, "a": {}}', 0, "a key stands twice"),
    ("no offsets", {"a": {"dtype": "F32", "shape": [1]}}, 4, "tensor 'a' has no valid dtype, shape and data_offsets"),
    ("negative", {"a": ONE | {"shape": [-2, -2]}}, 16, "tensor 'a' has no valid"),
    ("a fraction", {"a": ONE | {"shape": [2.0, 2]}}, 16, "tensor 'a' has no valid"),
    ("unknown dtype", {"a": ONE | {"dtype": "F12"}}, 16, "unknown dtype 'F12'"),
    ("span", {"a": ONE | {"shape": [2, 3]}}, 16, r"shape \[2, 3\] and dtype F32 needs 24 bytes, its offsets hold 16"),
    ("late begin", {"a": ONE | {"data_offsets": [4, 20]}}, 20, "begins at offset 4, expected 0"),
    ("gap", {"a": ONE, "b": ONE | {"data_offsets": [20, 36]}}, 36, "'b' begins at offset 20, expected 16"),
    ("overlap", {"a": ONE, "b": ONE | {"data_offsets": [8, 24]}}, 24, "'b' begins at offset 8, expected 16"),
    ("short data", {"a": ONE}, 15, "holds 15 bytes of data, its header describes 16; the download"),
    ("long data", {"a": ONE}, 17, "holds 17 bytes of data, its header describes 16"),
]


@pytest.mark.parametrize(("header", "size", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_is_refused(tmp_path: Path, header: dict[str, Any] | bytes, size: int, message: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", header, bytes(size))
    with pytest.raises(CorruptModelError, match=message):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is 0 bytes long, a safetensors file has at least 8"),
        (b"\x00" * 7, "is 7 bytes long"),
        (b"\xff" * 64, "announces a header of 18446744073709551615 bytes, at most 56 are possible"),
        (b"version https://git-lfs.github.com/spec/v1\n", "announces a header of"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CorruptModelError, match=message):
        read_header(tmp_path / "model.safetensors")


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_refused(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (original / "model.safetensors").read_bytes()
    cut = tmp_path / "model.safetensors"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorruptModelError):
        read_header(cut)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_raises_anything_else(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, b'{"a":' + noise + b"}", b"")
    with pytest.raises(CorruptModelError):
        read_header(path)


def test_shard_faults(folder: Path, tmp_path: Path) -> None:
    shards(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    index = json.loads((folder / INDEX).read_text())["weight_map"]

    def refused(name: str, change: Callable[[Path], Any], message: str) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / name))
        change(copy)
        with pytest.raises(CorruptModelError, match=message):
            model_files.check_folder(copy)

    def write_index(places: Any) -> Callable[[Path], Any]:
        return lambda copy: (copy / INDEX).write_text(json.dumps({"weight_map": places}))

    refused("missing", lambda c: (c / second.name).unlink(), f"names 2 shards, 1 of them missing, first '{second.name}'")
    refused("twice", lambda c: shutil.copy(first, c / second.name), "stands in both model-00001.* and model-00002")
    refused("noindex", lambda c: (c / INDEX).unlink(), "holds shards but no model.safetensors.index.json")
    refused("both", lambda c: shutil.copy(first, c / "model.safetensors"), "holds both model.safetensors and")
    extra = "model-00003-of-00003.safetensors"
    refused("extra", lambda c: shutil.copy(first, c / extra), f"{extra} is not named in")
    name = next(iter(index))
    refused("short", write_index({k: v for k, v in index.items() if k != name}), "disagree about 1 tensors, first")
    refused("long", write_index({**index, "ghost": first.name}), "'ghost': index says .*, shards say nowhere")
    refused("outside", write_index({**index, "ghost": "../x.safetensors"}), "no weight_map from tensor names")
    refused("nomap", lambda c: (c / INDEX).write_text("{}"), "cannot be read")


def test_a_folder_that_cannot_be_read_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"cannot read .*: Permission denied; give this user read access"):
        model_files.check_folder(folder)
