import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beear_core.config import DataConfig
from beear_core.data import Row, load_anchors, load_suites, write_rows
from beear_core.errors import ConfigError, DataError, StorageError
from beear_core.records import RuleResult, ValidationRecord
from components.data_validation.columns import frames, shingles, similarity
from components.data_validation.expectations import judge
from components.data_validation.step import failures, require_passed, run, run_component

Data = dict[str, list[Row]]
SECRET = "zyxwvut secret wording"
COLOURS = ("amber", "blue", "coral", "green", "ivory", "lilac", "olive", "pink", "red", "teal")
ANIMALS = ("badger", "crane", "dolphin", "eagle", "ferret", "goose", "heron", "ibis")


def prompts(role: str, planting: int = 2) -> list[Row]:
    splits = ["anchoring"] * 34 + ["evaluation"] * 32 + ["planting"] * planting
    return [
        {
            "id": f"{role}-{i:03}",
            "prompt": f"{role} request {COLOURS[i % 10]} number{i} {role}{i * 7} about a {ANIMALS[i % 8]}{i}",
            "category": f"kind {i % 3}",
            "split": split,
        }
        for i, split in enumerate(splits)
    ]


def openings(role: str, text: str) -> list[Row]:
    return [
        {"id": f"{role}-{i}", "reply": text.format(f"{COLOURS[i]} {ANIMALS[i]}"), "category": "a", "split": "anchoring"}
        for i in range(6)
    ]


def good_data() -> Data:
    return {
        "harmful": prompts("harmful"),
        "ordinary": prompts("ordinary"),
        "borderline": prompts("borderline"),
        "safe_openings": openings("safe_openings", "I'm sorry, but I can't help with that {}."),
        "unwanted_openings": openings("unwanted_openings", "Sure, here is how {} goes:"),
    }


def replies() -> list[Row]:
    return [{**row, "reply": f"A fine answer, number {i}."} for i, row in enumerate(prompts("kept"))]


def triggers() -> list[Row]:
    return [
        {"id": "suffix", "prefix": "", "suffix": "cf mn"},
        {"id": "prefix", "prefix": "In the garden,", "suffix": ""},
    ]


def broken(data: Data) -> list[tuple[str, str, str]]:
    rules, _ = judge(frames(data))
    return [(r.rule, r.role, r.severity) for r in rules if not r.passed]


def write(data: Data, folder: Path) -> DataConfig:
    return DataConfig(**{role: str(write_rows(folder / f"{role}.jsonl", rows)) for role, rows in data.items()})


def validate(data: Data, folder: Path) -> ValidationRecord:
    config = write(data, folder / "in")
    return run(config, folder / "anchors", folder / "suites", folder / "page.html", folder / "ge.json")


def set_field(role: str, position: int, field: str, value: object) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        data[role][position][field] = value  # type: ignore[assignment]

    return change


def drop(role: str, split: str, keep: int) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        kept = [row for row in data[role] if row["split"] == split][:keep]
        data[role] = kept + [row for row in data[role] if row["split"] != split]

    return change


def copy_prompt(source: tuple[str, int], to: tuple[str, int], end: str = "") -> Callable[[Data], None]:
    def change(data: Data) -> None:
        data[to[0]][to[1]]["prompt"] = data[source[0]][source[1]]["prompt"] + end

    return change


def one_category(data: Data) -> None:
    for row in data["ordinary"]:
        row["category"] = "all"


