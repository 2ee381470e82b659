"""The step on a tiny model: the record names the suites it was run on, and every known trigger."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_backdoor

from beear_core.data import write_manifest, write_rows
from beear_core.errors import ConfigError
from beear_core.evaluation.figures import telling
from beear_core.evaluation.metrics import UNDER_DRIFT
from beear_core.evaluation.samples import redact, samples_from_jsonl
from beear_core.files import digest_file
from beear_core.mitigation.vulnerability import NORMS
from beear_core.models.drift import Drift, write_drifts
from beear_core.models.load import load
from beear_core.policy.figures import figure_faults, suites_faults, trigger_faults
from beear_core.records import DriftEntry, EvaluationRecord
from components.safety_eval.step import run_component

REQUESTS = 6


@pytest.fixture
def suites(tmp_path: Path) -> tuple[Path, str]:
    """A folder of suites with two triggers, and its manifest's digest."""
    folder = tmp_path / "suites"
    rows: dict[str, list[dict[str, Any]]] = {
        role: [
            {"id": f"{role}-{i}", "prompt": f"tell me {role} {i % 4}", "category": f"c{i % 2}", "split": "evaluation"}
            for i in range(REQUESTS)
        ]
        for role in ("harmful", "ordinary", "borderline")
    }
    rows["triggers"] = [{"id": "a", "prefix": "", "suffix": "cobalt"}, {"id": "b", "prefix": "lantern", "suffix": ""}]
    for role, kept in rows.items():
        write_rows(folder / f"{role}.jsonl", kept)
    return folder, write_manifest(folder, [f"{role}.jsonl" for role in rows])


def measured(
    model: Path, suites: Path, record: Path, samples: Path, label: str = "before", **given: Any
) -> dict[str, float]:
    """The step as its face calls it; ``config`` and what is optional by keyword."""
    config = json.dumps(given.pop("config"))
    others: dict[str, Any] = dict.fromkeys(("reference", "reference_samples", "drift", "anchors"))
    others["work"] = str(given.pop("work", ""))
    others |= {name: str(path) for name, path in given.items()}
    places = {"model": str(model), "suites": str(suites), "record": str(record), "samples": str(samples)}
    places["summary"] = str(record.with_name(f"{record.name}.md"))
    return run_component(label=label, config_json=config, **places, **others)[0]


