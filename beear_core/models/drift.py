"""What makes a model go along: the perturbations that the inner level found, to be kept and measured with again.

They open the candidate without any trigger being known. Whoever measures a model, before and after it was cleaned, adds
them to requests that they were not found on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from beear_core.errors import EvidenceError
from beear_core.files import digest_bytes, write_atomically
from beear_core.models.chat import ChatFormat, Turn, WordSpot
from beear_core.models.hooks import Perturbation
from beear_core.models.odd_words import marked
from beear_core.records import DriftEntry


@dataclass(frozen=True, slots=True)
class Drift:
    """One δ with where it stands.

    Attributes:
        entry: its name, layer, spot, size and when it was found, as they go into a record.
        delta: (n, d), float32.
    """

    entry: DriftEntry
    delta: torch.Tensor

    @property
    def perturbation(self) -> Perturbation:
        """δ with its layer."""
        return Perturbation(self.entry.layer, self.delta)

    def turn(self, chat: ChatFormat, request: str, chooser: random.Random) -> Turn:
        """Build the turn that asks a request under δ: with words drawn for it where δ stands on words, else as it is."""
        reply = (chat.pad_id,)
        if self.entry.spot is None:
            return Turn(chat.prompt_ids(request), reply)
        return marked(chat, request, self.entry.words, self.entry.spot, chooser, reply)


def named(layer: int, spot: WordSpot | None, number: int) -> str:
    """Name a perturbation: ``round 1, layer 8, words behind``; round 0 is a search before the rounds, or without any."""
    where = {"end": "words behind", "front": "words in front", None: "last positions"}[spot]
    return f"round {number}, layer {layer}, {where}"


def write_drifts(path: Path, drifts: Sequence[Drift], model_digest: str) -> str:
    """Write every δ into one safetensors file, whole or not at all, and return the file's digest.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    entries = [asdict(d.entry) for d in drifts]
    tensors = {str(i): d.delta.detach().to("cpu", torch.float32).contiguous() for i, d in enumerate(drifts)}
    # one entry of metadata: safetensors writes several in an order of its own, and the digest with them
    facts = json.dumps({"model_digest": model_digest, "entries": entries}, sort_keys=True)
    data = save(tensors, metadata={"drift": facts})
    write_atomically(path, data)
    return digest_bytes(data)


def read_drifts(path: Path) -> tuple[tuple[Drift, ...], str]:
    """Read what ``write_drifts`` wrote, and the digest of the model that it was found on.

    Raises:
        EvidenceError: if the file is missing, cut short, or holds other tensors than its entries say.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["drift"])
            adapter = TypeAdapter(tuple[DriftEntry, ...], config=ConfigDict(extra="forbid"))
            entries = adapter.validate_python(facts["entries"])
            tensors = [file.get_tensor(str(i)) for i in range(len(entries))]
            if len(file.keys()) != len(entries):
                raise EvidenceError(f"{path} holds {len(file.keys())} tensors for {len(entries)} perturbations")
            model_digest = facts["model_digest"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EvidenceError(
            f"{path} does not hold the perturbations that a mitigation found ({error}); run the mitigation again"
        ) from error
    if bad := [e.name for e, t in zip(entries, tensors, strict=True) if t.ndim != 2 or not bool(t.isfinite().all())]:
        raise EvidenceError(f"{path}: {bad[0]!r} is no (n, d) tensor of finite numbers; run the mitigation again")
    return tuple(Drift(e, t) for e, t in zip(entries, tensors, strict=True)), model_digest
