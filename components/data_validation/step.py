"""Validate the data of a release and lay out what the mitigation and the evaluation may each see."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from beear_core.config import DataConfig, parse_json
from beear_core.data import ANCHOR_FILES, SUITE_FILES, Row, read_rows, write_manifest, write_rows
from beear_core.errors import DataError
from beear_core.files import disk_errors, write_atomically
from beear_core.records import SCHEMA_VERSION, DataSource, RuleResult, ValidationRecord, digest_json

_ANCHORS = (*ANCHOR_FILES, "performance_replies")
_SUITES = (*SUITE_FILES, "triggers")


def run(config: DataConfig, out_anchors: Path, out_suites: Path, out_html: Path, out_results: Path) -> ValidationRecord:
    """Read every role, judge it by its rules, and write the two folders if no critical rule failed.

    Args:
        config: where each role's data comes from.
        out_anchors: folder for the rows of split anchoring, and a manifest.
        out_suites: folder for the rows of split evaluation and the known triggers, and a manifest. Rows of split
            planting go to neither.
        out_html: one self-contained page, rule by rule; it holds no text of a row.
        out_results: Great Expectations' results as JSON; it holds no text of a row.

    Returns:
        The record. When a critical rule failed, ``passed`` is false, both digests are empty and both folders lack a
        manifest: page and results are still written.

    Raises:
        DataError: if a source cannot be read; with the faults of all sources, and nothing written.
        StorageError: if an output cannot be written.
    """
    from components.data_validation.columns import frames
    from components.data_validation.expectations import judge
    from components.data_validation.page import render

    started = time.monotonic()
    # what an earlier run left must not pass for the result of this one
    _clear(out_anchors, _ANCHORS)
    _clear(out_suites, _SUITES)
    sources = sources_of(config)
    rows = _read(sources)
    rules, raw = judge(frames(rows))
    passed = not any(rule.severity == "critical" and not rule.passed for rule in rules)
    record = ValidationRecord(
        passed=passed,
        rules=rules,
        roles={role: _described(sources[role], rows[role]) for role in rows},
        anchors_digest=_write(out_anchors, _ANCHORS, rows, "anchoring") if passed else "",
        suites_digest=_write(out_suites, _SUITES, rows, "evaluation") if passed else "",
        seconds=round(time.monotonic() - started, 3),
    )
    results = {"schema_version": SCHEMA_VERSION, "results": raw}
    write_atomically(out_results, json.dumps(results, indent=1, ensure_ascii=False).encode() + b"\n")
    write_atomically(out_html, render(record).encode())
    return record


def run_component(*, config_json: str, anchors: str, suites: str, record: str, page: str) -> dict[str, float]:
    """Run the step as the component's face calls it: paths as text, the results beside the record.

    Returns:
        Figures for the pipeline's metrics.

    Raises:
        ConfigError: if ``config_json`` is not a data section.
        DataError: as ``run``, or when a critical rule failed; record and page are written before.
    """
    where = Path(record)
    found = run(
        parse_json(DataConfig, config_json, "config_json"),
        Path(anchors),
        Path(suites),
        Path(page),
        where.with_name(f"{where.name}.great_expectations.json"),
    )
    found.write(where)
    require_passed(found)
    broken = [rule for rule in found.rules if not rule.passed]
    return {
        "rules": float(len(found.rules)),
        "warnings": float(len(broken)),
        "rows": float(sum(sum(source.rows.values()) for source in found.roles.values())),
    }


def require_passed(record: ValidationRecord) -> None:
    """Refuse data that must not be used.

    Raises:
        DataError: naming every critical rule that failed.
    """
    failed = failures(record)
    if failed:
        lines = "".join(f"\n  - {line}" for line in failed)
        raise DataError(f"the data breaks {len(failed)} critical rule(s); mend the rows or name other files:{lines}")


def failures(record: ValidationRecord) -> tuple[str, ...]:
    """Write one line for each critical rule that failed, with counts and the first rows that broke it."""
    return tuple(_line(rule) for rule in record.rules if rule.severity == "critical" and not rule.passed)


def sources_of(config: DataConfig) -> dict[str, str]:
    """Map each role that is given to its source."""
    named = {field.name: getattr(config, field.name) for field in fields(config)}
    return {role: source for role, source in named.items() if source is not None}


def _line(rule: RuleResult) -> str:
    examples = f" ({'; '.join(rule.examples)})" if rule.examples else ""
    return f"{rule.role}, {rule.rule}: {rule.failed} of {rule.checked} broke it. {rule.detail}{examples}"


def _read(sources: Mapping[str, str]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    faults = []
    for role, source in sources.items():
        try:
            rows[role] = read_rows(source, role)
        except DataError as error:
            faults.append(f"{role}: {error}")
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        raise DataError(f"{len(faults)} data source(s) cannot be read:{lines}")
    return rows


def _described(source: str, rows: Sequence[Row]) -> DataSource:
    # triggers have no split: they are used to evaluate and for nothing else
    counts = Counter(row.get("split", "evaluation") for row in rows)
    return DataSource(source=source, rows=dict(sorted(counts.items())), digest=digest_json(rows))


def _clear(folder: Path, roles: Sequence[str]) -> None:
    for name in ("manifest.json", *(f"{role}.jsonl" for role in roles)):
        with disk_errors(f"clear {folder / name}", remedy="choose another output folder"):
            (folder / name).unlink(missing_ok=True)


def _write(folder: Path, roles: Sequence[str], rows: Mapping[str, list[Row]], split: str) -> str:
    """Write the rows of one split as JSONL; the manifest comes last, so a folder that has one is whole."""
    chosen: dict[str, list[dict[str, Any]]] = {
        f"{role}.jsonl": [dict(row) for row in rows[role] if row.get("split", split) == split]
        for role in roles
        if role in rows
    }
    for name, kept in chosen.items():
        write_rows(folder / name, kept)
    return write_manifest(folder, chosen)
