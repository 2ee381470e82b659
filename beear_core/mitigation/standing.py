"""Where a mitigation stands after a round, on the disk: the next run of the same one goes on from there."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal

from safetensors import SafetensorError

from beear_core.config import MitigationConfig
from beear_core.errors import EvidenceError, StorageError
from beear_core.files import digest_file, disk_errors
from beear_core.mitigation.adversaries import Adversary
from beear_core.mitigation.checkpoints import Checkpoints
from beear_core.models.drift import Drift, read_drifts, write_drifts
from beear_core.models.load import LoadedModel, device_names
from beear_core.progress import say
from beear_core.records import Environment, Record, RoundRecord, digest_json

_STATE, _DRIFTS, _LOCK = "standing.json", "drift-{}.safetensors", ".lock"
_NAME_LENGTH = 16


@dataclass(slots=True)
class Standing:
    """Where the loop stands.

    Attributes:
        rounds: that are done.
        best: of these.
        setbacks: rounds that were undone, which make steps smaller.
        untouched: whether the weights still are the candidate's.
        drifts: perturbations found so far.
        restored: how many of the rounds a run before did.
    """

    rounds: list[RoundRecord] = field(default_factory=list)
    best: RoundRecord | None = None
    setbacks: int = 0
    untouched: bool = True
    drifts: list[Drift] = field(default_factory=list)
    restored: int = 0

    @property
    def number(self) -> int:
        """Of the last round that is done."""
        return len(self.rounds)


@dataclass(frozen=True, kw_only=True)
class StandingRecord(Record):
    """``Standing`` on the disk, with what else the next round depends on.

    Attributes:
        radius: of the perturbations, which grows; ``None`` where they have none.
        drawn: state of what everything is drawn from, as ``random.Random.getstate`` gives it.
        accepted, best_weights: files of weights beside this one.
        drifts, drifts_digest: the file beside it that holds the perturbations, and its digest.
    """

    kind: Literal["standing"] = "standing"
    rounds: tuple[RoundRecord, ...]
    best: int | None
    setbacks: int
    untouched: bool
    radius: float | None
    drawn: tuple[int, tuple[int, ...], float | None]
    accepted: str
    best_weights: str | None
    drifts: str
    drifts_digest: str


class Ground:
    """A folder of one mitigation: of this candidate, these anchors, this configuration, this code, this kind of machine."""

    def __init__(self, folder: Path, loaded: LoadedModel) -> None:
        self.folder, self._loaded = folder, loaded

    def keep(self, at: Standing, weights: Checkpoints, chooser: Random, perturbing: Adversary) -> None:
        """Write where the loop stands, in place of what was written before.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        version, internal, gauss = chooser.getstate()
        name = _DRIFTS.format(at.number)
        StandingRecord(
            rounds=tuple(at.rounds),
            best=at.best.round if at.best else None,
            setbacks=at.setbacks,
            untouched=at.untouched,
            radius=perturbing.radius,
            drawn=(version, internal, gauss),
            accepted=weights.accepted.name,
            best_weights=weights.best.name if weights.best else None,
            drifts=name,
            drifts_digest=write_drifts(self.folder / name, at.drifts, self._loaded.digest),
        ).write(self.folder / _STATE)
        weights.keep()
        for old in self.folder.glob(_DRIFTS.format("*")):
            if old.name != name:
                old.unlink()

    def take_up(self, at: Standing, weights: Checkpoints, chooser: Random, perturbing: Adversary) -> bool:
        """Put everything where a run before left it; ``False``: there was none, or what it left is damaged."""
        if not (self.folder / _STATE).exists():
            return False
        try:
            found = StandingRecord.read(self.folder / _STATE)
            drifts, _ = read_drifts(self.folder / found.drifts)
            if digest_file(self.folder / found.drifts) != found.drifts_digest:
                raise EvidenceError(f"{found.drifts} was altered")
            weights.take_up(found.accepted, found.best_weights)
        except (EvidenceError, OSError, SafetensorError) as error:
            say(f"what an earlier run left in {self.folder} cannot be used: {error}; beginning anew")
            return False
        device = self._loaded.model.device
        at.rounds, at.setbacks, at.untouched = list(found.rounds), found.setbacks, found.untouched
        at.best = next((r for r in found.rounds if r.round == found.best), None)
        at.drifts = [replace(drift, delta=drift.delta.to(device)) for drift in drifts]
        at.restored = at.number
        perturbing.radius = found.radius
        chooser.setstate(found.drawn)
        say(f"going on after round {at.number}, where an earlier run ended")
        return True


@contextmanager
def standing_ground(work: Path, loaded: LoadedModel, anchors_digest: str, config: MitigationConfig) -> Iterator[Ground]:
    """Yield the folder of this mitigation below ``work``, ours alone; it is removed unless an error or a kill came between.

    Raises:
        StorageError: nothing can be written there, or another process is at the same mitigation there.
    """
    here = Environment.here(device_names())
    known = {
        "model": loaded.digest,
        "anchors": anchors_digest,
        "config": dataclasses.asdict(config),
        "code": here.code_digest,
        "devices": here.devices,
        "versions": here.versions,
    }
    key = digest_json(known).removeprefix("sha256:")[:_NAME_LENGTH]
    folder = work / f"mitigation-{key}"
    with disk_errors(f"write to {work}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StorageError(
            f"another process is cleaning the same model with the same settings in {folder}; wait until it ended, or "
            "set BEEAR_CHECKPOINTS to another folder"
        ) from error
    ended = False
    try:
        yield Ground(folder, loaded)
        ended = True
    finally:
        if ended or not (folder / _STATE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
