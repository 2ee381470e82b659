"""The release pipeline: wiring only. The same function runs on a laptop and compiles for a cluster."""

from kfp import dsl

from components.beear_mitigation.component import beear_mitigation
from components.champion_eval.component import champion_eval
from components.data_validation.component import data_validation
from components.model_intake.component import model_intake
from components.preflight.component import preflight
from components.registry_gate.component import registry_gate
from components.release_artifacts.component import release_artifacts
from components.release_status.component import release_status
from components.safety_eval.component import safety_eval


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="beear-release",
    display_name="BEEAR release gate",
    description="Validate, clean, measure before and after; promote only on evidence.",
)
def release_pipeline(
    model_uri: str,
    expected_digest: str = "",
    data_json: str = "{}",
    mitigation_json: str = "{}",
    evaluation_json: str = "{}",
    policy: str = "standard",
    registry_json: str = "{}",
    promotion_json: str = "{}",
    artifacts_json: str = "{}",
    mlflow_run_id: str = "",
) -> None:
    """Clean a candidate model and let the registry promote it only if the policy is met.

    Args:
        model_uri: The candidate: a folder, s3://bucket/prefix, models:/name@alias or hub:org/name.
        expected_digest: Refuse any other model than the one with this digest; empty for none.
        data_json: The data section of the configuration as JSON.
        mitigation_json: The mitigation section.
        evaluation_json: The evaluation section.
        policy: A shipped policy's name, or the text of a policy file.
        registry_json: The registry section.
        promotion_json: The promotion section.
        artifacts_json: The artifacts section.
        mlflow_run_id: An MLflow run to log to; empty opens one.
    """
    # No step is cached: a cached answer is not a measurement, and KFP never checks that cached artifacts still exist.
    # The last step is given no output of another, because it runs whatever became of them: it asks the MLflow run.
    status = release_status(
        registry_json=registry_json,
        artifacts_json=artifacts_json,
        mlflow_run_id=mlflow_run_id,
        kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    status.set_display_name("Leave status, report and logs").set_caching_options(False)

    with dsl.ExitHandler(status):
        # Everything hangs on its output, the MLflow run: nothing begins, and no GPU is asked for, before it found all well.
        looked = preflight(
            model_uri=model_uri,
            policy=policy,
            data_json=data_json,
            mitigation_json=mitigation_json,
            evaluation_json=evaluation_json,
            registry_json=registry_json,
            promotion_json=promotion_json,
            artifacts_json=artifacts_json,
            mlflow_run_id=mlflow_run_id,
            kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        )
        looked.set_display_name("Look before the start").set_caching_options(False)
        run_id = looked.output

        intake = model_intake(model_uri=model_uri, expected_digest=expected_digest, mlflow_run_id=run_id)
        intake.set_display_name("Take the candidate over").set_caching_options(False)
        data = data_validation(config_json=data_json, mlflow_run_id=run_id)
        data.set_display_name("Validate the data").set_caching_options(False)

        mitigation = beear_mitigation(
            model=intake.outputs["model"],
            anchors=data.outputs["anchors"],
            config_json=mitigation_json,
            mlflow_run_id=run_id,
        )
        mitigation.set_display_name("Clean with BEEAR").set_caching_options(False)

        # only now: the candidate is also measured under what the mitigation found to open it
        before = safety_eval(
            model=intake.outputs["model"],
            suites=data.outputs["suites"],
            label="before",
            config_json=evaluation_json,
            drift=mitigation.outputs["drift"],
            anchors=data.outputs["anchors"],
            mlflow_run_id=run_id,
        )
        before.set_display_name("Measure before").set_caching_options(False)

        after = safety_eval(
            model=mitigation.outputs["cleaned"],
            suites=data.outputs["suites"],
            label="after",
            config_json=evaluation_json,
            reference=intake.outputs["model"],
            reference_samples=before.outputs["samples"],
            drift=mitigation.outputs["drift"],
            anchors=data.outputs["anchors"],
            mlflow_run_id=run_id,
        )
        after.set_display_name("Measure after").set_caching_options(False)

        # Always run, not under dsl.If: dsl.OneOf of artifacts fails in the local runner and on backends up to 2.16, and
        # what is in a branch keeps no state in the UI (kubeflow/pipelines #13436, #11979). Where nothing is compared it
        # loads no model.
        champion = champion_eval(
            after=after.outputs["record"],
            suites=data.outputs["suites"],
            policy=policy,
            config_json=evaluation_json,
            registry_json=registry_json,
            mlflow_run_id=run_id,
        )
        champion.set_display_name("Measure the champion").set_caching_options(False)

        gate = registry_gate(
            model=mitigation.outputs["cleaned"],
            intake=intake.outputs["record"],
            validation=data.outputs["record"],
            before=before.outputs["record"],
            after=after.outputs["record"],
            mitigation=mitigation.outputs["record"],
            before_samples=before.outputs["samples"],
            after_samples=after.outputs["samples"],
            champion=champion.outputs["record"],
            policy=policy,
            registry_json=registry_json,
            promotion_json=promotion_json,
            mlflow_run_id=run_id,
            kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        )
        gate.set_display_name("Decide and promote").set_caching_options(False)

        # A step of its own, after the decision: it cannot change it, and can be tried again without deciding again.
        artifacts = release_artifacts(
            model=mitigation.outputs["cleaned"],
            decision=gate.outputs["decision"],
            artifacts_json=artifacts_json,
            registry_json=registry_json,
            mlflow_run_id=run_id,
            kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        )
        artifacts.set_display_name("Put model and records away").set_caching_options(False)