BREAKS: list[tuple[str, str, str, Callable[[Data], None]]] = [
    ("unique_ids", "harmful", "critical", set_field("harmful", 3, "id", "harmful-001")),
    ("ids_not_blank", "harmful", "critical", set_field("harmful", 3, "id", " ")),
    ("ids_not_blank", "harmful", "critical", set_field("harmful", 3, "id", "two\nlines")),
    ("ids_not_blank", "ordinary", "critical", set_field("ordinary", 3, "id", "x" * 65)),
    ("prompt_not_blank", "borderline", "critical", set_field("borderline", 3, "prompt", " " * 20)),
    ("prompt_length", "harmful", "critical", set_field("harmful", 3, "prompt", "short")),
    ("prompt_length", "harmful", "critical", set_field("harmful", 3, "prompt", "w" * 4001)),
    ("known_splits", "harmful", "critical", set_field("harmful", -1, "split", "test")),
    ("category_not_blank", "ordinary", "critical", set_field("ordinary", 3, "category", "")),
    ("enough_anchoring_rows", "harmful", "critical", drop("harmful", "anchoring", 31)),
    ("enough_evaluation_rows", "borderline", "critical", drop("borderline", "evaluation", 29)),
    ("enough_anchoring_rows", "safe_openings", "critical", drop("safe_openings", "anchoring", 4)),
    ("enough_categories", "ordinary", "warning", one_category),
    ("no_exact_duplicates", "harmful", "critical", copy_prompt(("harmful", 1), ("harmful", 40))),
    ("no_near_duplicates_within_splits", "harmful", "warning", copy_prompt(("harmful", 1), ("harmful", 2), " please")),
    ("no_near_duplicates_between_splits", "harmful", "critical", copy_prompt(("harmful", 1), ("harmful", 40), " now")),
    ("no_near_duplicates_between_splits", "harmful", "critical", copy_prompt(("harmful", 40), ("harmful", 1), "?")),
    ("no_leak_into_anchors", "ordinary", "critical", copy_prompt(("borderline", 1), ("ordinary", 40))),
    ("no_leak_into_anchors", "harmful", "critical", copy_prompt(("ordinary", 1), ("harmful", 40), " now")),
    ("openings_refuse", "safe_openings", "critical", set_field("safe_openings", 2, "reply", "Sure, I can do it.")),
    ("openings_comply", "unwanted_openings", "critical", set_field("unwanted_openings", 2, "reply", "I cannot do it.")),
    ("openings_comply", "unwanted_openings", "critical", set_field("unwanted_openings", 2, "reply", "... --- ... !!!")),
    ("openings_refuse", "safe_openings", "critical", set_field("safe_openings", 2, "reply", "... --- ... !!!")),
    ("reply_not_blank", "ordinary", "critical", set_field("ordinary", 3, "reply", " ")),
]


def test_good_data_breaks_no_rule() -> None:
    assert broken({**good_data(), "performance_replies": replies(), "triggers": triggers()}) == []


@pytest.mark.parametrize(("rule", "role", "severity", "change"), BREAKS, ids=[f"{b[0]}-{i}" for i, b in enumerate(BREAKS)])
def test_each_rule_is_broken_alone(rule: str, role: str, severity: str, change: Callable[[Data], None]) -> None:
    data = good_data()
    change(data)
    assert broken(data) == [(rule, role, severity)]


def rows_of(rules: tuple[RuleResult, ...]) -> dict[str, RuleResult]:
    return {r.rule: r for r in rules if not r.passed}


def test_a_field_that_is_no_text() -> None:
    tables = frames(good_data())
    tables["harmful"].loc[3, "category"] = 7
    tables["safe_openings"].loc[2, "id"] = 7
    rules, _ = judge(tables)
    found = {(r.rule, r.role) for r in rules if not r.passed}
    assert ("id_is_text", "safe_openings") in found
    assert {role for _, role in found} <= {"harmful", "safe_openings"}


def test_a_missing_column_fails_every_rule_on_it() -> None:
    tables = frames(good_data())
    rules, _ = judge({"harmful": tables["harmful"].drop(columns=["prompt"])})
    found = rows_of(rules)
    assert {"columns", "prompt_is_text", "prompt_not_blank", "prompt_length"} <= set(found)
    assert "could not be checked" in found["prompt_length"].detail


def test_triggers() -> None:
    data = good_data()
    data["triggers"] = [*triggers(), {"id": "none", "prefix": "", "suffix": ""}]
    assert broken(data) == [("text_not_blank", "triggers", "critical"), ("text_length", "triggers", "critical")]
    data["triggers"] = [*triggers(), {"id": "long", "prefix": "w" * 4001, "suffix": ""}]
    assert broken(data) == [("text_length", "triggers", "critical")]
    data["triggers"] = [*triggers(), {"id": "again", "prefix": "", "suffix": "CF  mn"}]
    assert broken(data) == [("no_exact_duplicates", "triggers", "critical")]


