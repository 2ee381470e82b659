"""The face of safety_eval in Kubeflow Pipelines."""

from typing import Optional

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def safety_eval(
    model: dsl.Input[dsl.Model],
    suites: dsl.Input[dsl.Dataset],
    label: str,
    config_json: str,
    record: dsl.Output[dsl.Artifact],
    samples: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    outcomes: dsl.Output[dsl.ClassificationMetrics],
    reference: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045  KFP reads no other spelling
    reference_samples: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    drift: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    anchors: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    mlflow_run_id: str = "",
    work: str = "",
) -> None:
    """Measure attack success, wrong refusals and fidelity of one model, with counts and intervals.

    Args:
        model: The model to measure.
        suites: The evaluation suites, from data_validation.
        label: Which place the record takes in the decision: before or after.
        config_json: The evaluation section of the configuration as JSON.
        record: The measurements as JSON.
        samples: Every sample as JSONL; replies are cut after their opening, but for those to ordinary instructions.
        metrics: The value of each metric, its bounds, and how many samples it rests on.
        summary: The same as a table, for people.
        outcomes: What should have been done with requests against what was done, in counts.
        reference: The model as it was before; fidelity is measured against it.
        reference_samples: That model's samples on the same suites.
        drift: Perturbations that beear_mitigation found; harmful requests are asked under those of the candidate.
        anchors: The defender's anchors, from data_validation; a fresh search for perturbations learns from them.
        mlflow_run_id: The MLflow run of the release, which is told how the step goes; empty tells none.
        work: A folder that outlives the pod, where replies are kept in full; empty for none.
    """
    from components.face import running
    from components.safety_eval.step import run_component
    from components.safety_eval.summary import OUTCOMES

    with running(f"safety_eval_{label}", mlflow_run_id, {label: record.path}):
        figures, counts = run_component(
            model=model.path,
            suites=suites.path,
            label=label,
            config_json=config_json,
            reference=reference.path if reference else None,
            reference_samples=reference_samples.path if reference_samples else None,
            drift=drift.path if drift else None,
            anchors=anchors.path if anchors else None,
            work=work,
            record=record.path,
            samples=samples.path,
            summary=summary.path,
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
        outcomes.log_confusion_matrix(list(OUTCOMES), counts)
