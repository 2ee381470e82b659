"""Others verify what was signed; keys that cannot sign are found before; the page tells how to make them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from signing_keys import FILES, Authority, alone, change, folder_of, key_pair, lists, refused, signed, write_private

from beear_core.config import RegistryConfig, SigningConfig, parse, parse_json
from beear_core.errors import EXIT_ERROR, ConfigError, EvidenceError, SignatureError
from components.passport.signature import PASSWORD, check_signing, sign, verify_signature

DOCS = Path(__file__).resolve().parents[2] / "docs" / "signing.md"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "model", FILES)


@pytest.fixture
def keys(tmp_path: Path) -> SigningConfig:
    return key_pair(tmp_path / "keys", "release")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """model-signing's own command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)], capture_output=True, text=True, check=False
    )


# --- others' eyes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["key", "certificate"])
def test_the_library_s_own_command_verifies_it_too(model: Path, tmp_path: Path, method: str) -> None:
    keys = key_pair(tmp_path / "keys", "k") if method == "key" else Authority(tmp_path / "ca", "root").signing("k")
    signature = signed(model, keys)
    trusted = ("--public_key", keys.public_key) if keys.public_key else ("--certificate_chain", keys.certificate_chain[0])
    asked = ("verify", method, model, "--signature", signature, "--no-ignore-git-paths", *trusted)
    assert command(*asked).returncode == 0
    (model / "sub" / "config.json").write_bytes(b"{ }")
    done = command(*asked)
    assert done.returncode != 0
    assert "Hash mismatch for 'sub/config.json'" in done.stderr


def test_what_the_library_s_own_command_signed_verifies_where_nothing_is_left_out(model: Path, keys: SigningConfig) -> None:
    asked = ("sign", "key", model, "--signature", model / "model.sig", "--private_key", keys.private_key or "")
    assert command(*asked, "--no-ignore-git-paths").returncode == 0
    verify_signature(model, model / "model.sig", keys)
    # valid signatures of the right key, but they leave files out
    assert command(*asked).returncode == 0
    assert lists(refused(model, model / "model.sig", keys)) == ((), (".gitattributes",), ())
    assert command(*asked, "--no-ignore-git-paths", "--ignore-paths", model / "sub").returncode == 0
    assert lists(refused(model, model / "model.sig", keys)) == ((), ("sub/config.json",), ())


# --- keys ------------------------------------------------------------------------------------------------------------


def test_the_password_comes_from_the_environment(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = key_pair(tmp_path / "keys", "locked", password="correct horse")
    for wrong, said in (("", "Password was not given"), ("battery staple", "Incorrect password")):
        monkeypatch.setenv(PASSWORD, wrong)
        for call in (lambda: sign(model, model / "model.sig", keys), lambda: check_signing(keys)):
            with pytest.raises(ConfigError, match=said) as caught:
                call()
            assert "battery" not in str(caught.value)
    assert not (model / "model.sig").exists()
    monkeypatch.setenv(PASSWORD, "correct horse")
    check_signing(keys)
    signature = signed(model, keys)
    monkeypatch.delenv(PASSWORD)
    verify_signature(model, signature, keys)
    assert "horse" not in signature.read_text()


def test_nothing_is_signed_with_a_key_of_another_kind(model: Path, tmp_path: Path) -> None:
    keys = key_pair(tmp_path, "k")
    for private in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())):
        write_private(tmp_path / "k.key", private)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="nothing can be signed with the private key .*P-256, P-384 or P-521"):
            check_signing(keys)
    (tmp_path / "k.key").write_text("no key")
    with pytest.raises(ConfigError, match="nothing can be signed with the private key"):
        check_signing(keys)


def test_keys_that_do_not_belong_together_are_found_before(tmp_path: Path) -> None:
    one, two = key_pair(tmp_path, "one"), key_pair(tmp_path, "two")
    check_signing(one)
    with pytest.raises(ConfigError, match="does not verify by this configuration; give what belongs together"):
        check_signing(SigningConfig(method="key", private_key=one.private_key, public_key=two.public_key))
    issued, other = Authority(tmp_path / "ca", "root"), Authority(tmp_path / "other", "root")
    release = issued.signing("release")
    check_signing(release)
    for changed in (
        {"private_key": one.private_key},
        {"certificate_chain": (str(other.folder / "root.pem"),)},
        {"certificate": other.signing("release").certificate},
    ):
        with pytest.raises(ConfigError, match="does not (verify|match)"):
            check_signing(SigningConfig(**{**vars(release), **changed}))


def test_every_file_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_signing(SigningConfig(method="key", private_key=str(tmp_path / "a"), public_key=str(tmp_path)))
    assert caught.value.faults == (
        f"signing.private_key: there is no file {tmp_path / 'a'}",
        f"signing.public_key: there is no file {tmp_path}",
    )


