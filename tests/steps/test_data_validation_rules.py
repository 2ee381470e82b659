"""Each rule about the data is broken alone, and what broke it is named."""

from collections.abc import Callable

import pytest
from validation_data import Data, good_data, one_category, replies, triggers

from beear_core.data import Row
from beear_core.records import RuleResult
from components.data_validation.columns import frames, shingles, similarity
from components.data_validation.expectations import judge


def broken(data: Data) -> list[tuple[str, str, str]]:
    rules, _ = judge(frames(data))
    return [(r.rule, r.role, r.severity) for r in rules if not r.passed]


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
