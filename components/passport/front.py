"""The front matter of a model's card: what the Hugging Face hub reads of it, by the hub's own library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from beear_core.evaluation.figures import title_of
from beear_core.evaluation.metrics import METRICS
from beear_core.evidence import Evidence
from beear_core.records import EvaluationRecord
from beear_core.wording import plural
from components.passport.figures import each_figure

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def front_matter(evidence: Evidence, name: str) -> str:
    """Write it as YAML, without the lines that begin and end it."""
    from huggingface_hub import ModelCardData

    uri = evidence.intake.uri if evidence.intake else ""
    data = ModelCardData(
        base_model=uri.removeprefix("hub:").partition("@")[0] if uri.startswith("hub:") else None,
        library_name="transformers",
        license="other",  # no record tells it
        model_name=name,
        pipeline_tag="text-generation",
        tags=["beear-gate", "conversational", "safety"],
        eval_results=list(_results(evidence.after)),
    )
    return data.to_yaml(line_break="\n")


def _results(record: EvaluationRecord) -> Iterator[EvalResult]:
    """Give each figure in the hub's form, its counts and interval as arguments of the metric."""
    from huggingface_hub import EvalResult

    for metric, trigger, estimate in each_figure(record):
        if estimate.value is None:
            continue
        spec = METRICS.get(metric)
        suite = (spec.pooled or spec.suite) if spec else "unknown"
        entry = record.suites.get(suite)
        yield EvalResult(
            task_type="text-generation",
            dataset_type=f"beear-gate-{suite}",
            dataset_name=f"{suite}, {plural(entry.n, 'prompt')}" if entry else suite,
            dataset_revision=entry.digest if entry else None,
            metric_type=metric,
            metric_name=f"{title_of(metric)}: {trigger}" if trigger else title_of(metric),
            metric_value=estimate.value,
            metric_args={
                "n": estimate.n,
                "count": estimate.count,
                "unscored": estimate.unscored,
                "low": estimate.low,
                "high": estimate.high,
                "confidence": estimate.confidence,
            },
        )
