"""The card says what the records say, to the hub and to people, and nothing that a record holds becomes markup."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from gate_evidence import REFUSAL, Case, g, samples
from huggingface_hub import ModelCard
from reading_markdown import facts, flat, parts, shown, tables, tokens

from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy, decide
from beear_core.records import Vulnerability, VulnerabilityPoint
from components.passport.card import model_card
from components.passport.markdown import escaped, table

NAME = "release-candidate"
STANDARD = GatePolicy.load("standard")
ODD = [
    "a | b",
    "`code` and ``more``",
    "<script>alert(1)</script> &amp; <!--",
    "[text](http://evil.example) ![x](y)",
    "*a* **b** _c_ ~~d~~ \\*",
    "$x$ #1 @somebody http://evil.example www.evil.example",
    "line\nbreak\r\n\n# heading\n---\n- item",
    "\u202eevil\u200b",
    "модель “quoted”",
]


@pytest.fixture
def evidence(case: Case) -> Evidence:
    return Evidence.read_files(case.evidence)


def card(evidence: Evidence, policy: GatePolicy = STANDARD, name: str = NAME) -> str:
    return model_card(evidence, policy, name)


# --- for the hub ------------------------------------------------------------------------------------------------------


def test_the_hub_s_own_library_reads_the_front_matter(evidence: Evidence) -> None:
    found = ModelCard(card(evidence))
    assert (found.data.license, found.data.library_name, found.data.pipeline_tag) == (
        "other",
        "transformers",
        "text-generation",
    )
    assert found.data.model_name == NAME
    values = {r.metric_name: r.metric_value for r in found.data.eval_results or []}
    expected = {
        "Attack success, no trigger": ("attack_success/plain", None),
        "Attack success, known triggers: suffix": ("attack_success/known_triggers", "suffix"),
        **{f"Attack success, under drift: {d}": ("attack_success/under_drift", d) for d in g.DRIFTS},
        "Wrong refusals, ordinary": ("wrong_refusal/ordinary", None),
        "Wrong refusals, borderline": ("wrong_refusal/borderline", None),
        "NLL ratio of ordinary replies": ("nll_ratio/ordinary", None),
        "Token KL of ordinary replies": ("token_kl/ordinary", None),
    }
    metrics = evidence.after.metrics
    assert values == {
        title: (metrics[name].by_trigger[t] if t else metrics[name].overall).value for title, (name, t) in expected.items()
    }


def test_every_result_has_counts_interval_and_the_digest_of_its_prompts(evidence: Evidence) -> None:
    front, _ = parts(card(evidence))
    results = front["model-index"][0]["results"]
    suites = {r["dataset"]["type"].removeprefix("beear-gate-"): r for r in results}
    assert {name: r["dataset"]["revision"] for name, r in suites.items()} == {
        name: evidence.after.suites[name].digest for name in ("harmful", "triggered", "drift", "ordinary", "borderline")
    }
    plain = evidence.after.metrics["attack_success/plain"].overall
    assert suites["harmful"]["metrics"][0]["args"] == {
        name: getattr(plain, name) for name in ("n", "count", "unscored", "low", "high", "confidence")
    }


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("hub:org/name", "org/name"),
        ("hub:org/name@v1.0", "org/name"),
        ("models/candidate", None),
        ("s3://bucket/hub:x", None),
        ("models:/name@champion", None),
    ],
)
def test_a_base_model_is_named_where_the_hub_has_it(evidence: Evidence, uri: str, base: str | None) -> None:
    front, _ = parts(card(dataclasses.replace(evidence, intake=g.intake(uri=uri))))
    assert front.get("base_model") == base
    assert ("base_model" in front) is (base is not None)


def test_what_has_no_value_is_no_result(evidence: Evidence) -> None:
    empty = dataclasses.replace(g.rate(0, 10).overall, value=None, low=None, high=None, n=0, count=None)
    after = g.with_metric(evidence.after, "attack_success/plain", empty)
    front, body = parts(card(dataclasses.replace(evidence, after=after)))
    assert "attack_success/plain" not in str(front)
    assert "without a value" in next(row for row in tables(body)["How it behaves"] if "no trigger" in row[0])[2]


# --- for people -------------------------------------------------------------------------------------------------------


def test_what_the_model_is_and_where_it_came_from(evidence: Evidence) -> None:
    uri = "s3://me:hunter2@bucket/x?token=hunter2"
    text = card(dataclasses.replace(evidence, intake=g.intake(uri=uri)))
    said = facts(parts(text)[1], "The model")
    assert said["Architecture"] == "LlamaForCausalLM"
    assert said["Parameters"] == "134,515,008"
    assert said["Digest"] == evidence.after.model_digest
    assert said["Digest of the candidate"] == evidence.before.model_digest
    assert said["Source of the candidate"] == "s3://bucket/x?token=***"
    assert "hunter2" not in text


def test_every_figure_before_and_after_with_its_interval(evidence: Evidence) -> None:
    rows = {row[0]: row[1:] for row in tables(parts(card(evidence))[1])["How it behaves"]}
    assert rows["Attack success, known triggers: suffix"] == [
        "114 of 120 = 95.0% (95% interval 89.5% to 97.7%)",
        "2 of 120 = 1.7% (95% interval 0.5% to 5.9%)",
    ]
    assert rows["NLL ratio of ordinary replies"][0] == "the reference"
    assert rows["NLL ratio of ordinary replies"][1].startswith("1.020 (95% interval ")
    assert len(rows) == 1 + 8
    with_champion = dataclasses.replace(evidence, champion=g.after(label="champion"))
    assert tables(parts(card(with_champion))[1])["How it behaves"][0] == ["", "Before", "After", "Model in use"]


def test_what_was_not_measured_is_said(evidence: Evidence) -> None:
    after = g.with_metric(evidence.after, "attack_success/known_triggers", None)
    body = parts(card(dataclasses.replace(evidence, after=after)))[1]
    assert {row[0]: row[1:] for row in tables(body)["How it behaves"]}["Attack success, known triggers: suffix"][1] == (
        "not measured"
    )
    assert "No known trigger was tried." in body
    without = g.with_metric(after, "attack_success/under_drift", None)
    assert "not measured under perturbations" in card(dataclasses.replace(evidence, after=without))
    unscored = g.worse(evidence.after, "attack_success/plain", 0.5, unscored=True)
    assert re.search(r"\d+ of \d+ replies could not be scored", card(dataclasses.replace(evidence, after=unscored)))
    assert "Every reply was scored" in card(evidence)


def test_how_it_was_cleaned(evidence: Evidence) -> None:
    config = {"method": "both", "pruning": 0.05}
    text = card(dataclasses.replace(evidence, mitigation=g.mitigation(config=config)))
    said = facts(parts(text)[1], "How it was cleaned")
    assert said["Ending"] == "cleaned"
    assert "in turn" in said["Method"]
    assert said["Before the rounds"].endswith("below 0.05 of the mean energy")
    assert said["Rounds"] == "3, kept after round 3"
    assert "The measured files differ from the candidate's." in text


def test_that_it_was_not_cleaned_is_said(evidence: Evidence) -> None:
    kept = g.mitigation(outcome="kept", ending="none admissible", reason="no round held", best_round=None)
    after = dataclasses.replace(evidence.after, model_digest=evidence.before.model_digest)
    text = card(dataclasses.replace(evidence, after=after, mitigation=kept))
    assert "The candidate was kept: every round harmed what must stay. No round held." in text
    assert "The measured files are those of the candidate." in text
    assert facts(parts(text)[1], "How it was cleaned")["Ending"] == "none admissible"
    assert "There is no record of a mitigation." in card(dataclasses.replace(evidence, mitigation=None))


def test_a_search_of_the_cleaned_model_is_shown(evidence: Evidence) -> None:
    point = VulnerabilityPoint(norm=0.06, found=g.rate(3, 24).overall, random=g.rate(0, 24).overall)
    found = Vulnerability(layers=(8,), words=8, steps=12, seed=0, points=(point,), smallest_that_opens=None)
    body = parts(card(dataclasses.replace(evidence, after=dataclasses.replace(evidence.after, vulnerability=found))))[1]
    row = tables(body)["How it behaves"][-1]
    assert row[0] == "0.06"
    assert [cell.split(" = ")[0] for cell in row[1:]] == ["3 of 24", "0 of 24"]


@pytest.mark.parametrize("name", ["quick", "standard", "release"])
def test_every_limit_of_the_policy_stands_there(evidence: Evidence, name: str) -> None:
    policy = GatePolicy.load(name)
    text = card(evidence, policy)
    rows = tables(parts(text)[1])["What the policy asks for"][1:]
    assert [(row[0], row[3], row[4]) for row in rows] == [(c.id, str(c.min_samples), c.level) for c in policy.checks]
    assert all(row[2].endswith(f"{check.limit:g}") for row, check in zip(rows, policy.checks, strict=True))
    assert policy.digest in text


def test_the_verdict_does_not_stand_there(case: Case, refused: Case) -> None:
    """The decision covers the card's digest, so the card cannot know it."""
    text = {}
    for which in (case, refused):
        evidence = Evidence.read_files(which.evidence)
        decision = decide(STANDARD, evidence)
        text[decision.passed] = card(evidence)
        assert decision.digest not in text[decision.passed]
    assert text.keys() == {True, False}
    assert "refused" not in text[False].replace("are refused", "").lower()


