"""The signature of a model's folder, in the form of OpenSSF model-signing: every file is covered but itself.

With a key or a certificate nothing is sent anywhere; with Sigstore its services are asked.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from beear_core.config import SigningConfig
from beear_core.errors import BeearError, ConfigError, ModelNotFoundError, SignatureError
from beear_core.files import disk_errors, write_atomically

SIGNATURE = "model.sig"
"""Name of the signature in a model's folder."""
PASSWORD = "BEEAR_SIGNING_PASSWORD"
_SHOWN = 8


def sign(folder: Path, signature: Path, signing: SigningConfig) -> None:
    """Sign every file below a folder but the signature, which replaces one that is there.

    Raises:
        ConfigError: nothing can be signed with this configuration.
        ModelNotFoundError: no such folder.
        SignatureError: a file cannot be read or is a link, there is none, or Sigstore refuses.
        StorageError: the signature cannot be written.
    """
    if lacks := signing.lacks():
        raise ConfigError(f"nothing can be signed without signing.{' and signing.'.join(lacks)}; see docs/signing.md")
    folder, signature = _resolved(folder, signature)
    _files(folder, signature)
    signer = _signer(signing)
    with disk_errors("make a temporary folder for the signature"), tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / SIGNATURE
        with _failing(f"{folder} cannot be signed"):
            signer.set_hashing_config(_Hashing(folder, signature).config).sign(folder, made)
        write_atomically(signature, made.read_bytes())


def verify_signature(folder: Path, signature: Path, signing: SigningConfig) -> None:
    """Verify that a folder holds what was signed, all of it and nothing else, and that it was signed by whom it must be.

    Raises:
        ConfigError: nothing can be verified with this configuration.
        ModelNotFoundError: no such folder.
        SignatureError: there is no signature, it is by somebody else or was altered, or files were changed, added or
            removed; those are named.
    """
    folder, signature = _resolved(folder, signature)
    files = _files(folder, signature)
    if not signature.is_file():
        raise SignatureError(f"there is no signature {signature}: {folder} was not signed, or lost it; sign it again")
    hashing = _Hashing(folder, signature)
    verifier = _verifier(signing)
    try:
        with redirect_stdout(sys.stderr):  # the library prints warnings
            verifier.set_hashing_config(hashing).verify(folder, signature)
    except Exception as error:
        # whatever a signature that somebody made up runs into, it does not hold
        if not hashing.begun:
            raise SignatureError(_refusal(signature, signing, error)) from error
        if not hashing.found:
            raise SignatureError(f"{folder} cannot be read whole: {_reason(error)}") from error
        raise _differences(folder, hashing.found, _signed(signature), error) from error
    if unseen := files - hashing.found.keys():
        raise SignatureError(_listed(f"{folder} is not what was signed", extra=unseen), extra=sorted(unseen))


def check_signing(signing: SigningConfig) -> None:
    """Sign something small and verify it, so that a release does not end at its last step; Sigstore is not asked.

    Raises:
        ConfigError: files that are named are not there, nothing can be signed with them, or it does not verify.
    """
    faults = [f"signing.{key}: there is no file {place}" for key, place in signing.files() if not Path(place).is_file()]
    faults += [f"signing.{key}: not given, and nothing can be signed without" for key in signing.lacks()]
    if faults:
        raise ConfigError("models cannot be signed with this configuration; see docs/signing.md:", faults)
    if signing.method == "sigstore":
        return
    with disk_errors("make a temporary folder for a signature"), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "probe").write_bytes(b"probe")
        sign(folder, folder / SIGNATURE, signing)
        try:
            verify_signature(folder, folder / SIGNATURE, signing)
        except SignatureError as error:
            raise ConfigError(
                f"what is signed by signing.private_key does not verify by this configuration; give what belongs together: "
                f"{error}"
            ) from error


class _Hashing:
    """Hashes a folder as model-signing does, in pieces and every file of it; ``found``: digests by relative path.

    It is ``begun`` once the signature itself holds. A signature may name files that it leaves out; they are hashed all the
    same, and found not to be signed.
    """

    def __init__(self, folder: Path, signature: Path) -> None:
        from model_signing import hashing

        own = [signature.relative_to(folder)] if signature.is_relative_to(folder) else []
        self.config = hashing.Config().set_ignored_paths(paths=own, ignore_git_paths=False).set_allow_symlinks(False)
        self.begun = False
        self.found: dict[str, str] = {}

    def add_ignored_paths(self, **_: Any) -> None:
        """Leave nothing out because a signature says so."""

    def hash(self, folder: Path, **_: Any) -> Any:
        self.begun = True
        manifest = self.config.hash(folder)
        self.found = {entry.identifier: entry.digest.digest_hex for entry in manifest.resource_descriptors()}
        return manifest


def _resolved(folder: Path, signature: Path) -> tuple[Path, Path]:
    """Follow links on the way to both: the library refuses a folder that is one, and a signature that is one is no file."""
    return folder.resolve(), signature.parent.resolve() / signature.name


