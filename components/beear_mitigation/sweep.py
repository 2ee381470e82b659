"""Mitigate a model at several layers: ``python -m components.beear_mitigation.sweep --model DIR --out DIR``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from beear_core.files import write_atomically
from components.command import (
    ConfigOption,
    JsonOption,
    add_row,
    console,
    new_table,
    print_facts,
    print_json,
    read_section,
    start_step,
)

if TYPE_CHECKING:
    from beear_core.config import DataConfig
    from beear_core.data import AnchorSet, SuiteSet
    from beear_core.evaluation.suites import Case
    from beear_core.mitigation.sweep import SweepRecord


def sweep_layers(
    model: Annotated[Path, typer.Option(help="model folder")],
    out: Annotated[Path, typer.Option(help="folder for results; layers that it holds already are not measured again")],
    layers: Annotated[
        str | None, typer.Option(help="decoder layers from 0 on, with commas between; default: every fourth one")
    ] = None,
    triggers: Annotated[Path | None, typer.Option(help="known triggers to measure with (JSONL); never trained on")] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="anchors folder of data_validation; default: data of --config, else what ships")
    ] = None,
    suites: Annotated[
        Path | None, typer.Option(help="suites folder of data_validation, asked under the triggers; default: as anchors")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the mitigation at one decoder layer after another, and tell from which round on it succeeds at each.

    Writes sweep.json, sweep.svg and a file for each layer as soon as it is measured; the model stays as it is.

    Exit codes: 0 done, 1 error, 2 usage or configuration.
    """
    chosen = parsed_layers(layers)
    # loaded here so that --help answers at once
    from beear_core.config import DataConfig, EvaluationConfig, MitigationConfig
    from beear_core.data import load_anchors, load_suites, read_triggers
    from beear_core.evaluation.suites import draw_cases
    from beear_core.mitigation import sweep
    from beear_core.models.folder import check_folder, describe
    from components.beear_mitigation.layer_views import heat_map

    settings, data = read_section(config, "mitigation", MitigationConfig), read_section(config, "data", DataConfig)
    check_folder(model)
    known = read_triggers(str(triggers)) if triggers else ()
    cases: Sequence[Case] = ()
    if known:
        asked = read_section(config, "evaluation", EvaluationConfig)
        cases = draw_cases(load_suites(suites) if suites else named_suites(data), asked)["harmful"]
    done = sweep.sweep_layers(
        model,
        load_anchors(anchors) if anchors else named_anchors(data),
        settings,
        chosen or sweep.default_layers(describe(model).layers),
        out,
        triggers=known,
        requests=[case.text for case in cases],
    )
    done.write(out / "sweep.json")
    name = model.resolve().name
    write_atomically(out / "sweep.svg", heat_map({name: {r.layer: r.earliest for r in done.layers}}).encode())
    if as_json:
        print_json(done)
    else:
        console().print(layers_table(name, done))
        print_facts(("results", out / "sweep.json"), ("heat map", out / "sweep.svg"))


def parsed_layers(text: str | None) -> tuple[int, ...]:
    """Read layers as the command line gives them: ``2,8,14``; none where nothing was said.

    Raises:
        BadParameter: something between the commas is no whole number from 0 on.
    """
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--layers is {text!r}; write whole numbers from 0 on, as in 2,8,14")
    return tuple(int(part) for part in parts)


def layers_table(name: str, done: SweepRecord) -> Table:
    """Show for each layer the earliest successful round and the figures after the last one."""
    from components.beear_mitigation.layer_views import HEAD, figures_row

    title = (
        f"{name}: the earliest round that leaves at most {done.success:.0%} attack success, and the last round's figures"
    )
    table = new_table(title, *HEAD)
    for record in done.layers:
        add_row(table, *figures_row(record))
    return table


def named_anchors(data: DataConfig) -> AnchorSet:
    """Read the anchors of the sources that a configuration names; they are not validated."""
    from beear_core.data import AnchorSet, read_openings, read_prompts
    from beear_core.records import digest_json

    kept, split = data.performance_replies, "anchoring"
    found = AnchorSet(
        harmful=read_prompts(data.harmful, "harmful", split),
        ordinary=read_prompts(data.ordinary, "ordinary", split),
        borderline=read_prompts(data.borderline, "borderline", split),
        safe_openings=read_openings(data.safe_openings, "safe_openings", split),
        unwanted_openings=read_openings(data.unwanted_openings, "unwanted_openings", split),
        performance_replies=read_prompts(kept, "performance_replies", split) if kept else (),
        digest="",
    )
    return dataclasses.replace(found, digest=digest_json(dataclasses.asdict(found)))


def named_suites(data: DataConfig) -> SuiteSet:
    """Read the evaluation requests of the sources that a configuration names; they are not validated."""
    from beear_core.data import SuiteSet, read_prompts

    rows = {role: read_prompts(getattr(data, role), role, "evaluation") for role in ("harmful", "ordinary", "borderline")}
    return SuiteSet(**rows, triggers=(), digest="")


if __name__ == "__main__":
    start_step(sweep_layers, "beear_mitigation.sweep")
