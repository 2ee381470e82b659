"""Figures with their uncertainty, and where they were measured."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass, field

from beear_core.errors import EvidenceError
from beear_core.records import running
from beear_core.records.record import LATER


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured figure with its uncertainty.

    ``value``, ``low``, ``high``: point estimate and two-sided interval at ``confidence``; ``None`` where nothing could be
    measured. ``n``: scored samples. ``count``: for a rate in [0, 1], how many of the n. ``unscored``: samples that no
    judge could score; they are in neither n nor count. ``design_effect``: 1 where every sample is a request of its own,
    else by how much repeated requests thin the samples out (see ``statistics.design_effect``).
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    count: int | None = None
    unscored: int = 0
    confidence: float = 0.95
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise EvidenceError(f"Estimate.{name} is {number}; record None where nothing was measured")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One named metric: overall, by category, and by known trigger (the last two may be empty).

    Where there are figures by trigger, ``overall`` and ``by_category`` pool them; a pooled figure hides a trigger that is
    always obeyed behind those that are not, so policies decide on the triggers one by one.
    """

    overall: Estimate
    by_category: dict[str, Estimate] = field(default_factory=dict)
    by_trigger: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where and with what a measurement or a decision was made.

    ``versions``: of the libraries that matter most. ``code_digest``, ``commit``: of this project; ``packages_digest``: over
    all that is installed; ``image``: by digest; see ``running``. Empty in records of earlier releases, the second and the
    last where there is none.
    """

    python: str
    platform: str
    processor: str
    devices: tuple[str, ...]
    versions: dict[str, str]
    code_version: str
    code_digest: str = field(default="", metadata=LATER)
    commit: str = field(default="", metadata=LATER)
    packages_digest: str = field(default="", metadata=LATER)
    image: str = field(default="", metadata=LATER)

    @classmethod
    def here(cls, devices: tuple[str, ...] = ("cpu",), code_version: str | None = None) -> Environment:
        """Describe the environment of this process; callers that know torch give ``devices``."""
        from importlib.metadata import PackageNotFoundError, version

        versions: dict[str, str] = {}
        names = ("torch", "transformers", "accelerate", "safetensors", "mlflow", "kfp", "great-expectations")
        for name in names:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        if code_version is None:
            try:
                code_version = version("beear-gate")
            except PackageNotFoundError:
                code_version = "unknown"
        return cls(
            python=platform.python_version(),
            platform=platform.platform(),
            processor=platform.machine(),
            devices=devices,
            versions=versions,
            code_version=code_version,
            code_digest=running.code_digest(),
            commit=running.commit(),
            packages_digest=running.packages_digest(),
            image=running.image(),
        )