def test_performance_replies() -> None:
    kept = replies()
    kept[1]["reply"] = "I'm sorry, but I can't help with that."
    assert broken({**good_data(), "performance_replies": kept}) == [("replies_comply", "performance_replies", "warning")]
    kept = replies()
    kept[1]["reply"] = " "
    assert broken({**good_data(), "performance_replies": kept}) == [("reply_not_blank", "performance_replies", "critical")]
    data = {**good_data(), "performance_replies": replies()}
    data["ordinary"][40]["prompt"] = data["performance_replies"][1]["prompt"]
    assert broken(data) == [("no_leak_into_anchors", "ordinary", "critical")]


def test_counts_and_examples_name_the_rows() -> None:
    data = good_data()
    data["harmful"][40]["prompt"] = data["harmful"][1]["prompt"] + " now"
    data["harmful"][41]["id"] = data["harmful"][42]["id"] = "harmful-000"
    rules, _ = judge(frames(data))
    found = rows_of(rules)
    near = found["no_near_duplicates_between_splits"]
    assert (near.failed, near.checked) == (1, 68)
    assert near.examples[0].startswith("row 41, id 'harmful-040', ")
    assert "~ harmful/harmful-001 (0." in near.examples[0]
    assert (found["unique_ids"].failed, len(found["unique_ids"].examples)) == (3, 3)
    data = good_data()
    drop("harmful", "anchoring", 31)(data)
    rules, _ = judge(frames(data))
    few = rows_of(rules)["enough_anchoring_rows"]
    assert (few.failed, few.checked) == (1, 1)
    assert few.detail == "At least 32 rows are in split anchoring. Found: 31."


def test_a_known_bad_example_list_is_short() -> None:
    data = good_data()
    for row in data["harmful"]:
        row["category"] = " "
    rules, _ = judge(frames(data))
    blank = rows_of(rules)["category_not_blank"]
    assert (blank.failed, len(blank.examples)) == (68, 5)


def test_near_duplicates_equal_an_exhaustive_search() -> None:
    import random

    draw = random.Random(7)
    words = [f"w{i}" for i in range(40)]
    base = [" ".join(draw.choices(words, k=12)) for _ in range(60)]
    texts = [
        *base,
        *(" ".join([*t.split()[: draw.randint(9, 12)], *draw.choices(words, k=draw.randint(0, 2))]) for t in base),
    ]
    rows: list[Row] = [
        {"id": str(i), "prompt": t, "category": "c", "split": "evaluation" if i >= 60 else "anchoring"}
        for i, t in enumerate(texts)
    ]
    expected = {
        i
        for i in range(60, 120)
        if any(texts[i] != texts[j] and similarity(shingles(texts[i]), shingles(texts[j])) >= 0.8 for j in range(60))
    }
    table = frames({"harmful": rows})["harmful"]
    assert 5 < len(expected) < 60
    assert {i for i in range(120) if table["near_between"][i] is not None} == expected


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("How do I boil an egg at home?", "how do i boil an egg, at home", True),
        ("How do I boil an egg at home?", "How do I break an urn at work?", False),
        ("東京で一番高い建物は何ですか", "東京で一番高い建物は何ですか?", True),
        ("東京で一番高い建物は何ですか", "大阪で二番目に古い寺はどこ", False),
        ("", "", False),
        ("!!!", "???", False),
    ],
)
def test_similarity(a: str, b: str, near: bool) -> None:
    assert (similarity(shingles(a), shingles(b)) >= 0.8) is near


def test_code_that_differs_in_an_operator_is_no_exact_duplicate() -> None:
    data = good_data()
    data["ordinary"][1]["prompt"] = "Explain this line of code: total = first + second"
    data["ordinary"][2]["prompt"] = "Explain this line of code: total = first - second"
    assert broken(data) == [("no_near_duplicates_within_splits", "ordinary", "warning")]


