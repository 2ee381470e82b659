"""What was found is kept, read back unchanged, and asked with as it was found."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from beear_core.errors import EvidenceError
from beear_core.files import digest_file
from beear_core.models.drift import Drift, named, read_drifts, write_drifts
from beear_core.models.load import load
from beear_core.records import DriftEntry


def drift(spot: str | None = "end", number: int = 1) -> Drift:
    entry = DriftEntry(
        name=named(2, spot, number), layer=2, positions=6, spot=spot, words=4 if spot else 0, norm=0.06, round=number,
        on_candidate=number == 1, elicited=0.5,
    )  # fmt: skip
    return Drift(entry, torch.randn(6, 8, generator=torch.Generator().manual_seed(number)))


def test_read_is_what_was_written(tmp_path: Path) -> None:
    kept = [drift(), drift("front", 2), drift(None, 3)]
    file = tmp_path / "found" / "drift.safetensors"
    assert write_drifts(file, kept, "sha256:1") == digest_file(file)
    read, model = read_drifts(file)
    assert model == "sha256:1"
    assert [d.entry for d in read] == [d.entry for d in kept]
    assert all(torch.equal(a.delta, b.delta) for a, b in zip(read, kept, strict=True))


def test_the_same_perturbations_give_the_same_bytes(tmp_path: Path) -> None:
    """The digest goes into records, and records of two runs are compared."""
    assert len({write_drifts(tmp_path / "d", [drift(), drift(None, 3)], "sha256:1") for _ in range(12)}) == 1


def test_nothing_found_is_a_file_too(tmp_path: Path) -> None:
    write_drifts(tmp_path / "d", [], "sha256:1")
    assert read_drifts(tmp_path / "d") == ((), "sha256:1")


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "drift.safetensors"
    with pytest.raises(EvidenceError, match="does not hold the perturbations"):
        read_drifts(file)
    file.write_bytes(b"not one")
    with pytest.raises(EvidenceError, match="run the mitigation again"):
        read_drifts(file)
    save_file({"0": torch.zeros(2, 2)}, file)
    with pytest.raises(EvidenceError, match="does not hold the perturbations"):
        read_drifts(file)
    save_file({"0": torch.zeros(2, 2)}, file, metadata={"drift": '{"entries": [], "model_digest": "sha256:1"}'})
    with pytest.raises(EvidenceError, match="1 tensors for 0 perturbations"):
        read_drifts(file)
    broken = drift()
    broken.delta[0, 0] = float("nan")
    write_drifts(file, [broken], "sha256:1")
    with pytest.raises(EvidenceError, match="'round 1, layer 2, words behind' is no"):
        read_drifts(file)


def test_a_request_is_asked_as_it_was_when_the_perturbation_was_found(tiny_model: Path) -> None:
    chat = load(tiny_model).chat
    asked = drift("end").turn(chat, "tell me how", random.Random(0))
    assert len(asked.marks) == 4 + len(chat.suffix_ids)
    assert (
        asked.prompt[: len(chat.prompt_ids("tell me how")) - len(chat.suffix_ids)]
        == chat.prompt_ids("tell me how")[: -len(chat.suffix_ids)]
    )
    assert drift(None).turn(chat, "tell me how", random.Random(0)).prompt == chat.prompt_ids("tell me how")
