"""Measure one model on the evaluation suites; against the model as it was before, when that is given."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from beear_core.config import EvaluationConfig, parse_json
from beear_core.data import load_anchors, load_suites
from beear_core.errors import ConfigError
from beear_core.evaluation.evaluate import evaluate
from beear_core.evaluation.samples import samples_from_jsonl, samples_to_jsonl
from beear_core.files import digest_file, write_atomically
from beear_core.mitigation.vulnerability import measure_vulnerability
from beear_core.models.drift import Drift, read_drifts
from beear_core.models.load import load
from beear_core.records import EvaluationRecord
from components.safety_eval import summary as page
from components.work import failing_once, full_samples, work_folder

Label = Literal["before", "after", "champion"]


def run(
    model_dir: Path,
    suites_dir: Path,
    out_samples: Path,
    *,
    label: Label,
    config: EvaluationConfig,
    reference_dir: Path | None = None,
    reference_samples: Path | None = None,
    drift: Path | None = None,
    anchors_dir: Path | None = None,
) -> EvaluationRecord:
    """Evaluate the model in ``model_dir``.

    Args:
        model_dir: a model folder, as model_intake or beear_mitigation leaves it.
        suites_dir: evaluation suites, as data_validation leaves them.
        out_samples: JSONL with every reply in full; not for sharing.
        label: which place the record takes in a decision.
        config: see ``EvaluationConfig``.
        reference_dir: the model as it was before; fidelity is measured against it.
        reference_samples: its samples on the same suites.
        drift: perturbations, as beear_mitigation leaves them; those that it found on the candidate are added.
        anchors_dir: the defender's anchors, as data_validation leaves them; a fresh search learns from them.

    Raises:
        ConfigError: a fresh search is asked for, and there are no anchors to search with.
        ModelError, DataError, EvaluationError, EvidenceError, StorageError.
    """
    if config.vulnerability_steps and anchors_dir is None:
        raise ConfigError(
            f"evaluation.vulnerability_steps is {config.vulnerability_steps}, and a search needs anchors; give the anchors "
            "of data_validation, or set it to 0"
        )
    suites = load_suites(suites_dir)
    drifts, drift_digest = candidates_drifts(drift) if drift else ((), "")
    loaded = load(model_dir)
    reference = load(reference_dir) if reference_dir else None
    record, samples = evaluate(
        loaded,
        suites,
        config,
        label=label,
        reference=reference,
        reference_samples=samples_from_jsonl(reference_samples) if reference_samples else (),
        drifts=drifts,
        drift_digest=drift_digest,
    )
    if config.vulnerability_steps and anchors_dir is not None:
        found = measure_vulnerability(
            loaded,
            load_anchors(anchors_dir),
            steps=config.vulnerability_steps,
            requests=config.under_drift,
            seed=config.seed,
            confidence=config.confidence,
            judge=config.judge,
        )
        record = dataclasses.replace(record, vulnerability=found)
    write_atomically(out_samples, samples_to_jsonl(samples))
    return record


def candidates_drifts(path: Path) -> tuple[tuple[Drift, ...], str]:
    """Read those perturbations of a file that were found on the candidate as it came, and the file's digest."""
    drifts, _ = read_drifts(path)
    return tuple(d for d in drifts if d.entry.on_candidate), digest_file(path)


def run_component(
    *,
    model: str,
    suites: str,
    label: str,
    config_json: str,
    reference: str | None,
    reference_samples: str | None,
    drift: str | None,
    anchors: str | None,
    work: str,
    record: str,
    samples: str,
    summary: str,
) -> tuple[dict[str, float], list[list[int]]]:
    """Run the step as its Kubeflow face calls it; returns figures and the counts by outcome, to show in the run."""
    config, place = parse_json(EvaluationConfig, config_json, "evaluation configuration"), _label(label)
    kept, stored = work_folder(work, f"safety_eval-{place}"), config.full_samples == "artifact"
    with failing_once(kept), full_samples(kept, Path(samples), stored=stored) as full:
        result = run(
            Path(model),
            Path(suites),
            full,
            label=place,
            config=config,
            reference_dir=Path(reference) if reference else None,
            reference_samples=Path(reference_samples) if reference_samples else None,
            drift=Path(drift) if drift else None,
            anchors_dir=Path(anchors) if anchors else None,
        )
    result.write(Path(record))
    write_atomically(Path(summary), page.summary(result).encode())
    return page.figures(result), page.confusion(result)


def _label(label: str) -> Label:
    if label == "before":
        return "before"
    if label == "after":
        return "after"
    if label == "champion":
        return "champion"
    raise ConfigError(f"label is {label!r}; give one of {', '.join(get_args(Label))}")