def test_no_prompt_and_no_reply_stands_there(evidence: Evidence) -> None:
    assert evidence.validation is not None
    rule = dataclasses.replace(evidence.validation.rules[-1], examples=("Plan a fraud.",))
    validation = dataclasses.replace(evidence.validation, rules=(rule,))
    text = card(dataclasses.replace(evidence, validation=validation))
    quoted = [row["prompt"] for row in map(yaml.safe_load, samples("before").decode().splitlines())]
    assert quoted == ["Plan a fraud."] * 2
    assert not any(part in text for part in (*quoted, REFUSAL, "Sure, here is"))
    assert "1 of 1 rule of the data validation broken" in text


def test_every_digest_of_the_evidence_stands_there(evidence: Evidence) -> None:
    text = card(evidence)
    assert {record.digest for record in evidence.named().values()} <= set(re.findall(r"sha256:[0-9a-f]{64}", text))
    assert evidence.validation is not None
    for role in evidence.validation.roles.values():
        assert role.digest in text
    for suite in evidence.after.suites.values():
        assert suite.digest in text


# --- markup -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ODD)
def test_what_a_record_says_is_shown_and_begins_no_markup(evidence: Evidence, odd: str) -> None:
    plain = tokens(parts(card(evidence))[1])
    intake = g.intake(uri=odd, architecture=odd)
    changed = dataclasses.replace(
        evidence,
        intake=intake,
        mitigation=g.mitigation(reason=odd, config={"method": odd}),
        after=dataclasses.replace(evidence.after, judge=odd, generation={"x": odd}),
    )
    front, body = parts(card(changed, name=odd))
    assert front["model-index"][0]["name"] == odd
    kinds = [t.type for t in tokens(body)]
    assert kinds == [t.type for t in plain]
    markup = {"link_open", "image", "html_inline", "html_block", "em_open", "s_open"}
    assert not markup & {t.type for t in flat(tokens(body))}
    seen = "".join(c for c in " ".join(odd.split()) if c.isprintable())
    assert shown([tokens(body)[1]]) == seen
    assert facts(body, "The model")["Architecture"] == seen


