"""The face of champion_eval in Kubeflow Pipelines."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def champion_eval(
    after: dsl.Input[dsl.Artifact],
    suites: dsl.Input[dsl.Dataset],
    policy: str,
    config_json: str,
    registry_json: str,
    record: dsl.Output[dsl.Artifact],
    samples: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    mlflow_run_id: str = "",
    work: str = "",
) -> str:
    """Find the champion that the policy compares with: as it was measured when it was released, or measured anew.

    Where the policy does not compare, or there is no champion, nothing is fetched or loaded.

    Args:
        after: Record of safety_eval on the model to decide on.
        suites: The evaluation suites, from data_validation.
        policy: A shipped policy's name, or the text of a policy file.
        config_json: The evaluation section of the configuration as JSON.
        registry_json: The registry section.
        record: Who is champion, how it was measured, and why anew, as JSON.
        samples: Its samples as JSONL where it was measured anew, else empty; replies are cut as those of safety_eval.
        metrics: The value of each metric of the champion.
        mlflow_run_id: The MLflow run of the release, which is told how the step goes; empty tells none.
        work: A folder that outlives the pod, where replies are kept in full; empty for none.

    Returns:
        not compared, none, stored or measured.
    """
    from components.champion_eval.step import run_component
    from components.face import running

    with running("champion_eval", mlflow_run_id, {"champion_found": record.path}, registry_json):
        state, figures = run_component(
            after=after.path,
            suites=suites.path,
            policy=policy,
            config_json=config_json,
            registry_json=registry_json,
            work=work,
            record=record.path,
            samples=samples.path,
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
    return state
