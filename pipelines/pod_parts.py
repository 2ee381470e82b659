"""Parts of what a step's pod is given, each with what it may be: amounts, times, tolerations, retries, a volume."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from beear_core.config.kinds import STRICT


def _like(pattern: str, example: str) -> AfterValidator:
    """Refuse a text of another form, and say which is meant."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} cannot be read here; write {example}")
        return text

    return AfterValidator(check)


Amount = Annotated[str, _like(r"[1-9]\d*(Mi|Gi|Ti)", "a whole number with Mi, Gi or Ti, as 16Gi")]
Processors = Annotated[str, _like(r"[1-9]\d*m?|\d+\.\d+", 'processors in quotes, as "4" or "500m"')]
Duration = Annotated[str, _like(r"[1-9]\d*[smhd]", "a whole number with s, m, h or d, as 2h")]
Name = Annotated[
    str, _like(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a name of Kubernetes: small letters, digits, '-' and '.'")
]
MountPath = Annotated[str, _like(r"(/[a-z0-9][a-z0-9_-]*)+", "an absolute path of small letters, digits, '-' and '_'")]

_BYTES = {"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FOR_NODES = 86400  # seconds that the attempts of a step may wait for a node that has room
_TAKEN = {"tmp", "dev", "proc", "sys", "etc", "usr", "opt", "var", "run", "home", "gcs", "s3", "minio"}
_TAKEN |= {"kfp-launcher", "kfp-workspace"}


def bytes_of(amount: str) -> int:
    """Count the bytes of an ``Amount``."""
    return int(amount[:-2]) * _BYTES[amount[-2:]]


def seconds_of(duration: str) -> int:
    """Count the seconds of a ``Duration``."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint of nodes that a step's pod puts up with, as Kubernetes has it."""

    __pydantic_config__ = STRICT
    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often, and after how long, a pod that failed is made anew.

    Attributes:
        times: beside the first.
        wait: before the second attempt, ``1m``.
        factor: by which each further wait is longer; whole, because Argo reads no other.
    """

    __pydantic_config__ = STRICT
    times: Annotated[int, Field(ge=1, le=10)]
    wait: Duration = "1m"
    factor: Annotated[int, Field(ge=1, le=10)] = 2

    def in_all(self, timeout: int) -> int:
        """Count the seconds that all attempts may take, each as long as ``timeout``, with what is waited between them.

        Argo counts them from the first attempt's start, ends what still runs then, and takes an hour where nobody says.
        """
        waits: int = sum(seconds_of(self.wait) * self.factor**attempt for attempt in range(self.times))
        return (self.times + 1) * timeout + waits + _FOR_NODES


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A claim that is there, or one that Kubeflow makes for the run.

    Attributes:
        claim: the name of one that is there; what steps leave on it stays until they remove it.
        path: where that one is mounted.
        size: of one that is made for the run, and goes with it; it is mounted at ``/kfp-workspace``.
        storage_class: of that one; ``None`` for what Kubeflow's administrator chose, and without that the run is refused.
        access_mode: of that one. The steps that use it run one after the other.
    """

    __pydantic_config__ = STRICT
    claim: Name | None = None
    path: MountPath = "/work"
    size: Amount | None = None
    storage_class: Name | None = None
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"

    def __post_init__(self) -> None:
        if (self.claim is None) == (self.size is None):
            raise ValueError("give either claim, the name of a volume's claim that is there, or size, of one for the run")
        if self.claim and (self.storage_class or self.access_mode != "ReadWriteOnce"):
            raise ValueError(
                "storage_class and access_mode are for a claim to make, and claim names one that is there; leave them out"
            )
        if self.size and self.path != "/work":
            raise ValueError(f"path is {self.path}, and Kubeflow mounts what it makes at /kfp-workspace; leave it out")
        if self.path.split("/")[1] in _TAKEN:
            raise ValueError(f"path is {self.path}, where the system or Kubeflow has its own; choose another, as /work")
