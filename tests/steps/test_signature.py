"""A signature covers every byte and name of a model's folder, by whom it must be, and says what is not as it was."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from signing_keys import FILES, Authority, alone, change, folder_of, key_pair, lists, refused, signed

from beear_core.config import SigningConfig
from beear_core.errors import ConfigError, ModelNotFoundError, SignatureError
from components.passport.signature import check_signing, sign, verify_signature


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "model", FILES)


@pytest.fixture
def keys(tmp_path: Path) -> SigningConfig:
    return key_pair(tmp_path / "keys", "release")


def payload(signature: Path) -> dict[str, Any]:
    content = json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))
    assert isinstance(content, dict)
    return content


# --- what holds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_what_was_signed_with_a_key_verifies(model: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    keys = key_pair(tmp_path / "keys", "release", curve=curve)
    verify_signature(model, signed(model, keys), keys)


def test_what_was_signed_with_a_certificate_verifies_by_its_root_alone(model: Path, tmp_path: Path) -> None:
    signing = Authority(tmp_path / "ca", "root").signing("release")
    only_root = SigningConfig(method="certificate", certificate_chain=signing.certificate_chain)
    verify_signature(model, signed(model, signing), only_root)


def test_every_file_is_covered_but_the_signature(model: Path, keys: SigningConfig) -> None:
    signature = signed(model, keys)
    assert [entry["name"] for entry in payload(signature)["predicate"]["resources"]] == sorted(FILES)


def test_a_new_signature_replaces_the_old_one(model: Path, keys: SigningConfig) -> None:
    signed(model, keys)
    (model / "README.md").write_bytes(b"# another card")
    verify_signature(model, signed(model, keys), keys)


def test_a_signature_may_lie_outside_the_folder(model: Path, keys: SigningConfig, tmp_path: Path) -> None:
    sign(model, tmp_path / "elsewhere" / "model.sig", keys)
    verify_signature(model, tmp_path / "elsewhere" / "model.sig", keys)
    (model / "model.sig").write_bytes(b"not the signature")
    assert lists(refused(model, tmp_path / "elsewhere" / "model.sig", keys)) == ((), ("model.sig",), ())


def test_a_link_to_the_folder_and_another_name_for_it_are_the_same_model(
    model: Path, keys: SigningConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(model)
    signed(tmp_path / "link", keys)
    verify_signature(model, model / "model.sig", keys)
    moved = Path(shutil.copytree(model, tmp_path / "moved"))
    monkeypatch.chdir(moved)
    verify_signature(Path(), Path("sub/../model.sig"), keys)


# --- what does not hold ----------------------------------------------------------------------------------------------


def cut(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"")


def swap(model: Path) -> None:
    one, two = (model / "README.md").read_bytes(), (model / "sub/config.json").read_bytes()
    (model / "README.md").write_bytes(two)
    (model / "sub/config.json").write_bytes(one)


ALTERED: dict[str, tuple[Callable[[Path], object], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "one byte": (change, ("model.safetensors",), (), ()),
    "cut off": (cut, ("model.safetensors",), (), ()),
    "contents swapped": (swap, ("README.md", "sub/config.json"), (), ()),
    "removed": (lambda m: (m / "README.md").unlink(), (), (), ("README.md",)),
    "added": (lambda m: (m / "adapter.json").write_bytes(b"{}"), (), ("adapter.json",), ()),
    "added below": (lambda m: folder_of(m, {".git/hooks/x": b""}), (), (".git/hooks/x",), ()),
    "an empty file added": (lambda m: (m / "sub" / "x").touch(), (), ("sub/x",), ()),
    "renamed": (lambda m: (m / "README.md").rename(m / "readme.md"), (), ("readme.md",), ("README.md",)),
    "moved": (lambda m: (m / "README.md").rename(m / "sub" / "README.md"), (), ("sub/README.md",), ("README.md",)),
    "a hidden file changed": (lambda m: (m / ".gitattributes").write_bytes(b""), (".gitattributes",), (), ()),
    "a file made a folder": (
        lambda m: ((m / "README.md").unlink(), folder_of(m, {"README.md/x": b""})),
        (),
        ("README.md/x",),
        ("README.md",),
    ),
    "several": (
        lambda m: (change(m), (m / "README.md").rename(m / "CARD.md")),
        ("model.safetensors",),
        ("CARD.md",),
        ("README.md",),
    ),
}


@pytest.mark.parametrize("how", ALTERED)
def test_each_file_that_is_not_as_it_was_is_named(model: Path, keys: SigningConfig, how: str) -> None:
    alter, *expected = ALTERED[how]
    signature = signed(model, keys)
    alter(model)
    error = refused(model, signature, keys)
    assert lists(error) == tuple(expected)
    kinds = [kind for kind, names in zip(("changed", "extra", "missing"), expected, strict=True) if names]
    assert re.findall(r"(changed|extra|missing): ", str(error)) == kinds
    assert "is not what was signed" in str(error)


def test_many_files_are_counted_in_the_message_and_all_in_the_list(model: Path, keys: SigningConfig) -> None:
    signature = signed(model, keys)
    folder_of(model, {f"x{i:02}": b"" for i in range(30)})
    error = refused(model, signature, keys)
    assert len(error.extra) == 30
    assert "x07 and 22 more" in str(error)


def test_the_signature_of_another_model_names_the_files(model: Path, keys: SigningConfig, tmp_path: Path) -> None:
    other = folder_of(tmp_path / "other", {**FILES, "model.safetensors": b"others", "x": b""})
    shutil.copy(signed(other, keys), model / "model.sig")
    assert lists(refused(model, model / "model.sig", keys)) == (("model.safetensors",), (), ("x",))


@pytest.mark.parametrize("method", ["key", "certificate"])
def test_another_key_is_no_changed_file(model: Path, tmp_path: Path, method: str) -> None:
    if method == "key":
        ours, theirs = key_pair(tmp_path / "keys", "ours"), key_pair(tmp_path / "keys", "theirs")
    else:
        ours, theirs = (Authority(tmp_path / name, "root").signing("release") for name in ("ours", "theirs"))
    signature = signed(model, theirs)
    change(model)  # whose files these are is not even asked
    error = refused(model, signature, ours)
    assert lists(error) == ((), (), ())
    assert re.search(
        r"does not verify with the (public key .*ours.pub|certificates in .*ours/root.pem): it is by", str(error)
    )


def test_a_certificate_that_may_not_sign_does_not_count(model: Path, tmp_path: Path) -> None:
    signing = Authority(tmp_path / "ca", "root").signing("release", may_sign=False)
    assert "cannot be used for signing" in str(refused(model, signed(model, signing), signing))
    with pytest.raises(ConfigError, match="does not verify by this configuration"):
        check_signing(signing)


def tampered(signature: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """The payload rewritten, with the hint to the key left as it is."""
    bundle, content = json.loads(signature.read_text()), payload(signature)
    alter(content)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(content).encode()).decode()
    signature.write_text(json.dumps(bundle))


def test_a_list_of_files_that_was_rewritten_does_not_hold(
    model: Path, keys: SigningConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = signed(model, keys)
    tampered(signature, lambda content: content["predicate"]["serialization"]["ignore_paths"].append("sub"))
    assert "does not verify with the public key" in str(refused(model, signature, keys))
    bundle = json.loads(signature.read_text())
    bundle["verificationMaterial"]["publicKey"] = {}
    signature.write_text(json.dumps(bundle))
    assert "does not verify with the public key" in str(refused(model, signature, keys))
    assert capsys.readouterr().out == ""  # where results go; the library prints a warning there


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda b: b[: len(b) // 2],
    "cut off by one": lambda b: b[:-1],
    "empty": lambda b: b"",
    "of zeros": lambda b: bytes(len(b)),
    "a list": lambda b: b"[]",
    "without an envelope": lambda b: b"{}",
    "an envelope that is a text": lambda b: b'{"dsseEnvelope": "x"}',
    "nested": lambda b: b"[" * 100_000,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_signature_is_told_from_a_wrong_key(model: Path, keys: SigningConfig, how: str) -> None:
    signature = signed(model, keys)
    broken = BROKEN[how](signature.read_bytes())
    assert broken != signature.read_bytes()
    signature.write_bytes(broken)
    error = refused(model, signature, keys)
    assert lists(error) == ((), (), ())
    assert "is no signature, or broken off" in str(error)


def test_a_model_without_a_signature_does_not_verify(model: Path, keys: SigningConfig) -> None:
    assert "there is no signature" in str(refused(model, model / "model.sig", keys))


def test_a_folder_without_files_is_neither_signed_nor_verified(tmp_path: Path, model: Path, keys: SigningConfig) -> None:
    empty = tmp_path / "empty"
    (empty / "sub").mkdir(parents=True)
    with pytest.raises(SignatureError, match="holds no file beside the signature"):
        sign(empty, empty / "model.sig", keys)
    shutil.copy(signed(model, keys), empty / "model.sig")
    assert "holds no file beside the signature" in str(refused(empty, empty / "model.sig", keys))
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        sign(tmp_path / "none", tmp_path / "none" / "model.sig", keys)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("target", ["README.md", "sub", "/etc/hostname", "nowhere"])
def test_links_are_neither_signed_nor_verified(model: Path, keys: SigningConfig, target: str) -> None:
    signature = signed(model, keys)
    before = signature.read_bytes()
    (model / "link").symlink_to(target)
    assert "link is a symbolic link; make a copy with real files" in str(refused(model, signature, keys))
    with pytest.raises(SignatureError, match="is a symbolic link"):
        sign(model, signature, keys)
    assert signature.read_bytes() == before


def test_what_is_no_file_is_neither_signed_nor_verified(model: Path, keys: SigningConfig) -> None:
    signature = signed(model, keys)
    os.mkfifo(model / "pipe")
    assert "pipe" in str(refused(model, signature, keys))
    with pytest.raises(SignatureError, match="pipe"):
        sign(model, signature, keys)


@pytest.fixture
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """Makes this process one that cannot read everything, as it is where tests do not run as root."""
    opened = [
        p
        for p in (tmp_path_factory.getbasetemp(), *tmp_path_factory.getbasetemp().parents)
        if p.name.startswith(("pytest-", "popen-"))
    ]
    modes = {p: p.stat().st_mode for p in opened}

    def become() -> None:
        if os.geteuid() == 0:
            for path in opened:
                path.chmod(0o755)
            os.seteuid(65534)

    yield become
    if os.getuid() == 0:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.parametrize("name", ["README.md", "sub"])
def test_what_cannot_be_read_is_an_error_and_never_left_out(
    model: Path, keys: SigningConfig, nobody: Callable[[], None], name: str
) -> None:
    signature = signed(model, keys)
    Path(keys.private_key or "").chmod(0o644)
    for path in (model.parent, model.parent / "keys", model):
        path.chmod(0o755)
    (model / name).chmod(0)
    nobody()
    error = refused(model, signature, keys)
    assert f"{model} cannot be read whole: {model / name}: Permission denied" in str(error)
    with pytest.raises(SignatureError, match=f"{name}: Permission denied"):
        sign(model, signature, keys)


def test_a_file_that_changes_while_it_is_looked_at_is_found(
    model: Path, keys: SigningConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_signing import hashing

    signature, hash_ = signed(model, keys), hashing.Config.hash

    def late(self: hashing.Config, folder: Path, **given: Any) -> Any:
        change(model)
        return hash_(self, folder, **given)

    monkeypatch.setattr(hashing.Config, "hash", late)
    assert lists(refused(model, signature, keys)) == (("model.safetensors",), (), ())


def test_a_file_that_the_library_passes_over_is_found_all_the_same(
    model: Path, keys: SigningConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_signing import hashing

    hash_ = hashing.Config.hash
    monkeypatch.setattr(
        hashing.Config, "hash", lambda self, folder: hash_(self, folder, files_to_hash=[model / "README.md"])
    )
    error = refused(model, signed(model, keys), keys)
    assert error.extra == (".gitattributes", "model.safetensors", "sub/config.json")
