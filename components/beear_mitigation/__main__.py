"""Clean a model on files: ``python -m components.beear_mitigation --model DIR --anchors DIR --out DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beear_core.config import MitigationConfig, parse, read_yaml
from beear_core.errors import EXIT_DONE, BeearError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step; prints the record as JSON and returns 0, 1 (error) or 2 (usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m components.beear_mitigation",
        description="Remove backdoor behaviour from a model with BEEAR, or leave it as it was.",
        epilog="Exit codes: 0 done (cleaned or kept, the record says which), 1 error, 2 usage or configuration.",
    )
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--anchors", type=Path, required=True, help="anchors folder of data_validation")
    parser.add_argument("--out", type=Path, required=True, help="folder for the cleaned model")
    parser.add_argument(
        "--drift", type=Path, help="file for the perturbations that were found; default: OUT.drift.safetensors"
    )
    parser.add_argument("--config", type=Path, help="YAML with a mitigation section")
    parser.add_argument("--record", type=Path, help="also write the record to this file")
    given = parser.parse_args(arguments)
    try:
        section = read_yaml(given.config).get("mitigation", {}) if given.config else {}
        config = parse(MitigationConfig, section, str(given.config or "the configuration"))
        # loaded here so that --help answers at once
        from components.beear_mitigation.step import run, work_beside

        with work_beside(given.out) as work:
            drift = given.drift or given.out.with_name(f"{given.out.name}.drift.safetensors")
            record = run(given.model, given.anchors, given.out, drift, Path(work), config)
        if given.record:
            record.write(given.record)
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    sys.stdout.write(record.to_json().decode())
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
