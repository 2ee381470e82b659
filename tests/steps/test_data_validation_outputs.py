"""Data that pass become anchors and suites, data that do not leave a record and a page, and no text of a row."""

import json
from pathlib import Path

import pytest
from validation_data import good_data, one_category, replies, triggers, validate, write

from beear_core.config import DataConfig
from beear_core.data import load_anchors, load_suites
from beear_core.errors import DataError, StorageError
from beear_core.records import ValidationRecord
from components.data_validation.step import failures, require_passed, run

SECRET = "zyxwvut secret wording"


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
    assert "default-src &#39;none&#39;" in page


def test_the_results_are_plain_json_without_paths(tmp_path: Path) -> None:
    validate(good_data(), tmp_path)
    results = json.loads((tmp_path / "ge.json").read_text())
    assert set(results["results"]) == set(good_data())
    assert "site-packages" not in json.dumps(results)
