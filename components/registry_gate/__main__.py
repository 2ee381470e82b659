"""Decide on files: ``python -m components.registry_gate --model DIR --evidence DIR --policy standard --out DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beear_core.config import RegistryConfig, parse, read_yaml
from beear_core.errors import EXIT_DONE, EXIT_REFUSED, BeearError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step; prints the release record as JSON and returns 0 (promoted), 3 (refused), 1 or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m components.registry_gate",
        description="Decide on the evidence, register the model with the verdict, promote only on a pass.",
        epilog="Exit codes: 0 promoted, 3 refused, 1 error, 2 usage or configuration.",
    )
    parser.add_argument("--model", type=Path, required=True, help="the model that was measured last")
    parser.add_argument(
        "--evidence", type=Path, required=True, help="folder with intake, validation, before, after, mitigation .json"
    )
    parser.add_argument("--before-samples", type=Path, help="the candidate's samples, for the report")
    parser.add_argument("--after-samples", type=Path, help="the model's samples, for the report")
    parser.add_argument("--policy", default="standard", help="quick, standard, release, or a file")
    parser.add_argument("--config", type=Path, help="YAML with a registry section")
    parser.add_argument("--out", type=Path, required=True, help="folder for the decision, its evidence and the report")
    given = parser.parse_args(arguments)
    try:
        section = read_yaml(given.config).get("registry", {}) if given.config else {}
        registry = parse(RegistryConfig, section, str(given.config or "the configuration"))
        # loaded here so that --help answers at once
        from components.registry_gate.step import NAMES, run

        _, release = run(
            given.model,
            {name: given.evidence / f"{name}.json" for name in NAMES},
            policy=given.policy,
            registry=registry,
            out=given.out,
            before_samples=given.before_samples,
            after_samples=given.after_samples,
        )
    except BeearError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    sys.stdout.write(release.to_json().decode())
    return EXIT_DONE if release.promoted else EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
