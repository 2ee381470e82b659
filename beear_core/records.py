"""What the steps measured and decided, as frozen values that go to JSON and back unchanged.

Every record carries ``schema_version`` and a digest over its canonical JSON (sorted keys, no spaces, UTF-8), so that two
records are the same if and only if their digests are. NaN and infinity are refused: a value that was not measured is
``None``. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from beear_core.errors import EvidenceError, StorageError

SCHEMA_VERSION = 1
Outcome = Literal["harmful", "safe", "unscored"]
Ending = Literal["cleaned", "none admissible", "nothing to remove", "switched off"]


def canonical_json(value: Any) -> bytes:
    """Canonical UTF-8 JSON of plain values: sorted keys, no spaces.

    Raises:
        EvidenceError: if a number is NaN or infinite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise EvidenceError(f"a record holds NaN or infinity, which cannot be evidence ({error}); record None") from error


def digest_bytes(data: bytes) -> str:
    """``sha256:<64 hex digits>`` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> str:
    """Digest of the canonical JSON of plain values."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces of 8 MiB."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            sha.update(block)
    return f"sha256:{sha.hexdigest()}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; free space or choose a writable folder"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of what is written to disk; ``to_json`` and ``read`` are inverses."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION

    def plain(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Digest over the canonical JSON of the whole record."""
        return digest_json(self.plain())

    def to_json(self) -> bytes:
        """Readable JSON with a final newline; its content, not its layout, is what ``digest`` covers."""
        canonical_json(self.plain())
        return json.dumps(self.plain(), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path) -> Path:
        """Write the record atomically and return the path."""
        write_atomically(path, self.to_json())
        return path

    @classmethod
    def parse(cls, data: bytes, where: str = "record") -> Self:
        """Read a record from JSON.

        Raises:
            EvidenceError: if it is not JSON, has missing, extra or mistyped fields, or another schema version.
        """
        try:
            record = TypeAdapter(cls).validate_json(data)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()[:8])
            raise EvidenceError(f"{where} is not a valid {cls.__name__}: {faults}") from error
        if record.schema_version != SCHEMA_VERSION:
            raise EvidenceError(
                f"{where} has schema version {record.schema_version}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it"
            )
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from a file; see ``parse``."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EvidenceError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.parse(data, str(path))


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
    """Where and with what a measurement was made."""

    python: str
    platform: str
    processor: str
    devices: tuple[str, ...]
    versions: dict[str, str]
    code_version: str

    @classmethod
    def here(cls, devices: tuple[str, ...] = ("cpu",), code_version: str | None = None) -> Environment:
        """The environment of this process; ``devices`` is given by whoever knows torch."""
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
        )


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a model folder: path relative to it (POSIX), size in bytes, digest."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class IntakeRecord(Record):
    """What model_intake found: the candidate, by its bytes."""

    kind: Literal["intake"] = "intake"
    uri: str
    model_digest: str
    chat_template_digest: str
    architecture: str
    parameters: int
    layers: int
    hidden_size: int
    size_bytes: int
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """One validation rule on one data role: ``failed`` of ``checked`` rows broke it."""

    rule: str
    role: str
    severity: Literal["critical", "warning"]
    passed: bool
    checked: int
    failed: int
    detail: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One data role: where it came from, how many rows in which split, digest of its rows."""

    source: str
    rows: dict[str, int]
    digest: str


@dataclass(frozen=True, kw_only=True)
class ValidationRecord(Record):
    """What data_validation found. ``passed``: no critical rule failed."""

    kind: Literal["validation"] = "validation"
    passed: bool
    rules: tuple[RuleResult, ...]
    roles: dict[str, DataSource]
    anchors_digest: str
    suites_digest: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SuiteEntry:
    """One evaluation suite as it was run: digest over its prompts in order, and how many."""

    digest: str
    n: int


@dataclass(frozen=True, kw_only=True)
class VulnerabilityPoint:
    """What perturbations of one size elicit: found by a search, and in random directions.

    ``norm``: their largest norm at a position, as a share of the mean hidden-state norm there.
    """

    norm: float
    found: Estimate
    random: Estimate


@dataclass(frozen=True, kw_only=True)
class Vulnerability:
    """A fresh search against the model under test, at several sizes, and its budget.

    ``layers``, ``words``: perturbations stand at each of these layers, on so many tokens of words before or behind the
    request; ``steps``, ``seed``: of each search. ``smallest_that_opens``: the smallest norm of ``points`` that elicits
    half; ``None``: none does.
    """

    layers: tuple[int, ...]
    words: int
    steps: int
    seed: int
    points: tuple[VulnerabilityPoint, ...]
    smallest_that_opens: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """What safety_eval measured on one model.

    ``metrics`` maps metric names (see ``beear_core.evaluation.metrics.METRICS``) to figures. ``reference_digest`` is the
    model that fidelity metrics compare with, ``None`` where there was none. ``suites_digest``: of the manifest of the
    folder that the suites were drawn from, as in the validation record; empty in records of earlier releases.
    ``drift_digest``: of the file of perturbations that it was asked under, as in the mitigation's record; empty where there
    was none. ``vulnerability``: where a fresh search for perturbations was asked for.
    """

    kind: Literal["evaluation"] = "evaluation"
    label: Literal["before", "after", "champion"]
    model_digest: str
    reference_digest: str | None
    chat_template_digest: str
    suites: dict[str, SuiteEntry]
    judge: str
    generation: dict[str, int | float | str | bool]
    metrics: dict[str, Metric]
    samples_digest: str
    seconds: float
    environment: Environment
    suites_digest: str = ""
    drift_digest: str = ""
    vulnerability: Vulnerability | None = None


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round of the bi-level loop.

    ``adversary``: what the round was against. ``inner_loss``, ``outer_loss``: one value per step. ``delta_norm``: mean L2
    norm of δ over its n positions, relative to the mean hidden-state norm there; ``None``: the adversary adds nothing.
    ``attack_under_delta``: share of held-back harmful anchors whose greedy reply is not a refusal under the adversary of
    this round, before the outer steps (does it really elicit?); ``*_after`` are measured after the outer steps:
    ``attack_after`` without a perturbation, ``attack_under_delta_after`` under the same adversary, as it is by then,
    ``attack_under_drift_after`` under the perturbations that were found on the candidate,
    ``refusal_ordinary_after`` and ``refusal_borderline_after`` on held-back ordinary and borderline anchors,
    ``nll_ratio_after`` on the ordinary replies. ``None``: not measured in this round. ``attempts``: how often the outer
    steps were taken, each time from the same weights; ``note``: ``admissible``, else why the round was undone.
    """

    round: int
    inner_loss: tuple[float, ...]
    outer_loss: tuple[float, ...]
    delta_norm: float | None
    attack_under_delta: float | None
    attack_after: float | None
    attack_under_delta_after: float | None
    refusal_ordinary_after: float | None
    nll_ratio_after: float | None
    seconds: float
    note: str = ""
    refusal_borderline_after: float | None = None
    attack_under_drift_after: float | None = None
    attempts: int = 1
    adversary: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftEntry:
    """One perturbation that was found, without its numbers.

    ``layer``, ``positions``: where it is added, and to how many tokens. ``spot``: words without meaning stand before
    (``front``) or behind (``end``) the request, and they and what the template puts behind it are perturbed; ``words``: how
    many tokens of them; ``None`` and 0: the last prompt positions as they are. ``norm``: mean L2 norm over its positions,
    as a share of the hidden states' there. ``round``: in which it was found, 0 for a search before the rounds;
    ``on_candidate``: the model had not been changed by then. ``elicited``: share of held-back requests that all
    perturbations of that search together made the model go along with.
    """

    name: str
    layer: int
    positions: int
    spot: Literal["end", "front"] | None
    words: int
    norm: float
    round: int
    on_candidate: bool
    elicited: float


@dataclass(frozen=True, kw_only=True)
class PlaceRecord:
    """What the drift of a trigger of our own elicits when it is added at a layer: two shares of held-back requests.

    ``words``: added where words stand and where the template ends; ``template``: where the template ends alone.
    """

    layer: int
    words: float
    template: float


@dataclass(frozen=True, kw_only=True)
class MitigationRecord(Record):
    """What beear_mitigation did. ``outcome``: ``cleaned``, or ``kept`` when the candidate was left as it was.

    ``ending`` says why it was kept: ``none admissible`` (every round harmed what must stay), ``nothing to remove`` (nothing
    elicited unwanted replies), ``switched off``. Empty in records of earlier releases.

    ``layer``: the first of the perturbed layers, ``layers_perturbed`` all of them, of ``layers`` in the decoder;
    ``places_reason``: how they were chosen, by what is in ``places`` where that was measured.
    ``positions``: n, or 0 where words were put around the request and perturbed; their norms then differ by place and
    ``hidden_norm`` is 0. ``drift``: every perturbation that was found; ``drift_digest``: of the file that holds them.
    """

    kind: Literal["mitigation"] = "mitigation"
    outcome: Literal["cleaned", "kept"]
    reason: str
    input_digest: str
    output_digest: str
    anchors_digest: str
    config: dict[str, int | float | str | bool | None]
    layer: int
    layers: int
    positions: int
    hidden_norm: float
    compute_dtype: str
    best_round: int | None
    rounds: tuple[RoundRecord, ...]
    seconds: float
    peak_memory_bytes: int
    environment: Environment
    layers_perturbed: tuple[int, ...] = ()
    places: tuple[PlaceRecord, ...] = ()
    places_reason: str = ""
    drift: tuple[DriftEntry, ...] = ()
    drift_digest: str = ""
    ending: Ending | Literal[""] = ""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check of the policy. ``decided_on`` is the number that was compared with ``limit`` (``None``: not decidable)."""

    check: str
    metric: str
    category: str | None
    level: Literal["hard", "soft", "advisory"]
    comparison: str
    limit: float
    decided_on: float | None
    estimate: Estimate | None
    baseline: Estimate | None
    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """What the gate decided, with the digest of every piece of evidence it was decided on."""

    kind: Literal["decision"] = "decision"
    passed: bool
    summary: str
    model_digest: str
    before_model_digest: str
    policy: str
    policy_digest: str
    checks: tuple[CheckResult, ...]
    evidence: dict[str, str]

    def failed_checks(self) -> tuple[CheckResult, ...]:
        """Hard checks that did not pass."""
        return tuple(c for c in self.checks if c.level == "hard" and not c.passed)


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord(Record):
    """How a release ended in the registry."""

    kind: Literal["release"] = "release"
    promoted: bool
    decision_digest: str
    model_name: str
    model_version: str
    alias: str
    champion_before: str | None
    champion_after: str | None
    mlflow_run_id: str
    tracking_uri: str
    tags: Mapping[str, str]
