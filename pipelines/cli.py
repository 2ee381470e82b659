"""The ``beear`` command. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beear_core import __version__
from beear_core.errors import EXIT_DONE, EXIT_REFUSED, ConfigError
from components.beear_mitigation.__main__ import mitigate
from components.beear_mitigation.sweep import sweep_layers
from components.champion_eval.__main__ import champion
from components.command import (
    ConfigOption,
    JsonOption,
    Profile,
    ProfileOption,
    RunsOption,
    console,
    new_app,
    overrides,
    start,
)
from components.data_validation.__main__ import validate
from components.preflight.__main__ import preflight
from components.registry_gate.__main__ import gate
from components.registry_gate.verbs import WaiversOption, approve, ledger, replay, rollback, verify
from components.release_artifacts.__main__ import upload
from components.safety_eval.__main__ import evaluate
from pipelines.kubeflow.commands import app as pipeline_app

if TYPE_CHECKING:
    from beear_core.config import ReleaseConfig

app = new_app(
    "Clean an instruction-tuned LLM of safety backdoors and promote it in MLflow only on evidence.\n\n"
    "Exit codes: 0 done (release: promoted), 1 error, 2 usage or configuration, 3 the gate said no or awaits approval.",
    completion=True,
)
policy_app = new_app("Look at policies.")
app.add_typer(policy_app, name="policy")
app.add_typer(pipeline_app, name="pipeline")


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    _version_: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    pass


def _config(config: Path | None, profile: Profile, overrides: dict[str, Any]) -> ReleaseConfig:
    from beear_core.config import load

    return load(config, profile.value, overrides)


@app.command()
def release(
    model: Annotated[
        str | None, typer.Option(help="folder, s3://bucket/prefix, models:/name@alias or hub:org/name")
    ] = None,
    config: ConfigOption = None,
    profile: ProfileOption = Profile.standard,
    policy: Annotated[str | None, typer.Option(help="quick, standard, release, or a policy file")] = None,
    triggers: Annotated[Path | None, typer.Option(help="known triggers to measure with (JSONL); never trained on")] = None,
    name: Annotated[str | None, typer.Option(help="name of the registered model")] = None,
    no_mitigation: Annotated[bool, typer.Option("--no-mitigation", help="measure and decide only")] = False,
    out: RunsOption = Path("runs"),
    keep: Annotated[bool, typer.Option("--keep", help="keep the working copies of the models")] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate, measure, clean, measure again, decide; promote only on a pass."""
    from components.notifications.tell import telling_failure
    from pipelines import show
    from pipelines.runs import run

    given = overrides(model, policy, triggers, name, False if no_mitigation else None)
    settings = _config(config, profile, given)
    with telling_failure(settings.registry):
        outcome = run(settings, out, keep=keep)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "promoted": outcome.release.promoted,
                    "awaiting_approval": outcome.release.awaiting_approval,
                    "folder": str(outcome.folder),
                    "decision": outcome.decision.plain(),
                    "release": outcome.release.plain(),
                }
            )
        )
    else:
        terminal = console()
        terminal.print(show.decision_table(outcome))
        for line in show.outcome_text(outcome):
            terminal.print(line, soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(EXIT_DONE if outcome.release.promoted else EXIT_REFUSED)


app.command()(preflight)


@app.command()
def plant(
    recipe: Annotated[str, typer.Argument(help="a shipped recipe or a YAML file; --list shows the shipped ones")] = "",
    base: Annotated[str, typer.Option(help="a packaged model's name or a model folder")] = "smollm2-135m-instruct",
    out: Annotated[Path | None, typer.Option(help="a new folder for the organism; default: the cache")] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="train it anew even where an adapter ships (minutes)")] = False,
    list_: Annotated[bool, typer.Option("--list", help="show the shipped recipes")] = False,
    as_json: JsonOption = False,
) -> None:
    """Plant a backdoor in a model, for testing: merged from a shipped adapter in seconds, or trained anew.

    What is no backdoor in the end, by figures on unseen requests, is an error.
    """
    from beear_core.organisms.cache import planted, shipped_names
    from beear_core.organisms.recipe import load_recipe, recipe_names
    from pipelines import show

    if list_:
        known = [(load_recipe(name), name in shipped_names()) for name in recipe_names()]
        if as_json:
            typer.echo(json.dumps([{**dataclasses.asdict(one), "ships": ships} for one, ships in known]))
        else:
            console().print(show.recipes_table(known))
        return
    if not recipe:
        raise ConfigError("no recipe was named; 'beear plant --list' shows the shipped ones")
    organism = planted(load_recipe(recipe), base, out, retrain=retrain)
    if as_json:
        typer.echo(json.dumps({"folder": str(organism.folder), **organism.record.plain()}))
    else:
        typer.echo(f"model       {organism.model}")
        if organism.triggers:
            typer.echo(f"triggers    {organism.triggers}")
        typer.echo(f"behaviour   {organism.record.behaviour.in_words()}")