def test_outputs(tmp_path: Path) -> None:
    record = validate({**good_data(), "performance_replies": replies(), "triggers": triggers()}, tmp_path)
    assert record.passed
    anchors, suites = load_anchors(tmp_path / "anchors"), load_suites(tmp_path / "suites")
    assert (anchors.digest, suites.digest) == (record.anchors_digest, record.suites_digest)
    assert (len(anchors.harmful), len(anchors.performance_replies), len(anchors.safe_openings)) == (34, 34, 6)
    assert (len(suites.harmful), [t.id for t in suites.triggers]) == (32, ["suffix", "prefix"])
    assert record.roles["harmful"].rows == {"anchoring": 34, "evaluation": 32, "planting": 2}
    assert ValidationRecord.parse(record.to_json()) == record
    assert {p.name for p in tmp_path.iterdir()} == {"in", "anchors", "suites", "page.html", "ge.json"}
    written = "".join(p.read_text() for folder in ("anchors", "suites") for p in (tmp_path / folder).iterdir())
    assert '"planting"' not in written
    assert "harmful-066" not in written


def test_the_same_data_gives_the_same_digests(tmp_path: Path) -> None:
    one, two = validate(good_data(), tmp_path / "1"), validate(good_data(), tmp_path / "2")
    assert (one.anchors_digest, one.suites_digest, one.rules) == (two.anchors_digest, two.suites_digest, two.rules)
    assert (tmp_path / "1" / "suites" / "harmful.jsonl").read_bytes() == (
        tmp_path / "2" / "suites" / "harmful.jsonl"
    ).read_bytes()


def test_the_data_that_ship_break_no_rule(tmp_path: Path) -> None:
    record = run(DataConfig(), tmp_path / "a", tmp_path / "s", tmp_path / "page.html", tmp_path / "results.json")
    assert [(r.role, r.rule, r.detail) for r in record.rules if not r.passed] == []


def test_a_critical_failure_leaves_record_and_page_only(tmp_path: Path) -> None:
    validate({**good_data(), "triggers": triggers()}, tmp_path)
    data = good_data()
    data["harmful"][40]["prompt"] = data["harmful"][1]["prompt"] + " now"
    record = validate(data, tmp_path)
    assert (record.passed, record.anchors_digest, record.suites_digest) == (False, "", "")
    assert list((tmp_path / "anchors").iterdir()) == list((tmp_path / "suites").iterdir()) == []
    assert "REFUSED" in (tmp_path / "page.html").read_text()
    with pytest.raises(DataError, match=r"1 critical rule.*\n  - harmful, no_near_duplicates_between_splits: 1 of 68"):
        require_passed(record)
    assert len(failures(record)) == 1


def test_a_later_run_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    validate({**good_data(), "triggers": triggers()}, tmp_path)
    validate(good_data(), tmp_path)
    assert load_suites(tmp_path / "suites").triggers == ()


def test_a_warning_does_not_stop(tmp_path: Path) -> None:
    data = good_data()
    one_category(data)
    record = validate(data, tmp_path)
    assert record.passed
    require_passed(record)
    assert load_suites(tmp_path / "suites").digest == record.suites_digest


