"""However a run of the pipeline ends, status, logs and a page are left in MLflow and S3: in KFP's local runner, with the
faces, the pre-flight, the gate and the last steps as they are, and what loads models made up.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made_up_steps
import pytest
from gate_evidence import Case
from gate_runs import NAME, champion, registry_of
from mlflow_servers import mlflow_server
from planted_secrets import Planted, files_below
from servers import S3Server

from beear_core.config import ArtifactsConfig, RegistryConfig, ReleaseConfig
from beear_core.errors import BeearError
from beear_core.models.folder import directory_digest
from beear_core.records import StatusRecord
from components.mlflow_store.tracking import end_run, open_run
from components.storage import places
from pipelines.local import Outcome, StepFailedError, run_release

STEPS = (
    *("preflight", "model_intake", "data_validation", "beear_mitigation", "safety_eval_before", "safety_eval_after"),
    *("champion_eval", "registry_gate", "release_artifacts"),
)
RECORDS = {"intake", "validation", "mitigation", "before", "after"}


@dataclass
class Ended:
    """A run of the pipeline that ended, and where to look."""

    store: str
    s3: S3Server
    prefix: str
    folder: Path
    planted: Planted
    outcome: Outcome | None = None
    error: BeearError | None = None
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.client = registry_of(self.store)

    @property
    def run(self) -> Any:
        experiment = self.client.get_experiment_by_name("beear-release")
        [run] = self.client.search_runs([experiment.experiment_id])
        return run

    def in_mlflow(self, tmp: Path) -> dict[str, str]:
        """Every file of the run, by name."""
        place = Path(self.client.download_artifacts(self.run.info.run_id, "", str(tmp)))
        files = [path for path in place.rglob("*") if path.is_file()]
        return {path.relative_to(place).as_posix(): path.read_text(errors="replace") for path in files}

    def in_s3(self, below: str) -> dict[str, str]:
        """Every object below a part of the prefix, by name relative to it."""
        client, found = self.s3.client(), {}
        for item in client.list_objects_v2(Bucket="ready", Prefix=f"{self.prefix}/{below}").get("Contents", ()):
            body = client.get_object(Bucket="ready", Key=item["Key"])["Body"].read()
            found[item["Key"][len(self.prefix) + 1 + len(below) :]] = body.decode(errors="replace")
        return found

    def leaks_nothing(self) -> None:
        """No secret in what steps printed and left, in MLflow's files and database, or in S3."""
        place = Path(self.store.removeprefix("sqlite:///")).parent
        inside = {name: text.encode() for name, text in self.in_s3("").items()}
        assert self.planted.leaks({**files_below(self.folder), **files_below(place), **inside}) == []

    def of_run(self) -> dict[str, str]:
        return self.in_s3(f"runs/{self.run.info.run_id}/")


@pytest.fixture
def pipeline(case: Case, s3: S3Server, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs the pipeline; keyword arguments say what steps do."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import made_up_steps\nmade_up_steps.install()\n")
    here = Path(made_up_steps.__file__).parent
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, (tmp_path / "site", here, here.parents[1]))))
    planted = Planted()
    monkeypatch.setenv(made_up_steps.SECRET, planted.secret("a step's token"))
    monkeypatch.setenv(made_up_steps.PLAN, str(tmp_path / "plan.json"))

    def run(given: Case = case, uri: str = store, run_id: str = "", to: ArtifactsConfig | None = None, **do: str) -> Ended:
        samples = {"before": str(given.before_samples), "after": str(given.after_samples)}
        evidence = {name: str(path) for name, path in given.evidence.items()}
        plan = {"model": str(given.model), "evidence": evidence, "samples": samples, "do": do}
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        ended = Ended(uri, s3, f"artifacts/{tmp_path.name}", tmp_path / "run", planted)
        artifacts = to or ArtifactsConfig(uri=f"s3://ready/{ended.prefix}")
        registry = RegistryConfig(tracking_uri=uri, model_name=NAME)
        config = ReleaseConfig(model=str(given.model), registry=registry, artifacts=artifacts)
        ended.folder.mkdir(exist_ok=True)
        try:
            ended.outcome = run_release(config, "standard", ended.folder, run_id, keep=True)
        except BeearError as error:
            ended.error = error
        return ended

    return run


