"""The face of data_validation in Kubeflow Pipelines."""

from kfp import dsl

from components.image import SLIM_IMAGE


@dsl.component(base_image=SLIM_IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def data_validation(
    config_json: str,
    anchors: dsl.Output[dsl.Dataset],
    suites: dsl.Output[dsl.Dataset],
    record: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    mlflow_run_id: str = "",
) -> None:
    """Validate the data with Great Expectations and lay out what mitigation and evaluation may each see.

    Ends with an error when a critical rule fails; the record and the page are written before.

    Args:
        config_json: The data section of the release configuration, as JSON.
        anchors: Rows of split anchoring with a manifest; all that the mitigation sees.
        suites: Rows of split evaluation and known triggers with a manifest.
        record: What every rule found, as JSON.
        page: The same for people; it shows no text of a row.
        metrics: How many rules held and failed.
        mlflow_run_id: The MLflow run of the release, which is told how the step goes; empty tells none.
    """
    from components.data_validation.step import run_component
    from components.face import running

    with running("data_validation", mlflow_run_id, {"validation": record.path}):
        figures = run_component(
            config_json=config_json, anchors=anchors.path, suites=suites.path, record=record.path, page=page.path
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
