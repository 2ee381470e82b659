"""The face of model_intake in Kubeflow Pipelines."""

from kfp import dsl

from components.image import SLIM_IMAGE


@dsl.component(base_image=SLIM_IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def model_intake(
    model_uri: str,
    expected_digest: str,
    model: dsl.Output[dsl.Model],
    record: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    mlflow_run_id: str = "",
) -> None:
    """Fetch the candidate model, refuse what is unsafe or broken, and record it by its digest.

    Args:
        model_uri: A folder, s3://bucket/prefix, models:/name@alias, models:/name/3 or hub:org/name.
        expected_digest: The model_digest of an earlier intake; empty to take any model.
        model: The model as safetensors with its tokenizer and chat template, nothing else.
        record: What was taken over, as JSON: digests, sizes, architecture.
        metrics: Parameters, layers, hidden size, bytes and number of files.
        mlflow_run_id: The MLflow run of the release, which is told how the step goes; empty tells none.
    """
    from components.face import running
    from components.model_intake.step import run_component

    with running("model_intake", mlflow_run_id, {"intake": record.path}):
        figures = run_component(model_uri=model_uri, expected_digest=expected_digest, model=model.path, record=record.path)
        for name, value in figures.items():
            metrics.log_metric(name, value)
