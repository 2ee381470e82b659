"""The mitigation at one decoder layer after another (Zeng et al., arXiv 2406.17092, figure 3): where does it succeed, when?

At each layer the model is taken afresh and the loop runs as it always does: a round that harms is undone, and the stopping
rule is the same. A round succeeds when it is admissible and leaves next to no attack success: under the known triggers
where some are given, else under what was found on the candidate. Triggers are only measured with; whether they are given
or not, every step on the weights is the same.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beear_core.config import MitigationConfig
from beear_core.data import AnchorSet, Trigger
from beear_core.errors import ConfigError, EvaluationError, EvidenceError, MitigationError
from beear_core.evaluation.statistics import rate_estimate
from beear_core.mitigation.adversaries import Adversary, Task
from beear_core.mitigation.beear import Loop, Stop
from beear_core.mitigation.checkpoints import Checkpoints
from beear_core.mitigation.layers import resolve_layers
from beear_core.mitigation.trial import ADMISSIBLE, Held, remaining
from beear_core.models.chat import Turn
from beear_core.models.folder import check_folder, describe, directory_digest
from beear_core.models.load import device_names, load
from beear_core.progress import say
from beear_core.records import Ending, Environment, Estimate, Record, RoundRecord, digest_json

LayerEnding = Ending | Literal["failed"]
SUCCESS = 0.05
"""A successful round leaves at most this share of attack success."""
EVERY = 4
"""Without a choice every fourth layer is swept."""


@dataclass(frozen=True, kw_only=True)
class SweptRound:
    """One round at a layer; both figures are of its weights, before it is undone where it harmed.

    ``triggered``: attack success under the worst known trigger; ``None``: no trigger is known.
    """

    record: RoundRecord
    triggered: Estimate | None

    @property
    def left(self) -> float:
        """Attack success that decides, in [0, 1]; 1, the worst, where it was not measured."""
        if self.triggered is None:
            return remaining(self.record)[1]
        return 1.0 if self.triggered.value is None else self.triggered.value

    def succeeded(self, success: float) -> bool:
        """Tell whether the round is admissible and leaves at most the share ``success``."""
        return self.record.note == ADMISSIBLE and self.left <= success


@dataclass(frozen=True, kw_only=True)
class LayerRecord(Record):
    """The mitigation at one layer. ``key``: digest of all that its figures depend on.

    ``earliest``: the first round that leaves at most ``success``, ``None`` where none does. ``held_back``: how many
    requests of each role a round's shares are of. ``triggered_before``: the candidate's attack success under the worst
    known trigger. ``ending``: as the mitigation's, or ``failed`` where the loop could not go on; ``reason`` says why.
    ``best_round``: whose weights the mitigation would keep.
    """

    kind: Literal["layer"] = "layer"
    layer: int
    key: str
    success: float
    earliest: int | None
    model_digest: str
    anchors_digest: str
    config: dict[str, int | float | str | bool | None]
    compute_dtype: str
    held_back: dict[str, int]
    triggered_before: Estimate | None
    rounds: tuple[SweptRound, ...]
    best_round: int | None
    ending: LayerEnding
    reason: str
    seconds: float
    environment: Environment

    def judged(self, success: float) -> LayerRecord:
        """Find the earliest successful round anew: what counts as success changes no measured figure."""
        earliest = next((r.record.round for r in self.rounds if r.succeeded(success)), None)
        return dataclasses.replace(self, success=success, earliest=earliest)


@dataclass(frozen=True, kw_only=True)
class SweepRecord(Record):
    """The mitigation of one model at several layers, in ascending order."""

    kind: Literal["layer sweep"] = "layer sweep"
    model_digest: str
    success: float
    layers: tuple[LayerRecord, ...]


def default_layers(depth: int) -> tuple[int, ...]:
    """Choose every fourth of ``depth`` decoder layers; the last one has none above it that could be perturbed."""
    return tuple(range(0, depth - 1, EVERY))


def sweep_layers(
    model: Path,
    anchors: AnchorSet,
    config: MitigationConfig,
    layers: Sequence[int],
    out: Path,
    *,
    triggers: Sequence[Trigger] = (),
    requests: Sequence[str] = (),
    success: float = SUCCESS,
) -> SweepRecord:
    """Mitigate a model at each layer, afresh each time; what ``out`` holds already is not measured again.

    Args:
        model: its folder; nothing in it changes.
        anchors: the defender's data.
        config: of the mitigation; ``layer`` and ``enabled`` are not looked at.
        layers: decoder layers, 0-based.
        out: folder for one file a layer, each written as soon as the layer is measured, and for weights meanwhile.
        triggers: known ones, to measure with alone.
        requests: harmful ones that are asked under every trigger; not among the anchors.
        success: share in [0, 1] that a successful round leaves at most.

    Raises:
        ConfigError: a layer out of range, or a method that perturbs none.
        EvaluationError: triggers without requests.
        ModelError, DataError, StorageError: see ``beear_core.mitigation.beear.mitigate``.
    """
    check_folder(model)
    at = _settings(config, layers, describe(model).layers)
    if triggers and not requests:
        raise EvaluationError(f"{len(triggers)} known trigger(s), but no request to ask under them; give at least one")
    digest, found = directory_digest(model), []
    shown = [[dataclasses.asdict(t) for t in triggers], list(requests) if triggers else []]
    for layer, settings in at.items():
        file = layer_file(out, layer)
        key = digest_json([digest, anchors.digest, dataclasses.asdict(settings), *shown])
        record = _known(file, key)
        if record is None:
            say(f"layer {layer}, one of {', '.join(map(str, at))}")
            record = _measured(model, anchors, settings, key, out / "work", triggers, requests)
            record.judged(success).write(file)
        found.append(record.judged(success))
    return SweepRecord(model_digest=digest, success=success, layers=tuple(found))


def _settings(config: MitigationConfig, layers: Sequence[int], depth: int) -> dict[int, MitigationConfig]:
    """Configure the mitigation at each layer of a model with ``depth`` of them, in ascending order."""
    if config.method == "flush":
        raise ConfigError("mitigation.method is 'flush', which perturbs no layer; choose 'beear' or 'both' for a sweep")
    at = {layer: dataclasses.replace(config, layer=layer, enabled=True) for layer in sorted(set(layers))}
    for settings in at.values():
        resolve_layers(settings, depth)
    return at


def layer_file(out: Path, layer: int) -> Path:
    """Name the file of a layer in a folder of results."""
    return out / f"layer-{layer}.json"


def read_layers(out: Path) -> tuple[LayerRecord, ...]:
    """Read every layer that a folder of results holds, in ascending order; none where there is no folder.

    Raises:
        EvidenceError: a file that is no layer's.
    """
    return tuple(sorted((LayerRecord.read(file) for file in out.glob("layer-*.json")), key=lambda r: r.layer))


def _known(file: Path, key: str) -> LayerRecord | None:
    """Read a layer that was measured before; ``None`` where there is none, or it was measured otherwise."""
    try:
        record = LayerRecord.read(file)
    except EvidenceError:  # not there, or of a release that wrote other fields
        return None
    return record if record.key == key else None


def _measured(
    model: Path,
    anchors: AnchorSet,
    config: MitigationConfig,
    key: str,
    work: Path,
    triggers: Sequence[Trigger],
    requests: Sequence[str],
) -> LayerRecord:
    """Run the mitigation at the layer of the configuration, on a model loaded afresh."""
    began, loaded = time.monotonic(), load(model)
    with LayerLoop.on(loaded, anchors, config, work) as loop:
        loop.asked = [[loaded.chat.asked(t.apply(request), t.before) for request in requests] for t in triggers]
        before = loop.under_triggers()
        ending, reason, best = loop.outcome()
    held = loop.task.anchors.held
    return LayerRecord(
        layer=loop.enlisted.places.layers[0],
        key=key,
        success=SUCCESS,
        earliest=None,
        model_digest=loaded.digest,
        anchors_digest=anchors.digest,
        config=dataclasses.asdict(config),
        compute_dtype=loop.task.compute,
        held_back={role: len(getattr(held, role)) for role in ("harmful", "ordinary", "borderline")},
        triggered_before=before,
        rounds=tuple(loop.swept),
        best_round=best,
        ending=ending,
        reason=reason,
        seconds=round(time.monotonic() - began, 1),
        environment=Environment.here(device_names()),
    )


class LayerLoop(Loop):
    """Algorithm 1, with what is left under known triggers measured beside it.

    Attributes:
        asked: under each known trigger, every request; set before ``run``.
        swept: the rounds so far.
    """

    def __init__(self, task: Task, layers: tuple[int, ...], weights: Checkpoints) -> None:
        super().__init__(task, layers, weights)
        self.asked: Sequence[Sequence[Turn]] = ()
        self.swept: list[SweptRound] = []
        self.triggered: Estimate | None = None

    def outcome(self) -> tuple[LayerEnding, str, int | None]:
        """Run algorithm 1, and tell how and why it ended, and the best round."""
        try:
            ended = self.run()
        except MitigationError as error:
            # at this layer the mitigation fails; the others are worth knowing all the same
            return "failed", str(error), None
        return ended.ending, ended.reason, ended.best_round

    def under_drift(self) -> float | None:
        """Measure what the loop does, and the known triggers on the same weights: a round that harms is undone after."""
        self.triggered = self.under_triggers()
        return super().under_drift()

    def round(self, number: int, adversary: Adversary, before: Held) -> RoundRecord | Stop:
        """Run a round, and keep what was measured of its last attempt."""
        done = super().round(number, adversary, before)
        if isinstance(done, RoundRecord):
            self.swept.append(SweptRound(record=done, triggered=self.triggered))
        return done

    def under_triggers(self) -> Estimate | None:
        """Measure attack success under every known trigger: the worst one's, ``None`` where none is known."""
        found = [rate_estimate(round(self.trial.attack(turns) * len(turns)), len(turns)) for turns in self.asked]
        return max(found, key=lambda estimate: estimate.value or 0.0, default=None)
