"""What each role's rows must be like, as Great Expectations suites, and the run that judges them.

A rule is one expectation; its name and sentence travel in the expectation's ``meta``. ``critical`` rules stop the
release, ``warning`` rules are reported: Great Expectations counts a failed warning as a failed run, so the verdict is
taken from the severity of each result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beear_core.data import ROLES, SPLITS
from beear_core.errors import DataError
from beear_core.records import RuleResult
from components.data_validation.results import LONGEST_ID, plain_results, rule_result


@dataclass(frozen=True)
class Limits:
    """What a role needs. ``rows``: fewest rows by split; ``categories``: fewest of them; ``characters``: of a text."""

    rows: Mapping[str, int]
    categories: int = 1
    characters: tuple[int, int] = (8, 4000)


# 30 evaluated: even if none of 30 fails, the 95 % bound stands at 11.6 %, and with fewer nothing useful can be shown.
# 32 anchors: the mitigation keeps 24 back to measure on.
LIMITS: dict[str, Limits] = {
    "harmful": Limits({"anchoring": 32, "evaluation": 30}, categories=3),
    "ordinary": Limits({"anchoring": 32, "evaluation": 30}, categories=3),
    "borderline": Limits({"anchoring": 8, "evaluation": 30}, categories=3),
    "safe_openings": Limits({"anchoring": 5}, characters=(4, 1000)),
    "unwanted_openings": Limits({"anchoring": 5}, characters=(4, 1000)),
    "performance_replies": Limits({"anchoring": 32}, characters=(1, 8000)),
    "triggers": Limits({}, characters=(1, 4000)),
}


def expectations_for(role: str) -> list[Any]:
    """List the expectations of a role, each with ``severity`` and ``meta`` (``rule``, ``detail``)."""
    rules = [*_shape(role), *_texts(role), *_duplicates(role)]
    if "split" in ROLES[role].optional:
        rules += _splits(role)
    return rules + _replies(role)


def judge(tables: Mapping[str, Any]) -> tuple[tuple[RuleResult, ...], dict[str, Any]]:
    """Run every role's suite over its table (see ``columns.frames``).

    Returns:
        One result a rule, in the order of the rules, and Great Expectations' own results by role as plain JSON values;
        neither holds the text of a row.

    Raises:
        DataError: if a rule got no result, so that nothing can be said about it.
    """
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("roles")
    results: list[RuleResult] = []
    raw: dict[str, Any] = {}
    for role, table in tables.items():
        suite = context.suites.add(gx.ExpectationSuite(name=role, expectations=expectations_for(role)))
        batch = source.add_dataframe_asset(role).add_batch_definition_whole_dataframe("whole")
        validation = context.validation_definitions.add(gx.ValidationDefinition(name=role, data=batch, suite=suite))
        # rows are named by position, never by value: results are shared, requests are not
        checkpoint = gx.Checkpoint(
            name=role,
            validation_definitions=[validation],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["row"],
                "exclude_unexpected_values": True,
            },
        )
        outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})
        (run,) = outcome.run_results.values()
        raw[role] = plain_results(run)
        by_rule = {r.expectation_config.meta["rule"]: r for r in run.results}
        for expectation in expectations_for(role):
            name = expectation.meta["rule"]
            if name not in by_rule:
                raise DataError(f"rule {name} on {role} was not judged; check the installed great-expectations version")
            results.append(rule_result(role, by_rule[name], table))
    return tuple(results), raw


def _great_expectations() -> Any:
    # it reports its use over the network unless told not to before it is imported
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    import great_expectations

    return great_expectations


def _gxe() -> Any:
    _great_expectations()
    from great_expectations import expectations

    return expectations


def _in_split(split: str) -> Any:
    _great_expectations()
    from great_expectations.expectations.row_conditions import Column

    return Column("split") == split


def _rule(kind: str, rule: str, detail: str, severity: str = "critical", **arguments: Any) -> Any:
    return getattr(_gxe(), kind)(severity=severity, meta={"rule": rule, "detail": detail}, **arguments)


def _shape(role: str) -> list[Any]:
    required = ROLES[role].required
    return [
        _rule(
            "ExpectTableColumnsToMatchSet",
            "columns",
            f"The columns {', '.join(required)} are there.",
            column_set=list(required),
            exact_match=False,
        ),
        *(
            _rule("ExpectColumnValuesToBeOfType", f"{name}_is_text", f"Each {name} is text.", column=name, type_="str")
            for name in required
        ),
        _rule("ExpectColumnValuesToBeUnique", "unique_ids", "Each id stands once.", column="id"),
        _rule(
            "ExpectColumnValuesToMatchRegex",
            "ids_not_blank",
            f"Ids are not blank and have at most {LONGEST_ID} characters.",
            column="id",
            regex=rf"^(?=.*\S).{{1,{LONGEST_ID}}}$",
        ),
    ]


def _texts(role: str) -> list[Any]:
    low, high = LIMITS[role].characters
    texts = [name for name in ROLES[role].required if name in {"prompt", "reply"}] or ["text"]
    rules = [
        _rule("ExpectColumnValuesToMatchRegex", f"{name}_not_blank", f"No {name} is blank.", column=name, regex=r"\S")
        for name in texts
    ]
    rules += [
        _rule(
            "ExpectColumnValueLengthsToBeBetween",
            f"{name}_length",
            f"Each {name} has {low} to {high} characters.",
            column=name,
            min_value=low,
            max_value=high,
        )
        for name in texts
    ]
    return rules


def _duplicates(role: str) -> list[Any]:
    rules = [
        _rule(
            "ExpectColumnValuesToBeUnique",
            "no_exact_duplicates",
            "No text stands twice, case and white space aside.",
            column="normalised",
        )
    ]
    if role == "triggers":
        return rules
    rules += [
        _rule(
            "ExpectColumnValuesToBeNull",
            "no_near_duplicates_within_splits",
            "No text repeats an earlier one of its split almost word for word.",
            "warning",
            column="near_within",
        ),
        _rule(
            "ExpectColumnValuesToBeNull",
            "no_near_duplicates_between_splits",
            "No text repeats one of another split almost word for word.",
            column="near_between",
        ),
    ]
    if "evaluation" in LIMITS[role].rows:
        rules.append(
            _rule(
                "ExpectColumnValuesToBeNull",
                "no_leak_into_anchors",
                "No evaluation request stands among the anchors of another role.",
                column="leaked",
                row_condition=_in_split("evaluation"),
            )
        )
    return rules


def _splits(role: str) -> list[Any]:
    limits = LIMITS[role]
    rules = [
        _rule(
            "ExpectColumnValuesToBeInSet",
            "known_splits",
            f"Each split is {', '.join(SPLITS[:-1])} or {SPLITS[-1]}.",
            column="split",
            value_set=list(SPLITS),
        ),
        _rule(
            "ExpectColumnValuesToMatchRegex",
            "category_not_blank",
            "No category is blank.",
            column="category",
            regex=r"\S",
        ),
    ]
    rules += [
        _rule(
            "ExpectTableRowCountToBeBetween",
            f"enough_{split}_rows",
            f"At least {count} rows are in split {split}.",
            min_value=count,
            row_condition=_in_split(split),
        )
        for split, count in limits.rows.items()
    ]
    if limits.categories > 1:
        rules.append(
            _rule(
                "ExpectColumnUniqueValueCountToBeBetween",
                "enough_categories",
                f"At least {limits.categories} categories are covered.",
                "warning",
                column="category",
                min_value=limits.categories,
            )
        )
    return rules


def _replies(role: str) -> list[Any]:
    complies = "Each unwanted opening is scored as going along: it neither refuses nor is it beyond scoring."
    wanted = {
        "safe_openings": ("openings_refuse", "Each safe opening is scored as a refusal.", ["safe"], "critical"),
        "unwanted_openings": ("openings_comply", complies, ["harmful"], "critical"),
        # "7" is a good answer, and beyond scoring
        "performance_replies": (
            "replies_comply",
            "No reply to hold on to is scored as a refusal.",
            ["harmful", "unscored"],
            "warning",
        ),
    }
    if role in wanted:
        rule, detail, values, severity = wanted[role]
        return [
            _rule("ExpectColumnValuesToBeInSet", rule, detail, severity, column="verdict", value_set=values),
        ]
    if "reply" in ROLES[role].optional:
        detail = "Where a reply is given it is not blank."
        return [_rule("ExpectColumnValuesToMatchRegex", "reply_not_blank", detail, column="reply", regex=r"\S")]
    return []
