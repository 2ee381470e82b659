"""``beear pipeline``: compile the release pipeline, run it on a cluster, keep it running on a schedule."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from beear_core.errors import EXIT_DONE, EXIT_REFUSED, ConfigError, RegistryError
from beear_core.files import disk_errors
from beear_core.progress import say, warn
from components.command import (
    ConfigOption,
    JsonOption,
    Profile,
    ProfileOption,
    add_row,
    console,
    new_app,
    new_table,
    print_facts,
    read_section,
)

if TYPE_CHECKING:
    from pipelines.kubeflow.package import Package

app = new_app("The Kubeflow pipeline.")

EXPERIMENT = "beear-release"
_NeededConfig = Annotated[Path, typer.Option("--config", help="YAML file; see docs/configuration.md")]
_HostOption = Annotated[
    str | None,
    typer.Option("--host", help="address of Kubeflow Pipelines' API; default: KF_PIPELINES_ENDPOINT, or the pod's"),
]
_NamespaceOption = Annotated[str | None, typer.Option("--namespace", help="yours, where Kubeflow serves many users")]
_ExperimentOption = Annotated[str, typer.Option("--experiment", help="of Kubeflow; made if it is not there")]
_ImageOption = Annotated[
    str | None, typer.Option("--image", help="that the steps run in, name@sha256:...; default: BEEAR_IMAGE")
]
_SlimImageOption = Annotated[
    str | None,
    typer.Option(
        "--slim-image",
        help="for the steps that need no torch; default: that of --image where one is given, else BEEAR_SLIM_IMAGE",
    ),
]
_AllowTagOption = Annotated[bool, typer.Option("--allow-tag", help="take an image by its tag, which can change")]
_NameOption = Annotated[str, typer.Option("--name", help="of the schedule")]
_PodsOption = Annotated[Path | None, typer.Option("--pods", help="YAML file of what the steps' pods are given")]


@app.command("compile")
def compile_(
    out: Annotated[Path, typer.Option(help="file for the pipeline's YAML")] = Path("release.yaml"),
    pods: _PodsOption = None,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines."""
    if out.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"--out is {str(out)!r}; name a file that ends in .yaml")
    from pipelines.kubeflow.package import compile_pipeline
    from pipelines.pods import read_pods

    placed = read_pods(pods) if pods else None
    with disk_errors(f"write {out}", remedy="choose a file in a writable folder"):
        compile_pipeline(out, placed)
    typer.echo(out)