def test_who_only_verifies_needs_no_private_key(model: Path, keys: SigningConfig) -> None:
    signature = signed(model, keys)
    public = SigningConfig(method="key", public_key=keys.public_key)
    verify_signature(model, signature, public)
    with pytest.raises(ConfigError, match=r"signing\.private_key: not given"):
        check_signing(public)
    with pytest.raises(ConfigError, match=r"nothing can be signed without signing\.private_key"):
        sign(model, signature, public)
    Path(keys.public_key or "").unlink()
    with pytest.raises(ConfigError, match="no signature can be verified with the public key"):
        verify_signature(model, signature, public)


# --- Sigstore, as far as nothing is asked -----------------------------------------------------------------------------

SIGSTORE = SigningConfig(method="sigstore", identity="ci@example.org", identity_provider="https://issuer.example")


def test_sigstore_needs_a_token_and_opens_no_browser(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sigstore.oidc

    check_signing(SIGSTORE)
    monkeypatch.setattr(sigstore.oidc, "detect_credential", lambda: None)
    with pytest.raises(ConfigError, match="this environment has no OpenID Connect token"):
        sign(model, model / "model.sig", SIGSTORE)


def test_sigstore_that_cannot_be_reached_is_said(model: Path, keys: SigningConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import sigstore.models
    import sigstore.oidc

    def unreachable() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(sigstore.models.ClientTrustConfig, "production", unreachable)
    monkeypatch.setattr(sigstore.oidc, "detect_credential", lambda: "token")
    assert "Sigstore cannot be asked: no route to host" in str(refused(model, signed(model, keys), SIGSTORE))
    with pytest.raises(SignatureError, match="Sigstore cannot be asked"):
        sign(model, model / "model.sig", SIGSTORE)


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "signing.method: Field required"),
        ({"method": "gpg"}, "signing.method: Input should be 'key', 'certificate' or 'sigstore'"),
        ({"method": "key"}, "signing with method key needs public_key"),
        ({"method": "certificate"}, "needs certificate_chain"),
        ({"method": "sigstore", "identity": "x"}, "needs identity_provider"),
        ({"method": "key", "public_key": "p", "identity": "x"}, "does not take identity"),
        (
            {"method": "sigstore", "identity": "x", "identity_provider": "y", "private_key": "k"},
            "does not take private_key",
        ),
        ({"method": "certificate", "certificate_chain": ["c"], "private_key": "k"}, "private_key and certificate together"),
        ({"method": "certificate", "certificate_chain": "c"}, "Input should be a valid array"),
        ({"method": "key", "public_key": "p", "password": "hunter2"}, "signing.password: unknown key"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(RegistryConfig, {"signing": values}, "x.yaml")


def test_without_the_section_nothing_is_signed() -> None:
    assert parse(RegistryConfig, {}, "x").signing is None
    home = parse(RegistryConfig, {"signing": {"method": "key", "public_key": "~/p"}}, "x").signing
    assert home == SigningConfig(method="key", public_key=str(Path.home() / "p"))


@pytest.mark.parametrize("signing", [None, SIGSTORE, SigningConfig(method="certificate", certificate_chain=("a", "b"))])
def test_a_step_is_given_the_same_configuration(signing: SigningConfig | None) -> None:
    config = RegistryConfig(signing=signing)
    assert parse_json(RegistryConfig, json.dumps(dataclasses.asdict(config)), "registry") == config


def test_paths_hold_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = SigningConfig(method="certificate", private_key="k", certificate="/c", certificate_chain=("a", "/b"))
    here = given.absolute()
    assert [place for _, place in here.files()] == [f"{tmp_path}/k", "/c", f"{tmp_path}/a", "/b"]
    assert SIGSTORE.absolute() == SIGSTORE


def test_an_error_of_a_signature_is_one_of_evidence() -> None:
    assert issubclass(SignatureError, EvidenceError)
    assert SignatureError.exit_code == EXIT_ERROR


# --- what the page says ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_commands_of_the_page_make_keys_and_verify_by_hand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    make, by_library, by_hand = (next(b for b in blocks if word in b) for word in ("genpkey", "model_signing", "dgst"))

    def run(block: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {**os.environ, "PATH": path, PASSWORD: "correct horse"}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=given, capture_output=True, text=True, check=False
        )

    assert run(make).returncode == 0
    keys = SigningConfig(method="key", private_key=str(tmp_path / "release.key"), public_key=str(tmp_path / "release.pub"))
    monkeypatch.setenv(PASSWORD, "correct horse")
    signed(model, keys)
    for block, said in ((by_library, "Verification succeeded"), (by_hand, "Verified OK")):
        done = run(block)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout + done.stderr
    change(model)
    for block in (by_library, by_hand):
        assert run(block).returncode != 0
