"""The whole output of a release is in its log; people see its steps, their progress and their errors, and nothing else."""

from __future__ import annotations

import io
import logging
from contextlib import closing, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import step_log
from pipelines.step_log import StepLog

STEPS = ("model-intake", "data-validation", "beear-mitigation", "safety-eval", "safety-eval-2", "registry-gate")
BEGUN = "13:27:13.589 - INFO - Executing task \x1b[96m'{}'\x1b[0m\n"
INPUT = """\
    [KFP Executor 2026-11-25 13:27:13,657 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {
                "model_uri": "/models/candidate"
            }
        },
        "outputs": {
            "outputFile": "/runs/executor_output.json"
        }
    }
"""
OUTPUTS = """\
13:27:15.858 - INFO - Task \x1b[96m'model-intake'\x1b[0m outputs:
    Output: 'refused'
    model: Model( name='model',
                  metadata={} )
"""
WHOLE = (
    "13:27:13.586 - INFO - Running pipeline: \x1b[95m'beear-release'\x1b[0m\n"
    + BEGUN.format("model-intake")
    + "  warnings.warn(\n13:27:13.589 - INFO - Streamed logs:\n\n"
    + INPUT
    + "    copying: 1 of 2\r    copying: 2 of 2\n    \n\n"
    + OUTPUTS
    + BEGUN.format("registry-gate")
    + INPUT
    + "    \x1b[91merror:\x1b[0m no room für α\n"
)
SEEN = [
    "[0:00] step 1 of 6: model intake",
    "    copying: 2 of 2",
    "[0:00] step 2 of 6: registry gate",
    "    error: no room für α",
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the log takes for the time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(step_log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def seen(folder: Path, *pieces: str) -> list[str]:
    """The lines that people see when these pieces are written."""
    screen = io.StringIO()
    with closing(StepLog(folder / "steps.log", 6, screen)) as log:
        for piece in pieces:
            assert log.write(piece) == len(piece)
    return screen.getvalue().splitlines()


def test_everything_is_in_the_file_and_what_matters_is_seen(tmp_path: Path, clock: list[float]) -> None:
    text = WHOLE + "    cut sho"
    assert seen(tmp_path, text) == [*SEEN, "    cut sho"]
    assert (tmp_path / "steps.log").read_bytes() == text.encode()


def test_text_that_is_no_utf_8_is_in_the_file_too(tmp_path: Path, clock: list[float]) -> None:
    assert seen(tmp_path, BEGUN.format("model-intake"), "    copying b\udcff\n")[1:] == ["    copying b\udcff"]
    assert "copying b\\udcff" in (tmp_path / "steps.log").read_text()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("    error: Warning: this is one\r\n", "    error: Warning: this is one"),
        ("    \x1b[2Kcopied\x1b[0K\n", "    copied"),
        ("    Executing task 'other'\n", "    Executing task 'other'"),
    ],
)
def test_what_a_step_says_is_shown_as_it_says_it(tmp_path: Path, clock: list[float], line: str, shown: str) -> None:
    assert seen(tmp_path, BEGUN.format("model-intake"), line)[1:] == [shown]


def test_the_file_is_whole_where_a_step_fails(tmp_path: Path) -> None:
    file = tmp_path / "steps.log"
    with pytest.raises(RuntimeError, match="failed"), closing(StepLog(file, 6, io.StringIO())) as log:
        log.write(WHOLE + "    cut sho")
        raise RuntimeError("failed")
    assert file.read_bytes() == (WHOLE + "    cut sho").encode()


