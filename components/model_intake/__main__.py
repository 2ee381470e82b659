"""Take a model over on files: ``python -m components.model_intake --model s3://bucket/prefix --out runs/candidate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beear_core.wording import bytes_text
from components.command import JsonOption, RecordOption, print_facts, print_json, start_step


def intake(
    model: Annotated[
        str, typer.Option(help="folder, file://, s3://bucket/prefix, models:/name@alias, models:/name/3 or hub:org/name")
    ],
    out: Annotated[Path, typer.Option(help="new folder for the model")],
    expected_digest: Annotated[str, typer.Option(help="refuse any other model than the one with this digest")] = "",
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model, refuse what is unsafe or broken, and record it by its digest.

    Exit codes: 0 taken over, 1 error, 2 usage or configuration, or nothing at the place that was named.
    """
    # loaded here so that --help answers at once
    from components.model_intake.step import run

    taken = run(model, out, expected_digest=expected_digest)
    if record:
        taken.write(record)
    if as_json:
        print_json(taken)
    else:
        size = f"{taken.parameters:,} parameters, {taken.layers} layers, {bytes_text(taken.size_bytes)}"
        print_facts(("model", out), ("digest", taken.model_digest), (taken.architecture, size))


if __name__ == "__main__":
    start_step(intake, "model_intake")
