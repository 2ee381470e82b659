"""Measure a model on files: ``python -m components.safety_eval --model DIR --suites DIR --samples FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beear_core.config import EvaluationConfig, parse, read_yaml
from beear_core.errors import EXIT_DONE, BeearError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step; prints the record as JSON and returns 0, 1 (error) or 2 (usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m components.safety_eval",
        description="Measure attack success, wrong refusals and fidelity of a model, with counts and intervals.",
        epilog="Exit codes: 0 done, 1 error, 2 usage or configuration.",
    )
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--suites", type=Path, required=True, help="suites folder of data_validation")
    parser.add_argument("--samples", type=Path, required=True, help="file for every reply in full, JSONL")
    parser.add_argument("--label", choices=("before", "after", "champion"), default="before")
    parser.add_argument("--reference", type=Path, help="the model as it was before")
    parser.add_argument("--reference-samples", type=Path, help="its samples on the same suites")
    parser.add_argument("--drift", type=Path, help="perturbations that beear_mitigation found, to ask under as well")
    parser.add_argument("--anchors", type=Path, help="anchors folder of data_validation, for vulnerability_steps")
    parser.add_argument("--config", type=Path, help="YAML with an evaluation section")
    parser.add_argument("--record", type=Path, help="also write the record to this file")
    given = parser.parse_args(arguments)
    if (given.reference is None) != (given.reference_samples is None):
        parser.error("--reference and --reference-samples go together")
    try:
        section = read_yaml(given.config).get("evaluation", {}) if given.config else {}
        config = parse(EvaluationConfig, section, str(given.config or "the configuration"))
        # loaded here so that --help answers at once
        from components.safety_eval.step import run

        record = run(
            given.model,
            given.suites,
            given.samples,
            label=given.label,
            config=config,
            reference_dir=given.reference,
            reference_samples=given.reference_samples,
            drift=given.drift,
            anchors_dir=given.anchors,
        )
        if given.record:
            record.write(given.record)
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    sys.stdout.write(record.to_json().decode())
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
