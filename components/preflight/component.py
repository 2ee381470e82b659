"""The face of preflight in Kubeflow Pipelines."""

from kfp import dsl

from components.image import SLIM_IMAGE


@dsl.component(base_image=SLIM_IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def preflight(
    model_uri: str,
    policy: str,
    data_json: str,
    mitigation_json: str,
    evaluation_json: str,
    registry_json: str,
    promotion_json: str,
    artifacts_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
) -> str:
    """Look at everything that a release needs before anything long begins, and open its MLflow run.

    Policy, data, model, MLflow, signing keys, the place of artifacts, the disk: all that is wrong is said at once. Nothing
    is fetched. A run that is opened here is ended by release_status, one that was given is not.

    Args:
        model_uri: Where the candidate is; its names and sizes are looked at.
        policy: A shipped policy's name, or the text of a policy file.
        data_json: The data section of the release configuration as JSON.
        mitigation_json: The mitigation section.
        evaluation_json: The evaluation section.
        registry_json: The registry section.
        promotion_json: The promotion section.
        artifacts_json: The artifacts section.
        mlflow_run_id: An MLflow run to log to; empty opens one.
        kfp_run_id: Noted in the run, which is found by it.

    Returns:
        The id of the MLflow run that all steps log to.
    """
    from components.face import running
    from components.preflight.step import run_component

    with running("preflight", "", registry_json=registry_json) as telling:
        return run_component(
            model_uri=model_uri,
            policy=policy,
            sections={
                "data": data_json,
                "mitigation": mitigation_json,
                "evaluation": evaluation_json,
                "registry": registry_json,
                "promotion": promotion_json,
                "artifacts": artifacts_json,
            },
            mlflow_run_id=mlflow_run_id,
            kfp_run_id=kfp_run_id,
            opened=telling.to,
        )