@app.command()
def submit(
    config: _NeededConfig,
    profile: ProfileOption = Profile.standard,
    host: _HostOption = None,
    namespace: _NamespaceOption = None,
    experiment: _ExperimentOption = EXPERIMENT,
    image: _ImageOption = None,
    slim_image: _SlimImageOption = None,
    allow_tag: _AllowTagOption = False,
    pods: _PodsOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="follow the run to its end; the verdict is read from MLflow")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a release on a cluster.

    Exit codes: 0 submitted (--wait: promoted), 1 error or the verdict cannot be told, 2 usage or configuration, 3 the gate
    said no or awaits approval.
    """
    from beear_core.config import load
    from components.mlflow_store.fates import PROMOTED
    from pipelines.kubeflow import following
    from pipelines.kubeflow.connection import connect

    settings = load(config, profile.value, {})
    sent = _package(settings, (image, slim_image), allow_tag, pods)
    gate = following.gate_to_wait_for(settings.registry, settings.promotion) if wait else None
    connection = connect(host, namespace)
    run_id = following.submit(connection, sent, experiment)
    facts: dict[str, Any] = {"run_id": run_id, "url": connection.run_url(run_id)}
    if not as_json:
        print_facts(("run", run_id), ("see", facts["url"]))
    elif gate:
        # should following it fail, the run is not lost
        say(f"run {run_id}: {facts['url']}")
    if gate:
        run = following.follow(connection, run_id, sent.tasks)
        facts |= {"state": run.state, "verdict": following.verdict_of(run, gate, sent.tasks, facts["url"])}
    if as_json:
        typer.echo(json.dumps(facts))
    elif gate:
        print_facts(("verdict", facts["verdict"]))
    raise typer.Exit(EXIT_DONE if facts.get("verdict", PROMOTED) == PROMOTED else EXIT_REFUSED)


@app.command()
def schedule(
    config: _NeededConfig,
    cron: Annotated[str, typer.Option("--cron", help="six fields, seconds first: '0 0 2 * * *' is 02:00 each day")],
    name: _NameOption = EXPERIMENT,
    profile: ProfileOption = Profile.standard,
    host: _HostOption = None,
    namespace: _NamespaceOption = None,
    experiment: _ExperimentOption = EXPERIMENT,
    image: _ImageOption = None,
    slim_image: _SlimImageOption = None,
    allow_tag: _AllowTagOption = False,
    pods: _PodsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a release on a cluster again and again, one at a time; what has this name and differs is replaced."""
    from beear_core.config import load
    from pipelines.kubeflow import schedules
    from pipelines.kubeflow.connection import connect
    from pipelines.kubeflow.cron import check_cron

    times = check_cron(cron)
    sent = _package(load(config, profile.value, {}), (image, slim_image), allow_tag, pods)
    found, done = schedules.schedule(connect(host, namespace), sent, experiment, times, name)
    if as_json:
        typer.echo(json.dumps({"recurring_run_id": found, "name": name, "cron": times, "done": done}))
    else:
        print_facts(("schedule", f"{name}, {done}"), ("times", times), ("id", found))


@app.command()
def unschedule(name: _NameOption, host: _HostOption = None, namespace: _NamespaceOption = None) -> None:
    """Delete a schedule; a run that is going on goes on."""
    from pipelines.kubeflow import schedules
    from pipelines.kubeflow.connection import connect

    schedules.unschedule(connect(host, namespace), name)
    print_facts(("schedule", f"{name}, deleted"))


@app.command()
def runs(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="how many, newest first")] = 10,
    config: ConfigOption = None,
    host: _HostOption = None,
    namespace: _NamespaceOption = None,
    experiment: Annotated[str | None, typer.Option("--experiment", help="of Kubeflow; default: all")] = None,
    as_json: JsonOption = False,
) -> None:
    """List runs on a cluster, with what their gates said where MLflow can be asked."""
    from beear_core.config import PromotionConfig, RegistryConfig
    from pipelines.kubeflow import following
    from pipelines.kubeflow.connection import connect

    registry = read_section(config, "registry", RegistryConfig)
    gate = following.gate_of(registry, read_section(config, "promotion", PromotionConfig))
    connection = connect(host, namespace)
    found = following.runs(connection, experiment, limit)
    fates: dict[str, str] = {}
    try:
        fates = gate.fates() if gate and found else {}
    except RegistryError as error:
        warn(f"no verdict is shown: {error}")
    rows = [
        {
            "run_id": run.run_id,
            "name": run.display_name,
            "state": run.state,
            "created_at": _time(run.created_at),
            "finished_at": _time(run.finished_at),
            "verdict": fates.get(run.run_id),
            "url": connection.run_url(run.run_id),
        }
        for run in found
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = new_table(f"Runs at {connection.host}", "run", "name", "state", "started", "verdict")
    for row in rows:
        add_row(table, *(Text(row[key] or "") for key in ("run_id", "name", "state", "created_at")), row["verdict"] or "-")
    console().print(table)


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment and moment.year > 1970 else None


def _package(settings: Any, images: tuple[str | None, str | None], allow_tag: bool, pods: Path | None) -> Package:
    from components.image import IMAGE, SLIM_IMAGE
    from pipelines.kubeflow.package import package

    image, slim = images
    return package(settings, image or IMAGE, slim or image or SLIM_IMAGE, allow_tag=allow_tag, pods=pods)
