"""The face of registry_gate in Kubeflow Pipelines."""

from typing import Optional

from kfp import dsl

from components.image import SLIM_IMAGE


@dsl.component(base_image=SLIM_IMAGE, install_kfp_package=False, packages_to_install=[])  # type: ignore[untyped-decorator]
def registry_gate(
    model: dsl.Input[dsl.Model],
    intake: dsl.Input[dsl.Artifact],
    validation: dsl.Input[dsl.Artifact],
    before: dsl.Input[dsl.Artifact],
    after: dsl.Input[dsl.Artifact],
    mitigation: dsl.Input[dsl.Artifact],
    before_samples: dsl.Input[dsl.Dataset],
    after_samples: dsl.Input[dsl.Dataset],
    policy: str,
    registry_json: str,
    promotion_json: str,
    mlflow_run_id: str,
    kfp_run_id: str,
    decision: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    champion: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045  KFP reads no other spelling
) -> str:
    """Decide on the evidence, register the model with the verdict, and move the alias only on a pass.

    Args:
        model: The model that was measured last.
        intake: Record of model_intake.
        validation: Record of data_validation.
        before: Record of safety_eval on the candidate.
        after: Record of safety_eval on the model.
        mitigation: Record of beear_mitigation.
        before_samples: The candidate's replies, for the report, which redacts them.
        after_samples: The model's replies.
        policy: A shipped policy's name, or the text of a policy file.
        registry_json: The registry section of the configuration as JSON.
        promotion_json: The promotion section.
        mlflow_run_id: The MLflow run to log to; empty opens one.
        kfp_run_id: Noted in the version's tags.
        decision: A folder with decision, evidence, policy and report: all that a replay needs.
        report: One HTML page without network.
        champion: Record of champion_eval. Without it, what the champion was released on is taken where it can be.
        summary: The decision check by check, for people.
        metrics: Passed, promoted, awaiting approval, number of checks and of failed ones.

    Returns:
        promoted, awaiting approval or refused.
    """
    from components.face import running
    from components.registry_gate.step import run_component

    with running("registry_gate", mlflow_run_id, registry_json=registry_json):
        verdict, figures = run_component(
            model=model.path,
            evidence={
                "intake": intake.path,
                "validation": validation.path,
                "before": before.path,
                "after": after.path,
                "mitigation": mitigation.path,
            },
            before_samples=before_samples.path,
            after_samples=after_samples.path,
            champion=champion.path if champion else None,
            policy=policy,
            registry_json=registry_json,
            promotion_json=promotion_json,
            mlflow_run_id=mlflow_run_id,
            kfp_run_id=kfp_run_id,
            decision=decision.path,
            report=report.path,
            summary=summary.path,
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
    return verdict