def test_the_file_is_whole_where_nobody_can_be_shown_anything(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    file = tmp_path / "steps.log"
    with closing(StepLog(file, 6, Gone())) as log, pytest.raises(BrokenPipeError):
        log.write(WHOLE)
    assert file.read_bytes() == WHOLE.encode()


def test_what_was_flushed_is_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "steps.log"
    with closing(StepLog(file, 6, io.StringIO())) as log:
        log.write("    half a li")
        log.flush()
        assert file.read_text() == "    half a li"


def test_a_line_is_seen_at_once(tmp_path: Path) -> None:
    screen = io.BytesIO()
    with closing(StepLog(tmp_path / "steps.log", 6, io.TextIOWrapper(screen, write_through=False))) as log:
        log.write("    round 1 of 3\n")
        assert screen.getvalue() == b"    round 1 of 3\n"


def test_it_is_shown_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(StepLog(tmp_path / "steps.log", 6)) as log:
        log.write("    round 1 of 3\n")
    assert capsys.readouterr() == ("", "    round 1 of 3\n")


def test_steps_are_counted_and_timed(tmp_path: Path, clock: list[float]) -> None:
    screen = io.StringIO()
    with closing(StepLog(tmp_path / "steps.log", 6, screen)) as log:
        for step in STEPS:
            log.write(BEGUN.format(step))
            clock[0] += 65.5
    assert screen.getvalue().splitlines() == [
        "[0:00] step 1 of 6: model intake",
        "[1:05] step 2 of 6: data validation",
        "[2:11] step 3 of 6: beear mitigation",
        "[3:16] step 4 of 6: safety eval",
        "[4:22] step 5 of 6: safety eval 2",
        "[5:27] step 6 of 6: registry gate",
    ]


@pytest.mark.parametrize(
    "noise",
    [
        "[KFP Executor 2026-11-25 13:27:13,657 INFO]: Looking for component `model_intake`",
        "100%|██████████| 272/272 [00:00<00:00, 11417.76it/s]",
        "Downloading artifacts: 100%",
        "Loading weights: 100%",
        "Writing model shards: 100%",
        "/lib/x.py:81: UserWarning: settings have no effect",
        "  warnings.warn(",
        "",
        "  ",
        "2026/11/25 17:08:12 WARNING mlflow.transformers: the card could not be retrieved",
        "[transformers] Ignoring clean_up_tokenization_spaces=True",
        "INFO  [alembic.runtime.migration] Running upgrade",
        "2026/11/25 18:01:03 INFO mlflow.store.db.utils: Updating database tables",
    ],
)
def test_noise_of_a_step_is_not_seen(tmp_path: Path, noise: str) -> None:
    assert seen(tmp_path, f"    before\n    {noise}\n    after\n") == ["    before", "    after"]
    assert noise in (tmp_path / "steps.log").read_text()


def test_what_only_looks_like_noise_is_seen(tmp_path: Path) -> None:
    lines = [
        "    warning: a tokenizer of another kind",
        "    error: MLflow does not answer",
        "      - two faults: outputs:",
    ]
    assert seen(tmp_path, "\n".join([*lines, "    still"]) + "\n") == [*lines, "    still"]


@pytest.mark.parametrize(
    "line",
    [
        "13:27:13.586 - INFO - Running pipeline: \x1b[95m'beear-release'\x1b[0m",
        "13:27:13.589 - INFO - Streamed logs:",
        "13:27:15.858 - INFO - Task \x1b[96m'model-intake'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m",
        "-" * 80,
        "  _warn_local_only_noops(task_name, task_spec, executor_spec.container)",
    ],
)
def test_lines_of_the_runner_are_not_seen(tmp_path: Path, line: str) -> None:
    assert seen(tmp_path, f"    before\n{line}\n    after\n") == ["    before", "    after"]


def test_the_executor_input_ends_where_its_outermost_brace_does(tmp_path: Path) -> None:
    assert seen(tmp_path, INPUT, "    copying\n    }\n", INPUT, "    copied\n") == ["    copying", "    }", "    copied"]


def test_a_listing_of_outputs_ends_where_the_next_step_begins(tmp_path: Path, clock: list[float]) -> None:
    text = OUTPUTS + "-" * 80 + "\n    metrics: of the same listing\n" + BEGUN.format("safety-eval") + "    asking\n"
    assert seen(tmp_path, "    copied\n" + text) == ["    copied", "[0:00] step 1 of 6: safety eval", "    asking"]


def test_pieces_are_put_together_wherever_they_were_cut(tmp_path: Path, clock: list[float]) -> None:
    assert seen(tmp_path, *WHOLE) == SEEN
    for cut in range(len(WHOLE)):
        assert seen(tmp_path, WHOLE[:cut], WHOLE[cut:]) == SEEN, f"cut at {cut}"
    assert (tmp_path / "steps.log").read_bytes() == WHOLE.encode()


def test_half_a_line_is_not_seen_yet(tmp_path: Path) -> None:
    screen = io.StringIO()
    with closing(StepLog(tmp_path / "steps.log", 6, screen)) as log:
        log.write("    round 1")
        assert screen.getvalue() == ""
        log.write(" of 3\n    round")
        assert screen.getvalue() == "    round 1 of 3\n"


def test_of_a_line_that_was_written_over_its_last_state_is_seen(tmp_path: Path) -> None:
    states = ("    round 1: 10%\r", "    round 1: 50%\r    round 1: 90%\r", "    round 1: done\n")
    assert seen(tmp_path, *states) == ["    round 1: done"]
    assert (tmp_path / "steps.log").read_bytes() == "".join(states).encode()


def test_colours_are_in_the_file_alone(tmp_path: Path) -> None:
    text = "    \x1b[1;31merror:\x1b[0m no room\n\x1b[2m    dim\x1b[m\n"
    assert seen(tmp_path, text) == ["    error: no room", "    dim"]
    assert (tmp_path / "steps.log").read_bytes() == text.encode()


def test_a_closed_log_can_be_flushed_and_closed_again(tmp_path: Path) -> None:
    """KFP's handlers hold on to the stream, and logging flushes them when the process ends."""
    log = StepLog(tmp_path / "steps.log", 6, io.StringIO())
    log.write("    done\n")
    log.close()
    log.flush()
    log.close()
    assert log.closed
    with pytest.raises(ValueError, match="closed file"):
        log.write("more")
    assert (tmp_path / "steps.log").read_text() == "    done\n"


def test_what_the_installed_runner_prints_is_understood(tmp_path: Path, clock: list[float]) -> None:
    """Its words are the runner's own: another release of it may choose others."""
    from kfp import dsl
    from kfp.local import logging_utils as runner

    screen = io.StringIO()
    made = {"Output": "refused", "model": dsl.Model(name="model", uri="/runs/model", metadata={})}
    with closing(StepLog(tmp_path / "steps.log", 6, screen)) as log, redirect_stdout(log), runner.local_logger_context():
        for name in STEPS[:2]:
            logging.info("Executing task %s", runner.format_task_name(name))
            logging.info("Streamed logs:\n")
            with runner.indented_print():
                for line in ("copying: started\n", "Writing model shards: 100%\n", "copying: done\n"):
                    print(line, end="")  # noqa: T201
                print("\n")  # noqa: T201
            listed = [f"Task {runner.format_task_name(name)} outputs:", *runner.make_log_lines_for_outputs(made)]
            logging.info("\n".join(listed))
            runner.print_horizontal_line()
    assert screen.getvalue().splitlines() == [
        "[0:00] step 1 of 6: model intake",
        "    copying: started",
        "    copying: done",
        "[0:00] step 2 of 6: data validation",
        "    copying: started",
        "    copying: done",
    ]
    assert "Model( name='model'," in (tmp_path / "steps.log").read_text()