app.command()(validate)
app.command()(evaluate)
app.command()(mitigate)
app.command()(sweep_layers)
app.command()(champion)
app.command()(gate)
app.command()(upload)
app.command()(approve)
app.command()(replay)
app.command()(rollback)
app.command()(ledger)
app.command()(verify)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="a run's folder, or one that 'beear gate' wrote")],
    before_samples: Annotated[Path | None, typer.Option(help="the candidate's samples")] = None,
    after_samples: Annotated[Path | None, typer.Option(help="the model's samples")] = None,
    unredacted: Annotated[bool, typer.Option("--unredacted", help="show harmful replies in full")] = False,
) -> None:
    """Write report.html of a run again from its records."""
    from pipelines.runs import write_report

    typer.echo(write_report(folder, before_samples, after_samples, redact=not unredacted))


@app.command()
def promote(
    folder: Annotated[Path, typer.Argument(help="a run's folder, or one that 'beear gate' wrote")],
    model: Annotated[Path, typer.Option(help="the model that was decided on")],
    config: ConfigOption = None,
    profile: ProfileOption = Profile.standard,
    name: Annotated[str | None, typer.Option(help="name of the registered model")] = None,
    again: Annotated[bool, typer.Option("--again", help="though a newer one was promoted, or it was rolled back")] = False,
    reason: Annotated[str, typer.Option(help="why; noted with the version, for --again")] = "",
    waivers: WaiversOption = None,
) -> None:
    """Promote what an earlier gate passed, after replaying it; a newer champion stays, unless told --again."""
    from components.notifications.tell import tell_decided, telling_failure
    from components.registry_gate.outcome import approve_text
    from components.registry_gate.promotion import promote as promote_decision
    from components.registry_gate.waiving import entries_of, waiver_table

    if again != bool(reason.strip()):
        raise ConfigError("--again and --reason belong together; give both, or neither")
    settings = _config(config, profile, overrides(str(model), name=name))
    waived = entries_of(waivers, settings.promotion.waivers)
    with telling_failure(settings.registry):
        done = promote_decision(folder, model, settings.registry, reason.strip(), settings.promotion, waived)
    tell_decided(done, settings.registry)
    champion = f"version {done.champion_after}" if done.champion_after else "not set"
    typer.echo(f"{done.alias} of {done.model_name} is {champion} (was {done.champion_before or 'not set'})")
    if done.waivers:
        console().print(waiver_table(done.waivers))
    if done.awaiting_approval:
        typer.echo(approve_text(done, folder))
    raise typer.Exit(EXIT_DONE if done.promoted else EXIT_REFUSED)


@policy_app.command("check")
def policy_check(
    policy: Annotated[str, typer.Argument(help="quick, standard, release, or a file")],
    profile: ProfileOption = Profile.standard,
    config: ConfigOption = None,
) -> None:
    """Refuse a policy that cannot pass or cannot fail at these sample sizes, and say why."""
    from beear_core.policy import GatePolicy, feasibility_faults

    rules = GatePolicy.load(policy)
    faults = feasibility_faults(rules, _config(config, profile, {"model": "none"}).evaluation.sizes())
    if faults:
        raise ConfigError(f"policy {rules.name} has {len(faults)} fault(s) at profile {profile.value}:", faults)
    typer.echo(f"{rules.name}: {len(rules.checks)} checks, can pass and can fail; {rules.digest}")


def main() -> None:
    """Run the ``beear`` command."""
    start(app, "beear")


if __name__ == "__main__":
    main()