@contextmanager
def at_marks(*marks: tuple[Path, Callable[[], object]]) -> Iterator[None]:
    """Do something when a step waits for it, one after the other; the step goes on when the mark is gone."""

    def watch() -> None:
        for mark, do in marks:
            until = time.monotonic() + 300
            while not mark.exists() and time.monotonic() < until:
                time.sleep(0.05)
            do()
            mark.unlink(missing_ok=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join(10)


@pytest.mark.parametrize("kind", ["case", "refused"])
def test_what_a_release_leaves(
    pipeline: Callable[..., Ended], kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    given: Case = request.getfixturevalue(kind)
    ended = pipeline(given)
    assert ended.outcome is not None, ended.error
    verdict = "promoted" if kind == "case" else "refused"
    assert champion(ended.store) == ("1" if kind == "case" else None)
    run, files = ended.run, ended.in_mlflow(tmp_path / "down")
    assert run.info.status == "FINISHED"
    wanted = {"status.json", "status.html", "report.html", "configuration.json", "records/policy.yaml"}
    wanted |= {f"logs/{step}.log" for step in STEPS}
    wanted |= {f"records/{name}.json" for name in (*RECORDS, "decision", "release", "champion_found")}
    assert wanted == files.keys()
    status = StatusRecord.parse(files["status.json"].encode())
    assert (status.state, status.outcome, status.failed_step, status.message) == ("succeeded", verdict, "", "")
    assert {step.step: step.state for step in status.steps} == dict.fromkeys(STEPS, "done")
    assert [step.began for step in status.steps] == sorted(step.began for step in status.steps)
    assert ended.outcome.decision.digest == status.decision_digest
    assert "so far so good" in files["logs/beear_mitigation.log"]
    of_run = ended.of_run()
    assert of_run.keys() == {
        *("status.json", "status.html", "report.html", "decision.json", "policy.yaml", "release.json", "README.md"),
        *("bom.cdx.json", *(f"logs/{step}.log" for step in STEPS), *(f"evidence/{name}.json" for name in RECORDS)),
    }
    assert of_run["report.html"] == files["report.html"] != files["status.html"]
    digest = directory_digest(given.model)
    model = f"{digest.removeprefix('sha256:')}"
    assert json.loads(ended.in_s3("models/")[f"{model}.release.json"])["promoted"] is (kind == "case")
    fetched = tmp_path / "fetched"
    places.fetch(f"s3://ready/{ended.prefix}/models/{model}", fetched)
    assert directory_digest(fetched) == digest
    version = ended.client.get_model_version(NAME, "1")
    named = {"artifacts.run": f"runs/{run.info.run_id}", "artifacts.model": f"models/{model}"}
    for tags in (run.data.tags, version.tags):
        assert {k: v for k, v in tags.items() if k in named} == {
            k: f"s3://ready/{ended.prefix}/{v}" for k, v in named.items()
        }
    ended.leaks_nothing()
    for reply in ("[step two]", "[step four]"):
        assert not [name for name, text in {**of_run, **files}.items() if reply in text], "no reply in full"


TOLD = "told to fail by ***"


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_told_of_everywhere(pipeline: Callable[..., Ended], step: str, tmp_path: Path) -> None:
    ended = pipeline(**{step: made_up_steps.FAIL})
    error, last = ended.error, step == "release_artifacts"
    assert isinstance(error, StepFailedError)
    assert (str(error), error.exit_code, error.kind) == (TOLD, 1, "EvaluationError")
    if step == "preflight":  # its stand-in opens no run, so the last step does
        assert ended.run.data.tags["beear.opened_by"] == "release_status"
    assert ended.run.info.status == "FAILED"
    for files in (ended.in_mlflow(tmp_path / "down"), ended.of_run()):
        status = StatusRecord.parse(files["status.json"].encode())
        assert (status.state, status.failed_step, status.error) == ("failed", step, "EvaluationError")
        assert (status.message, status.outcome) == (TOLD, "promoted" if last else "")
        assert TOLD in files["status.html"]
        assert "PROMOTED" in files["report.html"] if last else files["report.html"] == files["status.html"]
        if step != "preflight":
            assert f"error: {TOLD}" in files[f"logs/{step}.log"]
        if step in STEPS[5:]:
            assert "Attack success" in files["status.html"], "what was measured until then"
    assert (ended.folder / "decision.json").exists() == last
    assert champion(ended.store) == ("1" if last else None)
    ended.leaks_nothing()


@pytest.mark.parametrize("how", [made_up_steps.KILL, made_up_steps.CRASH])
def test_a_step_that_says_nothing_is_told_of_as_well(pipeline: Callable[..., Ended], how: str, tmp_path: Path) -> None:
    ended = pipeline(beear_mitigation=how)
    assert "a step failed without a message of its own" in str(ended.error)
    assert ended.run.info.status == "FAILED"
    for files in (ended.in_mlflow(tmp_path / "down"), ended.of_run()):
        status = StatusRecord.parse(files["status.json"].encode())
        assert (status.state, status.failed_step) == ("failed", "beear_mitigation")
        if how == made_up_steps.KILL:
            assert [s.state for s in status.steps if s.step == "beear_mitigation"] == ["broken off"]
            assert "ended from outside before it could say why" in status.message
            assert "ended from outside before it could say why" in files["report.html"]
        else:
            assert (status.error, status.message) == ("RuntimeError", "nobody foresaw ***")
            assert "RuntimeError: nobody foresaw ***" in files["logs/beear_mitigation.log"]
    ended.leaks_nothing()


def test_mlflow_that_is_away_in_the_middle_costs_no_work(
    pipeline: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = tmp_path_factory.mktemp("server")
    gone, back = tmp_path / "gone", tmp_path / "back"
    with mlflow_server(folder, f"sqlite:///{folder}/server.db") as server:
        with at_marks((gone, server.kill), (back, server.start)):
            ended = pipeline(uri=server.uri, beear_mitigation=f"wait:{gone}", safety_eval_before=f"wait:{back}")
        assert ended.outcome is not None, ended.error
        files = ended.in_mlflow(tmp_path / "down")
        status = StatusRecord.parse(files["status.json"].encode())
        assert (status.state, status.outcome, ended.run.info.status) == ("succeeded", "promoted", "FINISHED")
    printed = (ended.folder / "steps.log").read_text()
    for line in ("beear_mitigation is done", "safety_eval_before is running"):
        assert printed.count(f"warning: MLflow was not told that {line}; the step goes on: ") == 1
    assert {f"records/{name}.json" for name in RECORDS} <= files.keys(), "the gate logs all of them again"
    assert "logs/safety_eval_before.log" in files
    assert "logs/beear_mitigation.log" not in files


def test_mlflow_that_is_away_at_the_end_fails_nothing_and_a_run_that_was_given_is_not_ended(
    pipeline: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder, gone = tmp_path_factory.mktemp("server"), tmp_path / "gone"
    with mlflow_server(folder, f"sqlite:///{folder}/server.db") as server:
        given = open_run(server.uri, "beear-release")
        with at_marks((gone, server.kill)):
            ended = pipeline(uri=server.uri, run_id=given.run_id, release_artifacts=f"wait:{gone}")
        assert ended.outcome is not None, ended.error
        left = ended.in_s3(f"runs/{given.run_id}/")
        assert StatusRecord.parse(left["status.json"].encode()).state == "succeeded"
        assert "warning: MLflow's run was not read: " in (ended.folder / "steps.log").read_text()
        server.start()
        assert ended.run.info.status == "RUNNING", "its owner ends it"
        end_run(given, failed=False)


def test_artifacts_that_cannot_be_written_leave_the_decision_as_it_is(
    pipeline: Callable[..., Ended], tmp_path: Path
) -> None:
    place, wait = tmp_path / "place", tmp_path / "wait"

    def spoil() -> None:
        place.rmdir()
        place.write_text("no folder")

    with at_marks((wait, spoil)):
        ended = pipeline(to=ArtifactsConfig(uri=str(place)), champion_eval=f"wait:{wait}")
    assert ended.error is not None
    assert ended.error.exit_code == 1
    said = "the decision stands (promoted, version 1 of release-candidate; champion is at version 1)"
    assert str(ended.error).startswith(said)
    assert "retry this step, or run 'beear upload'" in str(ended.error)
    assert champion(ended.store) == "1"
    status = StatusRecord.parse(ended.in_mlflow(tmp_path / "down")["status.json"].encode())
    assert (status.state, status.failed_step, status.outcome) == ("failed", "release_artifacts", "promoted")
