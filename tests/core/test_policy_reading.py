"""A policy is read or refused with every fault it has, and one that could not pass or could not fail is told."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from policy_cases import ATTACK, STANDARD, check, policy

from beear_core.config import PROFILES, EvaluationConfig
from beear_core.errors import PolicyError
from beear_core.evaluation.metrics import METRICS, UNDER_DRIFT
from beear_core.policy import SHIPPED, GatePolicy, feasibility_faults, shipped_policies

# --- reading a policy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quick", "standard", "release"])
def test_shipped_policies_can_pass_and_can_fail_at_their_profile(name: str) -> None:
    evaluation = dataclasses.asdict(EvaluationConfig()) | PROFILES[name].get("evaluation", {})
    loaded = GatePolicy.load(name)
    assert name in shipped_policies()
    assert loaded.name == name
    assert feasibility_faults(loaded, evaluation) == []
    assert {c.metric for c in loaded.checks} == set(METRICS)
    fewer = {key: evaluation[key] // 3 for key in ("harmful", "ordinary", "borderline")}
    assert any("cannot pass" in fault for fault in feasibility_faults(loaded, fewer))


def test_a_policy_that_is_nowhere_names_the_shipped_ones() -> None:
    with pytest.raises(PolicyError, match=r"no policy 'strict': .* shipped policies quick, release, standard"):
        GatePolicy.load("strict")


def test_a_policy_is_read_from_a_file_and_its_digest_ignores_layout(tmp_path: Path) -> None:
    source = SHIPPED / "standard.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text("# a comment\n" + source.read_text())
    assert GatePolicy.load(path).digest == STANDARD.digest
    path.write_text(source.read_text().replace("at_most: 0.05", "at_most: 0.04", 1))
    assert GatePolicy.load(str(path)).digest != STANDARD.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checks: [", "is not YAML that can be read"),
        ("- a", "the top level must be a mapping"),
        ("1: a", "1: unknown key; known are schema_version"),
        ("", "the top level must be a mapping"),
        ("name: a\nname: b", "the key 'name' is given twice"),
        ("? [a, b]\n: c", "a key is no word"),
        ("name: !!python/object/apply:os.system [ls]", "is not YAML that can be read"),
    ],
)
def test_text_that_is_no_policy(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        GatePolicy.parse(text)


def test_a_file_that_cannot_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(PolicyError, match="cannot read the policy"):
        GatePolicy.load(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "attack/plain"}, r"metric 'attack/plain' is unknown; the known ones are attack_success/plain, "),
        ({"at_least": 0.1}, "both at_most and at_least given; give exactly one of the two"),
        ({"at_most": None}, "neither at_most nor at_least given; give exactly one of the two"),
        ({"at_most": 5}, "at_most is 5, but a rate lies between 0 and 1; write 0.05 for 5%"),
        ({"at_most": -0.1}, "at_most is -0.1, but a rate lies between 0 and 1"),
        ({"at_most": "0.05"}, r"check 'attack' at_most: Input should be a valid number \(given: '0.05'\)"),
        ({"at_most": math.nan}, "check 'attack' at_most: Input should be a finite number"),
        ({"missing": "skip"}, "missing: skip is only for what may be absent .* attack_success/plain must be measured"),
        ({"min_samples": 0}, "check 'attack' min_samples: Input should be greater than or equal to 1"),
        ({"min_samples": None}, "check 'attack' min_samples: Field required"),
        ({"max_unscored": 1.0}, "check 'attack' max_unscored: Input should be less than 1"),
        ({"reason": ""}, "check 'attack' reason: String should have at least 1 character"),
        ({"reason": None}, "check 'attack' reason: Field required"),
        ({"id": "evidence/x"}, "String should match pattern"),
        ({"bound": "middle"}, "bound: Input should be 'value', 'upper' or 'lower'"),
        ({"metric": UNDER_DRIFT, "versus": "champion"}, "perturbations are found anew on every candidate"),
        (
            {"metric": "nll_ratio/ordinary", "versus": "champion"},
            "each model's is measured against the candidate that it was made from; use versus: absolute",
        ),
        ({"versus": "yesterday"}, "versus: Input should be 'absolute', 'before' or 'champion'"),
        ({"limt": 0.1}, "check 'attack' limt: unknown key; known are id, metric, category, at_most"),
        ({"level": "soft"}, "no check has level hard, so nothing could ever be refused"),
        (
            {"metric": ATTACK, "missing": "skip"},
            "every hard check may be skipped, so nothing need be measured",
        ),
    ],
)
def test_each_fault_of_a_check_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        policy(check(**changes))
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, r"schema_version: Input should be 1 \(given: 2\)"),
        ({"confidence": 0.3}, "confidence: Input should be greater than or equal to 0.5"),
        ({"owner": "me"}, "owner: unknown key; known are schema_version, name, description, confidence, checks"),
        ({"checks": []}, "no check has level hard"),
        ({"checks": "none"}, "checks: Input should be a valid array"),
        ({"checks": [3]}, "check number 1: Input should be an object"),
        ({"checks": [check(), check(metric="nll_ratio/ordinary")]}, "check id 'attack' is used 2 times"),
    ],
)
def test_each_fault_of_the_policy_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy(check(), **changes)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        policy(check(metric="x", bogus=1), check(at_most=7, min_samples=0), schema_version=3, name="")
    told = str(caught.value)
    for part in (
        "metric 'x'",
        "bogus: unknown key",
        "at_most is 7",
        "min_samples",
        "schema_version",
        "name:",
        "used 2 times",
    ):
        assert part in told
    assert told.startswith("policy has 7 faults:")
    assert caught.value.exit_code == 2


def test_a_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        STANDARD.checks[0].at_most = 1.0  # type: ignore[misc]


def test_a_policy_cannot_decide_on_pooled_categories_alone() -> None:
    pooled = check(id="pooled", metric=ATTACK, category="fraud")
    with pytest.raises(PolicyError, match="is only decided on by category, where triggers are pooled; add a hard check"):
        policy(check(), pooled)
    assert policy(check(), pooled, check(id="each", metric=ATTACK))
    assert policy(check(), {**pooled, "level": "advisory"})


# --- feasibility --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "n", "message"),
    [
        (
            {"bound": "upper"},
            60,
            r"check 'attack' \(attack_success/plain\) cannot pass at n=60: with 0 of 60 the upper bound is 6.02%, "
            "the limit is 5%; 73 samples would do",
        ),
        ({"bound": "upper", "at_most": 0}, 60, "cannot pass at n=60: .* no number of samples would do"),
        ({"min_samples": 61}, 60, "cannot pass: it asks for 61 samples, the harmful suite has 60"),
        ({"bound": "upper", "versus": "before"}, 60, "and a 'before' rate that leaves no room"),
        ({"at_most": None, "at_least": 0.97, "bound": "lower"}, 60, "with all of 60 the lower bound is 93.98%"),
        ({"at_most": 1}, 60, "cannot fail: its value never exceeds 100%; lower at_most"),
        ({"at_most": 1, "bound": "upper"}, 100, "cannot fail: its upper never exceeds 100%"),
        ({"at_most": 0.95, "bound": "lower"}, 60, "cannot fail: its lower never exceeds 95%"),
        ({"at_most": 1, "versus": "before"}, 60, "cannot fail: its value never exceeds 100 points"),
        ({"at_most": None, "at_least": 0}, 60, "cannot fail: its value is never below 0%; raise at_least"),
        (
            {"at_most": None, "at_least": -1, "versus": "before"},
            60,
            "cannot fail: its value is never below -100 points",
        ),
        (
            {"metric": "nll_ratio/ordinary", "versus": "before", "at_most": 0.1},
            60,
            "cannot pass: the model before is the reference itself",
        ),
        ({"metric": "nll_ratio/ordinary", "at_most": -1}, 60, "cannot pass: no ratio is below 0, the limit is -1"),
        (
            {"metric": "token_kl/ordinary", "at_most": None, "at_least": 0},
            60,
            "cannot fail: its value is never below 0",
        ),
    ],
)
def test_what_cannot_pass_or_cannot_fail_is_told(changes: dict[str, Any], n: int, message: str) -> None:
    faults = feasibility_faults(policy(check(**changes)), {"harmful": n, "ordinary": n, "borderline": n})
    assert len(faults) == 1
    assert re.search(message, faults[0])


def test_one_sample_more_makes_it_feasible() -> None:
    p = policy(check(bound="upper"))
    assert feasibility_faults(p, {"harmful": 72}) != []
    assert feasibility_faults(p, {"harmful": 73}) == []


def test_suites_that_are_not_given_are_not_looked_at() -> None:
    assert feasibility_faults(policy(check(bound="upper")), {}) == []


def test_contradictions_are_told() -> None:
    low = check(id="low", at_most=None, at_least=0.1)
    assert "'low' and 'attack' contradict each other" in feasibility_faults(policy(check(), low), {})[0]
    apart = check(id="low", at_most=None, at_least=0.1, bound="upper")  # value ≤ 5% while upper ≥ 10% can be
    assert feasibility_faults(policy(check(), apart), {}) == []
    assert feasibility_faults(policy(check(), check(id="low", at_most=None, at_least=0.04)), {}) == []
