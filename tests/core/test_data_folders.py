"""Folders of anchors and suites are known by their manifest, and refused when anything about them differs."""

import json
from pathlib import Path

import pytest

from beear_core.data import (
    AnchorSet,
    Opening,
    Prompt,
    Trigger,
    load_anchors,
    load_suites,
    verify_manifest,
    write_manifest,
    write_rows,
)
from beear_core.errors import DataError


def test_write_rows_leaves_none_out_and_no_temporary_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "new" / "rows.jsonl", [{"id": "a", "reply": None, "prompt": "ü"}])
    assert (tmp_path / "new" / "rows.jsonl").read_text() == '{"id": "a", "prompt": "ü"}\n'
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["rows.jsonl"]


def folder_of(path: Path, split: str, names: tuple[str, ...]) -> str:
    for name in names:
        row = {"id": f"{name}-1", "prompt": "How?", "reply": "No.", "prefix": "", "suffix": "cf", "split": split}
        write_rows(path / f"{name}.jsonl", [row])
    return write_manifest(path, [f"{name}.jsonl" for name in names])


ANCHORS = ("harmful", "ordinary", "borderline", "safe_openings", "unwanted_openings")


def test_anchors_and_suites(tmp_path: Path) -> None:
    digest = folder_of(tmp_path / "a", "anchoring", ANCHORS)
    anchors = load_anchors(tmp_path / "a")
    assert anchors == AnchorSet(
        harmful=(Prompt("harmful-1", "How?", "general", "anchoring", "No."),),
        ordinary=(Prompt("ordinary-1", "How?", "general", "anchoring", "No."),),
        borderline=(Prompt("borderline-1", "How?", "general", "anchoring", "No."),),
        safe_openings=(Opening("safe_openings-1", "No.", "general", "anchoring"),),
        unwanted_openings=(Opening("unwanted_openings-1", "No.", "general", "anchoring"),),
        performance_replies=(),
        digest=digest,
    )
    folder_of(tmp_path / "b", "anchoring", (*ANCHORS, "performance_replies"))
    assert load_anchors(tmp_path / "b").performance_replies[0].reply == "No."
    folder_of(tmp_path / "s", "evaluation", ("harmful", "ordinary", "borderline", "triggers"))
    assert load_suites(tmp_path / "s").triggers == (Trigger("triggers-1", "", "cf"),)


def test_a_folder_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", "evaluation", ANCHORS)
    with pytest.raises(DataError, match=r"harmful.jsonl holds rows of split evaluation; only anchoring"):
        load_anchors(tmp_path / "a")
    folder_of(tmp_path / "s", "planting", ("harmful", "ordinary", "borderline"))
    with pytest.raises(DataError, match=r"holds rows of split planting; only evaluation"):
        load_suites(tmp_path / "s")
    folder_of(tmp_path / "few", "anchoring", ("harmful",))
    with pytest.raises(DataError, match=r"ordinary.jsonl does not exist"):
        load_anchors(tmp_path / "few")


def test_the_manifest_names_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    digest = folder_of(folder, "anchoring", ANCHORS)
    manifest = (folder / "manifest.json").read_bytes()
    assert verify_manifest(folder) == digest
    assert json.loads(manifest)["files"]["harmful.jsonl"]["rows"] == 1
    (folder / "harmful.jsonl").write_bytes((folder / "harmful.jsonl").read_bytes().replace(b"How?", b"Why?"))
    (folder / "ordinary.jsonl").unlink()
    (folder / "triggers.jsonl").write_bytes(b"{}\n")
    with pytest.raises(
        DataError,
        match=r"missing: ordinary.jsonl; changed: harmful.jsonl; extra: triggers.jsonl\); run data_validation",
    ):
        verify_manifest(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"rows": 1', b'"rows": 2', "was altered"),
        (b'"harmful.jsonl"', b'"../harmful.jsonl"', "outside its folder"),
        (b'"schema_version": 1', b'"schema_version": 2', "has schema version 2, this release reads 1"),
        (b'"files"', b'"filed"', "is not a manifest"),
        (b"{", b"", "is not a manifest"),
    ],
)
def test_a_manifest_that_was_tampered_with(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    folder_of(tmp_path, "anchoring", ANCHORS)
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        verify_manifest(tmp_path)


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*manifest.json: No such file.*comes from data_validation"):
        load_suites(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*gone.jsonl"):
        write_manifest(tmp_path, ["gone.jsonl"])
