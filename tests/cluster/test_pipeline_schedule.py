"""A schedule is kept by its name: unchanged, replaced, and never two switched on, whoever is killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
from kubeflow_command import IMAGE, Beear, Done, write
from kubeflow_server import Answer, Dropped, Kubeflow, Request

NIGHTLY, WEEKLY = "0 0 2 * * *", "0 30 3 * * SUN"
Schedule = Callable[..., Done]


@pytest.fixture
def schedule(beear: Beear, release: Path) -> Schedule:
    def run(cron: str = NIGHTLY, *more: object, config: Path = release, image: str = IMAGE) -> Done:
        return beear("schedule", "--config", config, "--image", image, "--cron", cron, *more)

    return run


def only(server: Kubeflow) -> Any:
    (one,) = server.recurring.values()
    return one


def test_a_recurring_run_of_the_compiled_pipeline(
    server: Kubeflow, schedule: Schedule, beear: Beear, release: Path
) -> None:
    done = schedule(NIGHTLY, "--json")
    made = only(server)
    assert (done.code, json.loads(done.out)) == (
        0,
        {"recurring_run_id": made.recurring_run_id, "name": "beear-release", "cron": NIGHTLY, "done": "created"},
    )
    assert (made.mode, made.max_concurrency, made.no_catchup) == ("ENABLE", "1", True)
    assert made.trigger.cron_schedule.cron == NIGHTLY
    beear("submit", "--config", release, "--image", IMAGE)
    (run,) = server.runs.values()
    assert made.pipeline_spec == run.pipeline_spec, "what is submitted"
    assert made.runtime_config == run.runtime_config


def test_nothing_changed_nothing_is_done(server: Kubeflow, schedule: Schedule) -> None:
    schedule()
    before = server.changes()
    done = schedule("0  0 2 * *  *")
    assert (done.code, done.out.splitlines()[0]) == (0, "schedule    beear-release, unchanged")
    assert server.changes() == before


def test_anything_that_changed_replaces_it(server: Kubeflow, schedule: Schedule, tmp_path: Path) -> None:
    other = write(tmp_path / "other.yaml", {"model": "s3://models/other", "registry": {"model_name": "chat"}})
    schedule()
    for change in (
        lambda: schedule(WEEKLY),
        lambda: schedule(WEEKLY, "--profile", "quick"),
        lambda: schedule(WEEKLY, image=IMAGE.replace("5a", "5b")),
        lambda: schedule(WEEKLY, config=other),
        lambda: schedule(WEEKLY, "--experiment", "other", config=other),
    ):
        before = only(server)
        done = change()
        assert (done.code, done.out.splitlines()[0]) == (0, "schedule    beear-release, replaced")
        assert only(server).recurring_run_id != before.recurring_run_id
        assert only(server).mode == "ENABLE"
    assert server.most_enabled == 1
    assert only(server).runtime_config.parameters["model_uri"] == "s3://models/other"


def test_one_that_was_switched_off_is_switched_on(server: Kubeflow, schedule: Schedule) -> None:
    schedule()
    made = only(server)
    made.mode = "DISABLE"
    assert "switched on" in schedule().out
    assert (only(server) is made, made.mode) == (True, "ENABLE")


def test_names_are_apart(server: Kubeflow, schedule: Schedule, beear: Beear) -> None:
    schedule()
    schedule(WEEKLY, "--name", "weekly")
    assert {one.display_name: one.trigger.cron_schedule.cron for one in server.enabled()} == {
        "beear-release": NIGHTLY,
        "weekly": WEEKLY,
    }
    assert beear("unschedule", "--name", "weekly").code == 0
    assert only(server).display_name == "beear-release"
    done = beear("unschedule", "--name", "weekly")
    assert (done.code, "no schedule is called 'weekly'" in done.err) == (2, True)


def test_one_behind_a_hundred_others_is_found(
    server: Kubeflow, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.kubeflow.connection.PAGE", 2)
    for number in range(5):
        copy = api.V2beta1RecurringRun(recurring_run_id=f"x{number}", display_name="beear-release", mode="DISABLE")
        copy.description = "Kept by 'beear pipeline schedule', which replaces it when anything changes. sha256:0"
        server.recurring[copy.recurring_run_id] = copy
    assert schedule().code == 0
    assert only(server).mode == "ENABLE"


def test_what_somebody_else_made_is_not_touched(server: Kubeflow, schedule: Schedule, beear: Beear) -> None:
    theirs = api.V2beta1RecurringRun(recurring_run_id="x", display_name="beear-release", mode="ENABLE")
    server.recurring["x"] = theirs
    for act in (schedule, lambda: beear("unschedule", "--name", "beear-release")):
        done = act()
        assert (done.code, "(x) was not made by 'beear pipeline schedule'" in done.err) == (2, True)
    assert server.recurring == {"x": theirs}
    assert server.changes() == []


def test_a_run_that_is_going_on_outlives_its_schedule(server: Kubeflow, schedule: Schedule, beear: Beear) -> None:
    """Kubernetes deletes what a schedule began together with it, unless it is told not to (kubeflow/pipelines #12573)."""
    schedule()
    server.runs["going"] = api.V2beta1Run(run_id="going", recurring_run_id=only(server).recurring_run_id, state="RUNNING")
    schedule(WEEKLY)
    assert "going" in server.runs
    server.runs["going"].recurring_run_id = only(server).recurring_run_id
    beear("unschedule", "--name", "beear-release")
    assert (list(server.runs), server.recurring) == (["going"], {})


def dead_from(number: int, *, carried_out: bool) -> Callable[[Request], Answer | None]:
    """Nothing is answered from the n-th change on, as if the command were gone; that one may have been carried out."""
    seen: list[str] = []

    def hook(request: Request) -> Answer | None:
        seen.extend([request.path] if request.changes else [])
        if len(seen) >= number and (request.changes or len(seen) > number or carried_out):
            raise Dropped
        return None

    return hook


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_cut_off_at_any_step(
    server: Kubeflow, schedule: Schedule, step: int, carried_out: bool
) -> None:  # create, disable, enable, delete
    schedule()
    old = only(server).recurring_run_id
    first = len(server.changes())
    setattr(server, "after" if carried_out else "before", dead_from(step, carried_out=carried_out))
    done = schedule(WEEKLY)
    assert done.code == 1
    assert "broke off" in done.err
    assert len(server.changes()) - first == step, "this step was tried, and none after it"
    server.before = server.after = None
    assert len(server.enabled()) <= 1

    assert schedule(WEEKLY).code == 0
    assert server.most_enabled == 1
    assert only(server).trigger.cron_schedule.cron == WEEKLY
    assert (only(server).mode, old in server.recurring) == ("ENABLE", False)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_cut_off_and_then_meant_otherwise(server: Kubeflow, schedule: Schedule, step: int) -> None:
    schedule()
    server.after = dead_from(step, carried_out=True)
    schedule(WEEKLY)
    server.after = None
    assert schedule(NIGHTLY).code == 0, "back to what it was"
    assert server.most_enabled == 1
    assert (only(server).trigger.cron_schedule.cron, only(server).mode) == (NIGHTLY, "ENABLE")


def test_killed_between_making_the_new_one_and_deleting_the_old(
    server: Kubeflow, schedule: Schedule, release: Path
) -> None:
    schedule()
    reached, go_on = threading.Event(), threading.Event()

    def held(request: Request) -> Answer | None:
        if request.path.endswith(":disable"):
            reached.set()
            go_on.wait(60)
            raise Dropped
        return None

    server.before = held
    arguments = ["schedule", "--config", str(release), "--image", IMAGE, "--cron", WEEKLY, "--host", server.host]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "pipeline", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert reached.wait(60)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    go_on.set()
    server.before = None
    assert sorted((one.trigger.cron_schedule.cron, one.mode) for one in server.recurring.values()) == [
        (NIGHTLY, "ENABLE"),
        (WEEKLY, "DISABLE"),
    ]
    assert schedule(WEEKLY).code == 0
    assert (only(server).trigger.cron_schedule.cron, only(server).mode, server.most_enabled) == (WEEKLY, "ENABLE", 1)


def test_of_two_at_the_same_time_one_stays(server: Kubeflow, schedule: Schedule, beear: Beear) -> None:
    """Somebody else's is made and switched on after ours was made."""
    began = []

    def somebody(request: Request) -> Answer | None:
        if request.path.endswith(":enable") and not began:
            began.append(1)
            (ours,) = server.recurring.values()
            theirs = api.V2beta1RecurringRun(**{key: getattr(ours, key) for key in ours.openapi_types})
            theirs.recurring_run_id, theirs.created_at, theirs.mode = "~theirs", server._new()[1], "ENABLE"
            server.recurring["~theirs"] = theirs
        return None

    server.after = somebody
    done = schedule()
    assert (done.code, "somebody else scheduled 'beear-release' at the same time" in done.err) == (1, True)
    assert only(server).recurring_run_id == "~theirs"


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 2 * * *", "has 5 fields, Kubeflow takes six"),
        ("0 0 2 * * * *", "has 7 fields"),
        ("@daily", "has 1 fields"),
        ("", "has 0 fields"),
        ("60 0 2 * * *", "second '60': '60' is not between 0 and 59"),
        ("0 0 24 * * *", "hour '24': '24' is not between 0 and 23"),
        ("0 0 2 0 * *", "day of the month '0': '0' is not between 1 and 31"),
        ("0 0 2 * JUM *", "month 'JUM': 'JUM' is not between 1 and 12 or JAN to DEC"),
        ("0 0 2 * * 7", "day of the week '7': '7' is not between 0 and 6 or SUN to SAT"),
        ("0 0 5-2 * * *", "hour '5-2': '5-2' ends before it begins"),
        ("0 */0 2 * * *", "minute '*/0': the step '0' is not a number from 1"),
        ("0 0 2,, * * *", "hour '2,,': '' is none of *, 5, 1-5, */10, 1-20/5"),
        ("0 0 2 L * *", "day of the month 'L': 'L' is not between 1 and 31"),
        ("0 0 ² * * *", "hour '²': '²' is not between 0 and 23"),
    ],
)
def test_what_is_no_cron_expression(server: Kubeflow, schedule: Schedule, cron: str, said: str) -> None:
    done = schedule(cron)
    assert (done.code, said in done.err, server.asked) == (2, True, []), done.err


def test_every_fault_of_a_cron_expression_is_told(schedule: Schedule) -> None:
    done = schedule("61 0 25 * * *")
    assert "has 2 fault(s):\n  - second '61'" in done.err
    assert "\n  - hour '25'" in done.err


@pytest.mark.parametrize(
    "cron", ["0 0 2 * * *", "0 */15 8-18/2 1,15 jan-JUN MON-FRI", "5/10 0 0 ? * 2-6", "0 0 0 31 12 0", "*/30 0 0 * * ?"]
)
def test_what_kubeflow_takes_is_taken(server: Kubeflow, schedule: Schedule, cron: str) -> None:
    assert schedule(cron).code == 0
    assert only(server).trigger.cron_schedule.cron == cron


def test_a_tag_is_refused_for_a_schedule_too(server: Kubeflow, schedule: Schedule) -> None:
    done = schedule(image="registry.example/beear-gate:1")
    assert (done.code, "names no digest" in done.err, server.asked) == (2, True, [])
