"""Validate data on files: ``python -m components.data_validation --config release.yaml --out runs/data``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beear_core.errors import EXIT_DONE, EXIT_REFUSED, BeearError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step; prints the record as JSON and returns 0, 1 (error), 2 (usage) or 3 (a critical rule failed)."""
    parser = argparse.ArgumentParser(
        prog="python -m components.data_validation",
        description="Validate prompts, openings and triggers, and write the anchors/ and suites/ folders.",
        epilog="Exit codes: 0 the data is fit for use, 1 error, 2 usage or configuration, 3 a critical rule failed.",
    )
    parser.add_argument("--config", type=Path, help="YAML file; its section 'data' is used (default: built-in data)")
    parser.add_argument("--out", type=Path, required=True, help="folder for anchors/, suites/, page and results")
    given = parser.parse_args(arguments)
    try:
        return _run(given.config, given.out)
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _run(config: Path | None, out: Path) -> int:
    # loaded here so that --help answers at once
    from beear_core.config import DataConfig, parse, read_yaml
    from components.data_validation.step import failures, run

    values = read_yaml(config).get("data") or {} if config else {}
    if not isinstance(values, dict):
        values = {"data": values}
    data = parse(DataConfig, values, f"{config}, section data" if config else "the configuration")
    record = run(data, out / "anchors", out / "suites", out / "data_validation.html", out / "great_expectations.json")
    record.write(out / "validation.json")
    sys.stdout.write(record.to_json().decode())
    for line in failures(record):
        print(f"critical: {line}", file=sys.stderr)  # noqa: T201
    return EXIT_DONE if record.passed else EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
