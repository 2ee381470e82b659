"""The face of release_status in Kubeflow Pipelines."""

from kfp import dsl

from components.image import SLIM_IMAGE


@dsl.component(base_image=SLIM_IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def release_status(
    status: dsl.PipelineTaskFinalStatus,
    registry_json: str,
    artifacts_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
    page: dsl.Output[dsl.HTML],
) -> None:
    """Leave how the release ended, whatever happened: status, report and logs, in MLflow and with the artifacts.

    Where the gate wrote no report, the page says which step failed with which error and what was measured so far. Ends the
    MLflow run where preflight opened it. Fails only where nothing could be left anywhere.

    Args:
        status: How all other steps ended, from Kubeflow.
        registry_json: The registry section of the configuration as JSON.
        artifacts_json: The artifacts section.
        mlflow_run_id: The MLflow run that was given; empty for the one that preflight opened.
        kfp_run_id: That of Kubeflow, which the MLflow run is found by.
        page: One HTML page without network, how the run ended.
    """
    from components.face import reporting_errors
    from components.release_status.step import run_component

    with reporting_errors("release_status"):
        run_component(
            state=status.state,
            message=status.error_message or "",
            registry_json=registry_json,
            artifacts_json=artifacts_json,
            mlflow_run_id=mlflow_run_id,
            kfp_run_id=kfp_run_id,
            page=page.path,
        )
