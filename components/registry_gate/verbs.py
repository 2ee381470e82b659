"""What comes after the gate: ``beear replay``, ``approve``, ``rollback``, ``ledger`` and ``verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beear_core.errors import EXIT_DONE, EXIT_REFUSED, ConfigError
from components.command import ConfigOption, JsonOption, add_row, console, new_table, print_facts, print_json, read_section

if TYPE_CHECKING:
    from rich.table import Table

    from beear_core.records import LedgerEntry

WaiversOption = Annotated[
    Path | None, typer.Option("--waivers", help="YAML or JSON file of waivers, for a decision that is a refusal")
]
_StoreOption = Annotated[Path, typer.Option("--out", help="folder of runs, with the local MLflow store")]


def approve(
    decision: Annotated[str, typer.Option(help="digest of the decision that is approved, as the gate printed it")],
    by: Annotated[str, typer.Option(help="who approves")],
    reason: Annotated[str, typer.Option(help="why")],
    folder: Annotated[Path | None, typer.Argument(help="the run's folder; its report is written again")] = None,
    model_name: Annotated[str | None, typer.Option(help="the registered model, where there is no folder")] = None,
    waivers: WaiversOption = None,
    again: Annotated[bool, typer.Option("--again", help="though a newer one was promoted, or it was rolled back")] = False,
    config: ConfigOption = None,
    out: _StoreOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Make the candidate that was registered for a decision champion; the decision is replayed, the bytes compared.

    MLflow is the one that is configured or that MLFLOW_TRACKING_URI names, else the one beside the run or in --out.

    Exit codes: 0 it is champion, 1 error, 2 usage or configuration, 3 it is not.
    """
    # loaded here so that --help answers at once
    from dataclasses import replace

    from beear_core.config import PromotionConfig, RegistryConfig
    from components.notifications.tell import tell_decided, telling_failure
    from components.registry_gate.approval import approve as approve_decision
    from components.registry_gate.waiving import entries_of, waiver_table

    if (folder is None) == (model_name is None):
        raise ConfigError("give the run's folder, or --model-name NAME where there is none; one of the two")
    registry = read_section(config, "registry", RegistryConfig)
    promotion = read_section(config, "promotion", PromotionConfig)
    with telling_failure(registry):
        release = approve_decision(
            decision,
            replace(registry, model_name=model_name) if model_name else registry,
            promotion,
            by=by,
            reason=reason,
            folder=folder,
            root=out,
            again=again,
            waivers=entries_of(waivers, promotion.waivers),
        )
    tell_decided(release, registry)
    if as_json:
        print_json(release)
    else:
        champion = f"version {release.champion_after}" if release.champion_after else "not set"
        typer.echo(f"{release.alias} of {release.model_name} is {champion} (was {release.champion_before or 'not set'})")
        if release.approval:
            typer.echo(f"approved by {release.approval.by} at {release.approval.at}: {release.approval.reason}")
        if release.waivers:
            console().print(waiver_table(release.waivers))
    raise typer.Exit(EXIT_DONE if release.promoted else EXIT_REFUSED)


def replay(decision: Annotated[Path, typer.Argument(help="a run's folder or its decision.json")]) -> None:
    """Decide again from the stored evidence alone; it must agree to the byte."""
    from beear_core.policy import explain
    from components.registry_gate.replay import replay as decide_again

    found = decide_again(decision.parent if decision.is_file() else decision)
    typer.echo(f"agrees: {found.digest}\n{explain(found)}")
    raise typer.Exit(EXIT_DONE if found.passed else EXIT_REFUSED)


