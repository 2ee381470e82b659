"""The face of release_artifacts in Kubeflow Pipelines."""

from kfp import dsl

from components.image import SLIM_IMAGE


@dsl.component(base_image=SLIM_IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def release_artifacts(
    model: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    artifacts_json: str,
    registry_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
) -> str:
    """Put the model that was decided on, and what it was decided by, to the place that is configured.

    Refused models are put away too, to the place of their digest, with a release record that says so. Replies in full are
    not.

    Args:
        model: The model that was decided on.
        decision: What registry_gate left.
        artifacts_json: The artifacts section of the configuration as JSON.
        registry_json: The registry section.
        mlflow_run_id: The MLflow run of the release.
        kfp_run_id: That of Kubeflow, which names the folder of the run.

    Returns:
        Where the run's files are; empty where no place is configured.
    """
    from components.face import running
    from components.release_artifacts.step import run_component

    with running("release_artifacts", mlflow_run_id, registry_json=registry_json):
        return run_component(
            model=model.path,
            decision=decision.path,
            artifacts_json=artifacts_json,
            registry_json=registry_json,
            mlflow_run_id=mlflow_run_id,
            kfp_run_id=kfp_run_id,
        )