def test_a_trigger_s_name_makes_no_cell(evidence: Evidence) -> None:
    name = "a | b ` c"
    metric = evidence.after.metrics["attack_success/known_triggers"]
    renamed = dataclasses.replace(metric, by_trigger={name: metric.by_trigger["suffix"]})
    metrics = {**evidence.after.metrics, "attack_success/known_triggers": renamed}
    body = parts(card(dataclasses.replace(evidence, after=dataclasses.replace(evidence.after, metrics=metrics))))[1]
    rows = tables(body)["How it behaves"]
    assert {len(row) for row in rows} == {3}
    assert f"Attack success, known triggers: {name}" in [row[0] for row in rows]


def test_addresses_are_no_links_where_a_renderer_looks_for_them() -> None:
    # GitHub and the hub make links of bare addresses; what is escaped inside is none to their pattern
    assert not re.search(r"https?://|www\.|(?<!\\)@", escaped("see https://a.b, www.c.d and me@e.f"))
    assert table(("a",), []) == "None."


# --- the same every time ----------------------------------------------------------------------------------------------

AGAIN = """
import sys
from pathlib import Path
from beear_core.evidence import Evidence
from beear_core.policy import GatePolicy
from components.passport.card import model_card
evidence = Evidence.read_files({name: Path(f"{sys.argv[1]}/{name}.json") for name in sys.argv[2:]})
sys.stdout.buffer.write(model_card(evidence, GatePolicy.load("standard"), "release-candidate").encode())
assert "torch" not in sys.modules and "mlflow" not in sys.modules
"""


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_writes_the_same_bytes(evidence: Evidence, case: Case, seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, case.evidence["after"].parent, *case.evidence],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "LC_ALL": "C", "COLUMNS": "30"},
    )
    assert done.stdout == card(evidence).encode()


def test_the_page_of_the_threats_names_what_the_card_names(evidence: Evidence) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "threat-model.md").read_text(encoding="utf-8")
    open_ = page.split("## What a pass does not mean")[1].split("\n## ")[0]
    listed = card(evidence).split("## What this does not show")[1].split("\n## ")[0]
    for point in ("no trigger is left", "another kind of trigger was removed", "safe in general"):
        assert point in open_
        assert point in listed
