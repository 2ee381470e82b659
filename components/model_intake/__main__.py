"""Take a model over on files: ``python -m components.model_intake --model s3://bucket/prefix --out runs/candidate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beear_core.errors import EXIT_DONE, BeearError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step; prints the record as JSON and returns 0, 1 (error) or 2 (usage, or nothing at that place)."""
    parser = argparse.ArgumentParser(
        prog="python -m components.model_intake",
        description="Fetch a model, refuse what is unsafe or broken, and record it by its digest.",
        epilog="Exit codes: 0 taken over, 1 error, 2 usage or configuration, or nothing at the place that was named.",
    )
    parser.add_argument(
        "--model",
        required=True,
        help="folder, file://, s3://bucket/prefix, models:/name@alias, models:/name/3 or hub:org/name",
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the model")
    parser.add_argument("--expected-digest", default="", help="refuse any other model than the one with this digest")
    parser.add_argument("--record", type=Path, help="also write the record to this file")
    given = parser.parse_args(arguments)
    # loaded here so that --help answers at once
    from components.model_intake.step import run

    try:
        record = run(given.model, given.out, expected_digest=given.expected_digest)
        if given.record:
            record.write(given.record)
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    sys.stdout.write(record.to_json().decode())
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