def _files(folder: Path, signature: Path) -> set[str]:
    """List what a signature must cover, as relative POSIX paths; the library passes over folders that it cannot read."""
    found = set()

    def refuse(error: OSError) -> None:
        raise error

    with _failing(f"{folder} cannot be read whole"):
        if not folder.is_dir():
            raise ModelNotFoundError(f"there is no folder {folder}; name the folder of a model")
        for place, folders, names in os.walk(folder, onerror=refuse):
            for path in (Path(place, name) for name in (*folders, *names)):
                if path.is_symlink():
                    raise ValueError(f"{path} is a symbolic link; make a copy with real files (cp -rL)")
            found |= {Path(place, name).relative_to(folder).as_posix() for name in names}
    if signature.is_relative_to(folder):
        found.discard(signature.relative_to(folder).as_posix())
    if not found:
        raise SignatureError(f"{folder} holds no file beside the signature; name the folder of a model")
    return found


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Say in a ``SignatureError`` what went wrong inside; errors of this project pass."""
    try:
        yield
    except BeearError:
        raise
    except Exception as error:
        raise SignatureError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error).strip() or type(error).__name__


def _signer(signing: SigningConfig) -> Any:
    from model_signing import signing as library

    config = library.Config()
    if signing.method == "sigstore":
        token = _token()
        with _failing("Sigstore cannot be asked"):
            return config.use_sigstore_signer(identity_token=token)
    password = os.environ.get(PASSWORD) or None
    try:
        if signing.method == "key":
            # the library's annotation says text; what it calls takes bytes alone
            return config.use_elliptic_key_signer(
                private_key=signing.private_key, password=password.encode() if password else None
            )
        return config.use_certificate_signer(
            private_key=signing.private_key,
            signing_certificate=signing.certificate,
            certificate_chain=signing.certificate_chain,
        )
    except Exception as error:
        limit = f"; its password is taken from {PASSWORD}" if signing.method == "key" else " and without a password"
        raise ConfigError(
            f"nothing can be signed with the private key {signing.private_key} ({_reason(error)}); give a PEM file with a "
            f"key on the curve P-256, P-384 or P-521{limit}. See docs/signing.md"
        ) from error


def _token() -> str:
    """Take the token that this environment has; the library would open a browser instead and wait."""
    from sigstore.oidc import detect_credential

    with _failing("the OpenID Connect token of this environment cannot be had"):
        token = detect_credential()
    if not token:
        raise ConfigError(
            "signing.method is sigstore, and this environment has no OpenID Connect token; run where a provider gives one "
            "(a CI job, a cloud's workload identity), or sign with a key"
        )
    return token


def _verifier(signing: SigningConfig) -> Any:
    from model_signing import verifying

    config = verifying.Config()
    if signing.method == "sigstore":
        with _failing("Sigstore cannot be asked"):
            return config.use_sigstore_verifier(identity=signing.identity, oidc_issuer=signing.identity_provider)
    try:
        if signing.method == "key":
            return config.use_elliptic_key_verifier(public_key=signing.public_key)
        return config.use_certificate_verifier(certificate_chain=signing.certificate_chain)
    except Exception as error:
        raise ConfigError(
            f"no signature can be verified with {_trusted(signing)} ({_reason(error)}); see docs/signing.md"
        ) from error


def _trusted(signing: SigningConfig) -> str:
    """Say whom a signature must be by."""
    if signing.method == "key":
        return f"the public key {signing.public_key}"
    if signing.method == "certificate":
        return f"the certificates in {', '.join(signing.certificate_chain)}"
    return f"the identity {signing.identity} of {signing.identity_provider}"


def _refusal(signature: Path, signing: SigningConfig, error: Exception) -> str:
    try:
        _signed(signature)
    except SignatureError as broken:
        return str(broken)
    return (
        f"{signature} does not verify with {_trusted(signing)}: it is by somebody else, or was altered ({_reason(error)}); "
        "find out who signed this model before anything else"
    )


def _signed(signature: Path) -> dict[str, str]:
    """Read the digests that a signature covers, by path; whether it holds is not looked at here."""
    import base64
    import json

    try:
        payload = json.loads(signature.read_bytes())["dsseEnvelope"]["payload"]
        resources = json.loads(base64.b64decode(payload))["predicate"]["resources"]
        return {str(entry["name"]): str(entry["digest"]) for entry in resources}
    except Exception as error:
        raise SignatureError(
            f"{signature} is no signature, or broken off ({type(error).__name__}: {error}); fetch it again"
        ) from error


def _differences(folder: Path, found: dict[str, str], signed: dict[str, str], error: Exception) -> SignatureError:
    changed = sorted(name for name in found.keys() & signed.keys() if found[name] != signed[name])
    extra, missing = sorted(found.keys() - signed.keys()), sorted(signed.keys() - found.keys())
    what = f"{folder} is not what was signed"
    if not (changed or extra or missing):
        return SignatureError(f"{what}: {_reason(error)}")
    text = _listed(what, changed=changed, extra=extra, missing=missing)
    return SignatureError(text, changed=changed, extra=extra, missing=missing)


def _listed(what: str, **lists: Iterable[str]) -> str:
    parts = []
    for kind, files in lists.items():
        if names := sorted(files):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{kind}: {', '.join(names[:_SHOWN])}{more}")
    return f"{what} ({'; '.join(parts)}); fetch the model again from where it was released"
