"""A small folder, and keys and certificates made by the ``cryptography`` package, for the tests of signatures."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from beear_core.config import SigningConfig
from beear_core.errors import SignatureError
from components.passport.signature import PASSWORD, sign, verify_signature

FILES = {
    "model.safetensors": b"weights" * 1000,
    "README.md": b"# card",
    ".gitattributes": b"*.bin",
    "sub/config.json": b"{}",
}


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No password from outside, and no connection to anything."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def signed(model: Path, keys: SigningConfig) -> Path:
    sign(model, model / "model.sig", keys)
    return model / "model.sig"


def refused(model: Path, signature: Path, keys: SigningConfig) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        verify_signature(model, signature, keys)
    return caught.value


def lists(error: SignatureError) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return error.changed, error.extra, error.missing


def change(model: Path) -> None:
    """One byte of the weights."""
    (model / "model.safetensors").write_bytes(b"Weights" + b"weights" * 999)


def key_pair(folder: Path, name: str, password: str = "", curve: ec.EllipticCurve | None = None) -> SigningConfig:
    """A key pair as ``<name>.key`` and ``<name>.pub``."""
    folder.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(curve or ec.SECP256R1())
    write_private(folder / f"{name}.key", private, password)
    public = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return SigningConfig(method="key", private_key=str(folder / f"{name}.key"), public_key=str(folder / f"{name}.pub"))


def write_private(path: Path, private: ec.EllipticCurvePrivateKey, password: str = "") -> None:
    kept: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        kept = serialization.BestAvailableEncryption(password.encode())
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept))


class Authority:
    """A root certificate, and what it issues."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.root = self._certificate(name, self.private.public_key(), authority=True)
        (folder / f"{name}.pem").write_bytes(self.root.public_bytes(serialization.Encoding.PEM))

    def signing(self, name: str, *, may_sign: bool = True) -> SigningConfig:
        """A key with a certificate under this root."""
        private = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(name, private.public_key(), authority=False, may_sign=may_sign)
        write_private(self.folder / f"{name}.key", private)
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return SigningConfig(
            method="certificate",
            private_key=str(self.folder / f"{name}.key"),
            certificate=str(self.folder / f"{name}.pem"),
            certificate_chain=(str(self.folder / f"{self.name}.pem"),),
        )

    def _certificate(
        self, name: str, public: ec.EllipticCurvePublicKey, *, authority: bool, may_sign: bool = True
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=may_sign and not authority,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=not authority,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.private, hashes.SHA256())
        )