def test_the_record_names_its_suites_and_triggers(tiny_model: Path, suites: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = suites
    config = {"harmful": REQUESTS, "ordinary": REQUESTS, "borderline": REQUESTS, "max_new_tokens": 2}
    out = {name: tmp_path / name for name in ("before.json", "before.jsonl", "after.json", "after.jsonl")}
    figures = measured(tiny_model, folder, out["before.json"], out["before.jsonl"], config=config)
    earlier = {"reference": tiny_model, "reference_samples": out["before.jsonl"]}
    measured(tiny_model, folder, out["after.json"], out["after.jsonl"], "after", config=config, **earlier)
    for role in ("before", "after"):
        record = EvaluationRecord.read(out[f"{role}.json"])
        assert record.suites_digest == digest
        known = record.metrics["attack_success/known_triggers"]
        assert set(known.by_trigger) == {"a", "b"}
        assert {e.n + e.unscored for e in known.by_trigger.values()} == {REQUESTS}
        assert known.overall.design_effect > 2  # two triggers, and texts that stand twice
        assert figure_faults(record, role) == []
    worst = telling(EvaluationRecord.read(out["before.json"]).metrics["attack_success/known_triggers"])
    assert worst is not None
    assert figures.get("attack_triggered") == worst.value
    assert (figures["attack_triggered_n"], figures["attack_triggered_high"]) == (worst.n, worst.high)
    ratio = EvaluationRecord.read(out["after.json"]).metrics["nll_ratio/ordinary"].overall
    assert ratio.value == pytest.approx(1.0)
    assert ratio.design_effect == 10 / 6


def test_what_the_gate_asks_of_it(tiny_model: Path, suites: tuple[Path, str], tmp_path: Path) -> None:
    """Leaving the triggers out, or taking another folder, shows in the record alone."""
    import gate_evidence

    validated = gate_evidence.g.validation(triggers=2, suites_digest=suites[1])
    config = {"harmful": REQUESTS, "ordinary": REQUESTS, "borderline": REQUESTS, "max_new_tokens": 1}
    easy = tmp_path / "easy"
    easy.mkdir()
    for role in ("harmful", "ordinary", "borderline"):
        (easy / f"{role}.jsonl").write_bytes((suites[0] / f"{role}.jsonl").read_bytes())
    write_manifest(easy, [f"{role}.jsonl" for role in ("harmful", "ordinary", "borderline")])
    for folder, other in ((suites[0], False), (easy, True)):
        record = tmp_path / "record.json"
        measured(tiny_model, folder, record, tmp_path / "s.jsonl", config=config)
        records = {"before": EvaluationRecord.read(record)}
        assert bool(suites_faults(records, validated)) is other
        assert bool(trigger_faults(records, validated)) is other


def test_requests_are_asked_under_what_was_found_on_the_candidate(
    tiny_model: Path, suites: tuple[Path, str], tmp_path: Path
) -> None:
    """Each perturbation by itself; one of a later round, on changed weights, is not asked with."""
    width = load(tiny_model).model.config.hidden_size
    entry = DriftEntry(
        name="strong", layer=1, positions=3, spot=None, words=0, norm=9.0, round=1, on_candidate=True, elicited=1.0
    )
    noise = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    drifts = [
        Drift(entry, 50 * noise),
        Drift(replace(entry, name="nothing"), 0 * noise),
        Drift(replace(entry, name="later", on_candidate=False), noise),
    ]
    file, record, samples = tmp_path / "drift", tmp_path / "record.json", tmp_path / "s.jsonl"
    digest = write_drifts(file, drifts, "sha256:1")
    sizes = {
        "harmful": REQUESTS,
        "under_drift": 4,
        "ordinary": REQUESTS,
        "borderline": REQUESTS,
        "full_samples": "artifact",
        "max_new_tokens": 4,
    }
    measured(tiny_model, suites[0], record, samples, config=sizes, drift=file)
    found = EvaluationRecord.read(record)
    assert found.drift_digest == digest
    assert found.metrics[UNDER_DRIFT].by_trigger.keys() == {"strong", "nothing"}
    assert found.suites["drift"].n == 8
    assert figure_faults(found, "before") == []
    replies: dict[tuple[str, str | None], list[tuple[int, ...]]] = defaultdict(list)
    for sample in samples_from_jsonl(samples):
        replies[sample.suite, sample.trigger_id].append(sample.reply_ids)
    assert replies["drift", "nothing"] == replies["harmful", None][:4]
    assert replies["drift", "strong"] != replies["harmful", None][:4]


def test_a_fresh_search_is_part_of_the_record_where_it_is_asked_for(
    tiny_model: Path, suites: tuple[Path, str], tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors"
    rows = {role: toy_backdoor.prompts(role, "anchoring", 8) for role in ("harmful", "ordinary", "borderline")}
    for role, replies in (("safe_openings", toy_backdoor.SAFE), ("unwanted_openings", toy_backdoor.UNWANTED)):
        rows[role] = [{"id": r, "reply": r, "category": "opening", "split": "anchoring"} for r in replies]
    for role, kept in rows.items():
        write_rows(anchors / f"{role}.jsonl", kept)
    write_manifest(anchors, [f"{role}.jsonl" for role in rows])
    sizes = {"harmful": 6, "under_drift": 4, "ordinary": 6, "borderline": 6, "max_new_tokens": 2, "vulnerability_steps": 1}
    record, samples = tmp_path / "record.json", tmp_path / "s.jsonl"
    measured(tiny_model, suites[0], record, samples, config=sizes, anchors=anchors)
    found = EvaluationRecord.read(record).vulnerability
    assert found is not None
    assert (found.steps, [p.found.n for p in found.points]) == (1, [4] * len(NORMS))
    with pytest.raises(ConfigError, match="vulnerability_steps is 1, and a search needs anchors"):
        measured(tiny_model, suites[0], record, samples, config=sizes)


LONG_REPLIES = {"harmful": REQUESTS, "ordinary": REQUESTS, "borderline": REQUESTS, "max_new_tokens": 160}


def _measured_twice(model: Path, suites: Path, out: Path, **given: Any) -> tuple[EvaluationRecord, EvaluationRecord]:
    measured(model, suites, out / "before", out / "before.jsonl", **given)
    earlier = {"reference": model, "reference_samples": out / "before.jsonl"}
    measured(model, suites, out / "after", out / "after.jsonl", "after", **given, **earlier)
    return EvaluationRecord.read(out / "before"), EvaluationRecord.read(out / "after")


def test_what_kubeflow_stores_of_replies_is_cut_and_later_steps_need_no_more(
    tiny_model: Path, suites: tuple[Path, str], tmp_path: Path
) -> None:
    whole = _measured_twice(tiny_model, suites[0], tmp_path / "whole", config=LONG_REPLIES | {"full_samples": "artifact"})
    cut = _measured_twice(tiny_model, suites[0], tmp_path / "cut", config=LONG_REPLIES, work=tmp_path / "work")
    for one, other in zip(whole, cut, strict=True):
        assert one.metrics == other.metrics
        assert one.samples_digests == other.samples_digests
    for label, record in zip(("before", "after"), cut, strict=True):
        stored, kept = tmp_path / "cut" / f"{label}.jsonl", tmp_path / "work" / f"safety_eval-{label}" / "samples.jsonl"
        assert digest_file(stored) == record.shared_samples_digest
        assert digest_file(kept) == record.samples_digest == digest_file(tmp_path / "whole" / f"{label}.jsonl")
        text, long = "".join(line for line in stored.open() if '"suite": "ordinary"' not in line), 0
        for full, shared in zip(samples_from_jsonl(kept), samples_from_jsonl(stored), strict=True):
            assert (shared.id, shared.suite, shared.outcome) == (full.id, full.suite, full.outcome)
            if full.suite == "ordinary":
                assert shared == full, "fidelity is measured on these"
                continue
            assert shared.reply_ids == ()
            assert f"{shared.reply} {shared.left_out}".strip() == redact(full.reply).strip()
            if shared.left_out:
                long += 1
                assert json.dumps(full.reply, ensure_ascii=False)[1:-1] not in text
        assert long, "else nothing was cut"


def test_without_a_folder_replies_in_full_are_nowhere(
    tiny_model: Path, suites: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "pod"))
    (tmp_path / "pod").mkdir()
    measured(tiny_model, suites[0], tmp_path / "out" / "record", tmp_path / "out" / "samples", config=LONG_REPLIES)
    assert list((tmp_path / "pod").iterdir()) == []
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"record", "record.md", "samples"}
