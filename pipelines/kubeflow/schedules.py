"""Recurring runs, kept by name: Kubeflow cannot change one, so another takes its place.

Killed at any moment, this leaves no two of a name switched on: the new one is made switched off, the old one is switched
off, the new one on, and then the old one is deleted. Running it again ends what was cut off.
"""

from __future__ import annotations

from typing import Any

from beear_core.errors import ConfigError, KubeflowError
from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.package import Package

_MARK = "Kept by 'beear pipeline schedule', which replaces it when anything changes."
_ON = "ENABLE"


def schedule(connection: Connection, sent: Package, experiment: str, cron: str, name: str) -> tuple[str, str]:
    """Let a release run again and again.

    Args:
        connection: to Kubeflow.
        sent: the pipeline and its parameters.
        experiment: that the runs belong to.
        cron: six fields, checked.
        name: of the schedule; one that is there is replaced if it differs.

    Returns:
        Its id, and what was done: created, replaced, switched on, or unchanged.

    Raises:
        ConfigError: somebody else made a recurring run of this name.
        KubeflowError: it cannot be reached, refuses, or somebody schedules the same name just now.
    """
    there = _kept(connection, name)
    experiment_id = connection.experiment(experiment)
    said = f"{_MARK} {sent.digest(experiment_id, cron)}"
    same = [one for one in there if one.description == said]
    if same and len(there) == 1 and there[0].mode == _ON:
        return str(same[0].recurring_run_id), "unchanged"
    new = same[-1] if same else _create(connection, sent, experiment_id, cron, name, said)
    api = connection.client
    for one in there:
        if one.mode == _ON and one.recurring_run_id != new.recurring_run_id:
            connection.ask(api.disable_recurring_run, one.recurring_run_id)
    if not same or new.mode != _ON:
        connection.ask(api.enable_recurring_run, new.recurring_run_id)
    _leave_one(connection, name, str(new.recurring_run_id))
    done = "created" if not there else "switched on" if len(there) == 1 and same else "replaced"
    return str(new.recurring_run_id), done


def unschedule(connection: Connection, name: str) -> int:
    """Delete the schedule of a name; runs that are going on go on. Returns how many recurring runs that were.

    Raises:
        ConfigError: there is none, or somebody else made it.
    """
    there = _kept(connection, name)
    if not there:
        raise ConfigError(f"no schedule is called {name!r} at {connection.host}; the recurring runs are listed there")
    for one in there:
        _delete(connection, one)
    return len(there)


def _create(connection: Connection, sent: Package, experiment_id: str, cron: str, name: str, said: str) -> Any:
    with sent.file() as path:
        return connection.ask(
            connection.client.create_recurring_run,
            experiment_id,
            name,
            description=said,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            params=sent.parameters,
            pipeline_package_path=path,
            enabled=False,
            enable_caching=False,
            service_account=sent.service_account,
        )


def _kept(connection: Connection, name: str) -> list[Any]:
    """Find the recurring runs of a name in every experiment, oldest first."""
    found = connection.named(connection.client.list_recurring_runs, "recurring_runs", name)
    for one in found:
        if not (one.description or "").startswith(_MARK):
            raise ConfigError(
                f"the recurring run {name!r} ({one.recurring_run_id}) was not made by 'beear pipeline schedule'; choose "
                "another --name, or delete it"
            )
    return sorted(found, key=lambda one: (str(one.created_at), str(one.recurring_run_id)))


def _leave_one(connection: Connection, name: str, mine: str) -> None:
    """Delete all but one: of two who schedule at the same time one wins, and both choose the same one."""
    *others, kept = sorted(_kept(connection, name), key=lambda one: one.mode == _ON)
    for one in others:
        _delete(connection, one)
    if kept.recurring_run_id != mine:
        raise KubeflowError(
            f"somebody else scheduled {name!r} at the same time, and theirs stays ({kept.recurring_run_id}); look at it, "
            "and run again if it is not what you mean"
        )


def _delete(connection: Connection, one: Any) -> None:
    # Kubernetes would end the runs that the schedule began and that are going on (kubeflow/pipelines #12573)
    delete = connection.client._recurring_run_api.recurring_run_service_delete_recurring_run
    connection.ask(delete, recurring_run_id=one.recurring_run_id, propagation_policy="ORPHAN")
