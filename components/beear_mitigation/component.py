"""The face of beear_mitigation in Kubeflow Pipelines."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def beear_mitigation(
    model: dsl.Input[dsl.Model],
    anchors: dsl.Input[dsl.Dataset],
    config_json: str,
    cleaned: dsl.Output[dsl.Model],
    drift: dsl.Output[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    mlflow_run_id: str = "",
    work: str = "",
) -> None:
    """Remove backdoor behaviour from the candidate with BEEAR, knowing no trigger, or leave it as it was.

    Args:
        model: The candidate, from model_intake.
        anchors: The defender's anchors, from data_validation: requests, safe and unwanted openings. No trigger.
        config_json: The mitigation section of the configuration as JSON.
        cleaned: The cleaned model as safetensors, or an exact copy of the candidate.
        drift: Every perturbation that was found, on the candidate first, as safetensors.
        record: What happened in each round, why it stopped, digests, as JSON.
        metrics: Whether it was cleaned, rounds and the one that is kept, the last round's measures, seconds.
        summary: How it ended and why, and the rounds one by one, for people.
        mlflow_run_id: The MLflow run of the release, which is told how the step goes; empty tells none.
        work: A folder that outlives the pod, where a killed mitigation goes on from; empty for none.
    """
    from components.beear_mitigation.step import run_component
    from components.face import running

    with running("beear_mitigation", mlflow_run_id, {"mitigation": record.path}):
        figures = run_component(
            model=model.path,
            anchors=anchors.path,
            config_json=config_json,
            work=work,
            cleaned=cleaned.path,
            drift=drift.path,
            record=record.path,
            summary=summary.path,
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