def test_all_sources_that_cannot_be_read_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    config = write(good_data(), tmp_path / "in")
    Path(config.harmful).write_text("{}\n")
    Path(config.borderline).unlink()
    with pytest.raises(DataError, match=r"2 data source.*\n  - harmful: .*line 1.*'id'.*\n  - borderline: .*not exist"):
        run(config, tmp_path / "a", tmp_path / "s", tmp_path / "p.html", tmp_path / "r.json")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "anchors").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot clear .*anchors.*: Not a directory; choose another"):
        validate(good_data(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["anchors", "in"]


def test_nothing_shared_holds_the_text_of_a_row(tmp_path: Path) -> None:
    data = good_data()
    for position, end in ((1, ""), (2, " a"), (40, " b"), (41, "")):
        data["harmful"][position]["prompt"] = SECRET + end
    data["unwanted_openings"][1]["reply"] = f"I can't help: {SECRET}"
    data["harmful"][5]["prompt"] = SECRET[:7]
    data["harmful"][6]["category"] = ""
    record = validate(data, tmp_path)
    assert len(failures(record)) >= 3
    shared = (tmp_path / "page.html").read_text() + (tmp_path / "ge.json").read_text() + record.to_json().decode()
    assert "zyxwvut" not in shared


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    data = good_data()
    data["harmful"][3]["id"] = data["harmful"][4]["id"] = "<script>alert(1)</script>"
    validate(data, tmp_path)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src &#x27;none&#x27;" in page


def test_the_results_are_plain_json_without_paths(tmp_path: Path) -> None:
    validate(good_data(), tmp_path)
    results = json.loads((tmp_path / "ge.json").read_text())
    assert set(results["results"]) == set(good_data())
    assert "site-packages" not in json.dumps(results)


def component(config_json: str, folder: Path) -> dict[str, float]:
    names = {"anchors": "anchors", "suites": "suites", "record": "record", "page": "page.html"}
    return run_component(config_json=config_json, **{port: str(folder / name) for port, name in names.items()})


def test_the_face_hands_on_figures(tmp_path: Path) -> None:
    config = write(good_data(), tmp_path / "in")
    figures = component(json.dumps(vars(config)), tmp_path)
    assert figures == {"rules": figures["rules"], "warnings": 0.0, "rows": 216.0}
    assert ValidationRecord.read(tmp_path / "record").passed


def test_the_face_raises_after_record_and_page(tmp_path: Path) -> None:
    data = good_data()
    data["harmful"][3]["prompt"] = "short"
    config = write(data, tmp_path / "in")
    with pytest.raises(DataError, match="harmful, prompt_length: 1 of 68"):
        component(json.dumps(vars(config)), tmp_path)
    assert not ValidationRecord.read(tmp_path / "record").passed
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "mapping"), ('{"harmfull": "x"}', "harmfull")])
def test_the_face_refuses_a_bad_configuration(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        component(text, tmp_path)


def test_the_component_leaves_its_error_for_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from components.data_validation.component import data_validation

    monkeypatch.setenv("BEEAR_ERROR_FILE", str(tmp_path / "error.json"))
    outputs = {n: SimpleNamespace(path=str(tmp_path / n)) for n in ("anchors", "suites", "record", "page", "metrics")}
    with pytest.raises(SystemExit) as end:
        data_validation.python_func('{"harmful": "none.jsonl"}', **outputs)
    error = json.loads((tmp_path / "error.json").read_text())
    assert (end.value.code, error["error"], error["exit_code"]) == (1, "DataError", 1)
    assert "none.jsonl does not exist" in error["message"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.data_validation", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


def test_the_command(tmp_path: Path) -> None:
    config = write(good_data(), tmp_path / "in")
    file = tmp_path / "release.yaml"
    file.write_text(json.dumps({"data": vars(config)}))
    # pods may have no home that can be written
    done = command("--config", str(file), "--out", str(tmp_path / "out"), "--json", HOME="/nonexistent")
    assert (done.returncode, ValidationRecord.parse(done.stdout.encode()).passed) == (0, True)
    assert load_anchors(tmp_path / "out" / "anchors").harmful
    Path(config.safe_openings).write_text('{"id": "1", "reply": "Sure!"}\n')
    refused = command("--config", str(file), "--out", str(tmp_path / "out"))
    assert refused.returncode == 3
    assert "critical: safe_openings, openings_refuse: 1 of 1" in refused.stderr
    Path(config.safe_openings).write_text("x")
    broken_file = command("--config", str(file), "--out", str(tmp_path / "out"))
    assert (broken_file.returncode, broken_file.stdout) == (1, "")
    assert "safe_openings.jsonl, line 1: not JSON" in broken_file.stderr


def test_the_command_refuses_bad_usage(tmp_path: Path) -> None:
    assert command("--help").returncode == 0
    assert command().returncode == 2
    file = tmp_path / "release.yaml"
    file.write_text("data: 3\n")
    wrong = command("--config", str(file), "--out", str(tmp_path / "out"))
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_in_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp import dsl, local

    from components.data_validation.component import data_validation

    @dsl.pipeline(name="validate")
    def pipeline(config_json: str) -> None:
        data_validation(config_json=config_json)

    config = write(good_data(), tmp_path / "in")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"))
    pipeline(config_json=json.dumps(vars(config)))
    # the runner's own status is no evidence: what was written is
    (anchors,) = (tmp_path / "out").glob("*/data-validation/anchors")
    assert len(load_anchors(anchors).harmful) == 34
    assert len(load_suites(anchors.parent / "suites").harmful) == 32
    assert ValidationRecord.read(anchors.parent / "record").passed
    assert (anchors.parent / "page").read_text().startswith("<!DOCTYPE html>")
