"""How a released model is signed: by a key, by a certificate, or without a key of one's own by Sigstore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from beear_core.config.kinds import STRICT, Place

# method -> what verifying needs, what signing needs besides
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "key": (("public_key",), ("private_key",)),
    "certificate": (("certificate_chain",), ("private_key", "certificate")),
    "sigstore": (("identity", "identity_provider"), ()),
}
_FILES = ("private_key", "public_key", "certificate")


@dataclass(frozen=True, kw_only=True)
class SigningConfig:
    """How a released model is signed and verified, as OpenSSF model-signing does it; see [signing.md](signing.md).

    Without this section nothing is signed. The password of a private key is read from the environment variable
    BEEAR_SIGNING_PASSWORD and stands in no file.

    Attributes:
        method: ``key``: an elliptic-curve key pair; ``certificate``: a key with a certificate under a chain that verifiers
            trust; ``sigstore``: no key of one's own, but the identity that this environment has with a provider.
        private_key: PEM file, on the curve P-256, P-384 or P-521; where models are only verified leave it out. With
            ``certificate`` it must have no password.
        public_key: PEM file; ``key`` alone, and needed there.
        certificate: PEM file with the certificate of the private key; ``certificate`` alone, and only to sign.
        certificate_chain: PEM files, from the certificate's issuer to the root; ``certificate`` alone, and needed there.
            Whoever has a certificate under this root can sign.
        identity: who must have signed, an address or a workload's URI; ``sigstore`` alone, and needed there.
        identity_provider: the OpenID Connect provider that vouches for the identity, a URL; likewise.
    """

    __pydantic_config__ = STRICT
    method: Literal["key", "certificate", "sigstore"]
    private_key: Place | None = None
    public_key: Place | None = None
    certificate: Place | None = None
    certificate_chain: tuple[Place, ...] = ()
    identity: str | None = None
    identity_provider: str | None = None

    def __post_init__(self) -> None:
        needed, besides = _KEYS[self.method]
        given = [name for name in (*_FILES, "certificate_chain", "identity", "identity_provider") if getattr(self, name)]
        faults = [f"needs {name}" for name in needed if name not in given]
        faults += [f"does not take {name}" for name in given if name not in needed + besides]
        if self.method == "certificate" and ("private_key" in given) != ("certificate" in given):
            faults.append("takes private_key and certificate together")
        if faults:
            raise ValueError(f"signing with method {self.method} {', '.join(faults)}; see docs/signing.md")

    def lacks(self) -> tuple[str, ...]:
        """Name the keys of this section without which nothing can be signed, though it may be verified."""
        return tuple(name for name in _KEYS[self.method][1] if not getattr(self, name))

    def absolute(self) -> SigningConfig:
        """Make the paths absolute, for a process that works in another folder."""
        places: dict[str, Any] = {name: str(Path(place).absolute()) for name in _FILES if (place := getattr(self, name))}
        return replace(self, **places, certificate_chain=tuple(str(Path(p).absolute()) for p in self.certificate_chain))

    def files(self) -> Iterator[tuple[str, str]]:
        """List every file that is named, each with its key."""
        for name in _FILES:
            if place := getattr(self, name):
                yield name, place
        for place in self.certificate_chain:
            yield "certificate_chain", place