def rollback(
    name: Annotated[str, typer.Option(help="name of the registered model")] = "release-candidate",
    alias: Annotated[str, typer.Option(help="the alias to move back")] = "champion",
    reason: Annotated[str, typer.Option(help="why; noted in the ledger")] = "",
    out: _StoreOption = Path("runs"),
) -> None:
    """Move the alias back to the version that the champion replaced."""
    from beear_core.config import RegistryConfig, parse
    from beear_core.uris import without_secrets
    from components.mlflow_store.client import resolve_uri
    from components.mlflow_store.registry import Registry
    from components.notifications.tell import tell_rolled_back

    settings = parse(RegistryConfig, {"model_name": name, "alias": alias}, "the command line")
    uri = resolve_uri(None, out)
    left, now = Registry(uri, settings).rollback(reason.strip())
    tell_rolled_back(settings, left.number, now.number, without_secrets(uri))
    typer.echo(f"{alias} of {name}: version {left.number} -> version {now.number}")


def ledger(
    name: Annotated[str, typer.Argument(metavar="MODEL_NAME", help="name of the registered model")],
    alias: Annotated[str, typer.Option(help="the alias whose place is compared with the last entry")] = "champion",
    out: _StoreOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show what moved the alias of a registered model, and on whose word; the chain of entries is verified.

    Exit codes: 0 the chain holds, 1 an entry is missing or was altered (the first is named), 2 usage or configuration.
    """
    from beear_core.config import RegistryConfig, parse
    from beear_core.progress import warn
    from components.mlflow_store.client import resolve_uri
    from components.mlflow_store.registry import Registry

    settings = parse(RegistryConfig, {"model_name": name, "alias": alias}, "the command line")
    shelf = Registry(resolve_uri(None, out), settings)
    entries, missing = shelf.ledger.read(shelf.alias.champion())
    if as_json:
        told = {"entries": [entry.plain() for entry in entries], "missing": missing.plain() if missing else None}
        typer.echo(json.dumps({"model_name": name, "head": entries[-1].digest if entries else None, **told}))
    else:
        console().print(ledger_table(name, entries))
    if missing:
        warn(f"the ledger does not say how {alias} came to version {missing.version}: {missing.reason}")


def ledger_table(name: str, entries: tuple[LedgerEntry, ...]) -> Table:
    """Show the entries of a ledger, oldest first."""
    columns = ("", "time", "what", "version", "was", "by", "reason", "decision", "promotion")
    table = new_table(f"Ledger of {name}", *columns)
    for entry in entries:
        reason = f"{entry.waived} until {entry.expires}: {entry.reason}" if entry.waived else entry.reason
        decision = entry.decision_digest.removeprefix("sha256:")[:12]
        what = (entry.time, entry.event, entry.version, entry.replaced, entry.by, reason, decision)
        add_row(table, str(entry.number), *what, str(entry.epoch or "unknown"))
    return table


def verify(
    model: Annotated[str, typer.Argument(help="the folder of a released model, or models:/name@champion")],
    config: ConfigOption = None,
    public_key: Annotated[Path | None, typer.Option(help="PEM file of the key that it must be signed by")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a released model with the decision that lies in it: bytes, signature, and for a version its tags.

    Exit codes: 0 it is what was decided on, 1 error, 2 usage or configuration, 3 it is not.
    """
    from dataclasses import replace

    from beear_core.config import RegistryConfig, SigningConfig
    from components.registry_gate.verification import verify as compare

    settings = read_section(config, "registry", RegistryConfig)
    if public_key:
        settings = replace(settings, signing=SigningConfig(method="key", public_key=str(public_key)))
    found = compare(model, settings)
    if as_json:
        print_json(found)
    else:
        lists = {kind: ", ".join(getattr(found, kind)) for kind in ("extra", "missing", "changed")}
        print_facts(
            ("model", found.place if found.version is None else f"{found.place}, version {found.version}"),
            ("verdict", "is what was decided on" if found.passed else "is NOT what was decided on"),
            ("decision", found.decision_digest or "altered"),
            ("signed", found.signed),
            *((kind, names) for kind, names in lists.items() if names),
            *(("fault", fault) for fault in found.faults),
        )
    raise typer.Exit(EXIT_DONE if found.passed else EXIT_REFUSED)
