"""Clean a candidate with BEEAR, or leave it as it is, and record which and why."""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from beear_core.config import MitigationConfig, parse_json
from beear_core.data import load_anchors
from beear_core.files import disk_errors, write_atomically
from beear_core.mitigation.beear import resumable_mitigation
from beear_core.mitigation.layers import resolve_layers
from beear_core.models.drift import write_drifts
from beear_core.models.folder import check_folder, copy, describe
from beear_core.models.load import best_device, device_names, load, save
from beear_core.progress import stage
from beear_core.records import Environment, MitigationRecord
from components.beear_mitigation import summary as page
from components.work import CHECKPOINTS, failing_once, work_folder

STEP = "beear_mitigation"


def run(
    model_dir: Path, anchors_dir: Path, out_model: Path, out_drift: Path, work: Path, config: MitigationConfig
) -> MitigationRecord:
    """Mitigate the model in ``model_dir``; the model in ``out_model`` is there whole or not at all.

    Where mitigation is switched off, perturbations are searched for all the same: they are evidence about the candidate.

    Args:
        model_dir: the candidate, as model_intake leaves it.
        anchors_dir: the defender's anchors, as data_validation leaves them. Nothing else is read: no trigger and no
            evaluation request can reach the mitigation.
        out_model: the cleaned model, or an exact copy of the candidate when it was kept.
        out_drift: file for every perturbation that was found (``beear_core.models.drift``).
        work: a folder for intermediate weights; a run that was killed is gone on with after its last round.
        config: see ``MitigationConfig``.

    Raises:
        ConfigError, ModelError, DataError, MitigationError, StorageError: see ``beear_core.mitigation.beear.mitigate``.
    """
    began = time.monotonic()
    check_folder(model_dir)
    anchors = load_anchors(anchors_dir)
    resolve_layers(config, describe(model_dir).layers)
    loaded = load(model_dir)
    with resumable_mitigation(loaded, anchors, config, work) as ended:
        if ended.best_round is None:
            output = copy(model_dir, out_model)
        else:
            with stage("save the cleaned model"):
                output = save(loaded.model, model_dir, out_model)
        drift_digest = write_drifts(out_drift, ended.drifts, loaded.digest)
    earlier = sum(r.seconds for r in ended.rounds[: ended.restored])
    return MitigationRecord(
        outcome="kept" if ended.best_round is None else "cleaned",
        reason=ended.reason,
        input_digest=loaded.digest,
        output_digest=output,
        anchors_digest=anchors.digest,
        config=dataclasses.asdict(config),
        layer=ended.places.layers[0],
        layers_perturbed=ended.places.layers,
        places=ended.places.measured,
        places_reason=ended.places.reason,
        layers=loaded.model.config.get_text_config().num_hidden_layers,
        positions=0 if config.positions == "auto" else config.positions,
        hidden_norm=ended.hidden_norm,
        compute_dtype=ended.compute,
        best_round=ended.best_round,
        rounds=ended.rounds,
        seconds=round(time.monotonic() - began + earlier, 1),
        peak_memory_bytes=_peak_memory(),
        environment=Environment.here(device_names()),
        drift=tuple(d.entry for d in ended.drifts),
        drift_digest=drift_digest,
        ending=ended.ending,
        restored_rounds=ended.restored,
    )


def _peak_memory() -> int:
    """Measure the most memory used so far in bytes: resident in this process or, if more, allocated on the accelerator."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = host if sys.platform == "darwin" else host * 1024
    if best_device().type != "cuda":
        return host
    import torch

    return max(host, torch.cuda.max_memory_allocated())


def run_component(
    *, model: str, anchors: str, config_json: str, work: str, cleaned: str, drift: str, record: str, summary: str
) -> dict[str, float]:
    """Run the step as its Kubeflow face calls it; returns the figures to show in the run."""
    config = parse_json(MitigationConfig, config_json, "mitigation configuration")
    with failing_once(work_folder(work, STEP)), work_beside(Path(cleaned), work) as folder:
        result = run(Path(model), Path(anchors), Path(cleaned), Path(drift), folder, config)
    result.write(Path(record))
    write_atomically(Path(summary), page.summary(result).encode())
    shown = {"cleaned": float(result.outcome == "cleaned"), "rounds": float(len(result.rounds))}
    if result.best_round is not None:
        shown["best_round"] = float(result.best_round)
    return {**shown, **page.figures(result.rounds), "seconds": result.seconds}


@contextmanager
def work_beside(out: Path, given: str = "") -> Iterator[Path]:
    """Yield a folder for weights that the next run of the same finds again.

    It is BEEAR_CHECKPOINTS, else of the step (``work_folder``), else beside ``out``.

    Raises:
        StorageError: if nothing can be written there.
    """
    shared = os.environ.get(CHECKPOINTS)
    chosen = Path(shared) if shared else work_folder(given, STEP)
    folder = chosen or out.parent / f".{out.name}.work"
    remedy = f"choose a writable folder with {CHECKPOINTS if shared else '--out'}"
    with disk_errors(f"write to {folder}" if chosen else f"write {out}", remedy=remedy):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        with suppress(OSError):  # what is to be gone on with, or is another's, stays
            folder.rmdir()
