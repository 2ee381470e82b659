"""A model's weights on disk to go back to, and where a loop stands, to go on from when its process was killed.

Weights are written under a new name each time. What the loop goes on from is named in one file, which takes its place as a
whole; what that no longer names is removed after. A kill at any moment leaves the state of one round or of the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from beear_core.errors import EvidenceError
from beear_core.files import disk_errors, whole_file, write_atomically
from beear_core.models.drift import Drift, read_drifts, write_drifts
from beear_core.progress import say
from beear_core.records import RoundRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STANDING = "standing.json"


def keep_weights(model: PreTrainedModel, file: Path) -> None:
    """Write every parameter to a file, which is there whole or stays as it was.

    Raises:
        StorageError: it cannot be written.
    """
    with whole_file(file, SafetensorError, doing=f"keep the best weights so far in {file.parent}") as temporary:
        save_file({n: p.detach() for n, p in model.named_parameters()}, temporary)


def restore_weights(model: PreTrainedModel, file: Path) -> None:
    """Put back what ``keep_weights`` wrote. Tied parameters stand in it once."""
    model.load_state_dict(load_file(file), strict=False)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a loop stands between two rounds, beside its weights and perturbations.

    Attributes:
        rounds: those that are done.
        best: the number of the best of them.
        random: state of everything that is drawn, as ``random.Random.getstate`` gives it.
        setbacks: how often a round was undone.
        untouched: whether the model is still the candidate as it came.
        radius: how large perturbations may be by now.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    rounds: tuple[RoundRecord, ...]
    best: int | None
    random: tuple[int, tuple[int, ...], float | None]
    setbacks: int
    untouched: bool
    radius: float


class Checkpoints:
    """The weights that a loop goes back to.

    Args:
        model: the candidate; its weights are the first to go back to.
        folder: made when it is not there; takes up to three times the weights.
        of: what the loop works on and with, each by its digest. What an earlier process left is gone on from where that was
            the same, and removed where not; without, there is nothing to go on from.
        clear: remove the files when the loop ended well. What it ended with must then be saved by the same process.

    Attributes:
        standing: where an earlier process left the loop; ``None``: it begins.
        drifts: the perturbations that it had found by then, on the processor.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(
        self, model: PreTrainedModel, folder: Path, *, of: Mapping[str, str] | None = None, clear: bool = True
    ) -> None:
        self.model, self.folder, self.of, self.clear = model, folder, of, clear
        self.planted = folder / "planted.safetensors"
        self.accepted, self.best, self.written = folder, folder, 0
        self.drifts: tuple[Drift, ...] = ()
        with disk_errors(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self.standing = self._left() if of else None
        if self.standing is None:
            self._sweep()
            self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.of is None or (self.clear and error is None):
            self._sweep()

    def accept(self) -> None:
        """Keep the weights as they are now, for a refused round to go back to."""
        before, self.written = self.accepted, self.written + 1
        self.accepted = self.folder / f"weights-{self.written}.safetensors"
        keep_weights(self.model, self.accepted)
        if self.of is None and before not in (self.folder, self.best):
            before.unlink()

    def go_back(self) -> None:
        """Undo a round. The optimiser begins anew with every round, so the weights are all there is to undo."""
        restore_weights(self.model, self.accepted)

    def accepted_is_best(self) -> None:
        """Keep what was accepted last as the best so far, which the loop ends with."""
        before, self.best = self.best, self.accepted
        if self.of is None and before not in (self.folder, self.best):
            before.unlink()

    def take_best(self) -> None:
        """Put back the best weights, which the loop ends with."""
        restore_weights(self.model, self.best)

    def stand(self, standing: Standing, drifts: Sequence[Drift]) -> None:
        """Keep where the loop stands, for a later process to go on from, and remove what that does not need.

        Raises:
            StorageError: it cannot be written.
        """
        if self.of is None:
            return
        found = self.folder / f"drifts-{len(standing.rounds)}.safetensors"
        write_drifts(found, drifts, self.of["model"])
        names = {"accepted": self.accepted.name, "best": self.best.name if standing.best else "", "drifts": found.name}
        state = {"of": dict(self.of), "files": names, "standing": asdict(standing)}
        write_atomically(self.folder / _STANDING, json.dumps(state).encode())
        self._sweep(_STANDING, *names.values())

    def _left(self) -> Standing | None:
        """Read where an earlier process left the loop; ``None``: nowhere, or of another model, data, settings or code."""
        file = self.folder / _STANDING
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            if other := [name for name, digest in dict(self.of or {}).items() if state["of"].get(name) != digest]:
                say(f"what is in {self.folder} is of another {' and '.join(other)}: the mitigation begins anew")
                return None
            standing = TypeAdapter(Standing).validate_python(state["standing"])
            files = {name: self.folder / given for name, given in state["files"].items()}
            self.drifts, _ = read_drifts(files["drifts"])
            self.accepted, self.best = files["accepted"], files["best"]
            self.written = int(self.accepted.stem.rpartition("-")[2])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ValidationError, EvidenceError) as error:
            say(f"{file} cannot be gone on from ({error}): the mitigation begins anew")
            return None
        return standing if self.accepted.is_file() and self.best.exists() else None

    def _sweep(self, *but: str) -> None:
        """Remove what the loop keeps here, but for some files; other files stay."""
        for pattern in ("weights-*.safetensors", "drifts-*.safetensors", self.planted.name, _STANDING):
            for file in self.folder.glob(pattern):
                if file.name not in but:
                    file.unlink(missing_ok=True)
