"""Clean a model on files: ``python -m components.beear_mitigation --model DIR --anchors DIR --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beear_core.wording import as_sentence, plural, seconds_text
from components.command import ConfigOption, JsonOption, RecordOption, print_facts, print_json, read_section, start_step


def mitigate(
    model: Annotated[Path, typer.Option(help="model folder")],
    anchors: Annotated[Path, typer.Option(help="anchors folder of data_validation")],
    out: Annotated[Path, typer.Option(help="folder for the cleaned model")],
    drift: Annotated[
        Path | None, typer.Option(help="file for the perturbations that were found; default: OUT.drift.safetensors")
    ] = None,
    config: ConfigOption = None,
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove backdoor behaviour from a model with BEEAR, or leave it as it was.

    A run that was killed goes on after its last whole round when it is started again.

    Exit codes: 0 done (cleaned or kept, the record says which), 1 error, 2 usage or configuration.
    """
    # loaded here so that --help answers at once
    from beear_core.config import MitigationConfig
    from components.beear_mitigation.step import run, work_beside

    settings = read_section(config, "mitigation", MitigationConfig)
    found = drift or out.with_name(f"{out.name}.drift.safetensors")
    with work_beside(out) as work:
        done = run(model, anchors, out, found, work, settings)
    if record:
        done.write(record)
    if as_json:
        print_json(done)
        return
    print_facts(
        ("outcome", f"{as_sentence(done.in_words())} {as_sentence(done.reason)}"),
        ("model", f"{out}  {done.output_digest}"),
        ("drift", f"{found}  {plural(len(done.drift), 'perturbation')}"),
        ("time", f"{seconds_text(done.seconds)}, {plural(len(done.rounds), 'round')}"),
    )


if __name__ == "__main__":
    start_step(mitigate, "beear_mitigation")
