"""Decisions that passed, as a gate leaves them in a folder, and versions that are registered for them at little cost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gate_evidence import Case
from gate_processes import start
from gate_runs import again, registry_of
from mlflow.tracking import MlflowClient

from beear_core.evidence import Evidence
from beear_core.files import digest_bytes, write_atomically
from beear_core.models.folder import list_files
from beear_core.policy import decide, find_policy
from beear_core.records import Environment, Provenance
from components.passport.folder import DECISION, POLICY_FILE
from components.registry_gate.promotion import version_tags
from components.registry_gate.replay import Decided, documents_of
from tools.servers.mlflow import Mlflow

_SHORTEST_S = 3.0
_OF_A_PROMOTION = ("promotion", "replaced_version", "rolled_back")


@dataclass(frozen=True)
class Passed:
    """A decision with all that it rests on, and the folder that ``beear promote`` takes."""

    made: Decided
    folder: Path


def decided(case: Case, folder: Path, seconds: float, name: str) -> Passed:
    """Decide for a registered model on the same bytes, measured once more: another decision for each ``seconds``."""
    measured = again(case, folder / "case", seconds)
    rules, text = find_policy("standard")
    evidence, files = Evidence.read_files(measured.evidence), list_files(case.model)
    documents = documents_of(rules, evidence, files, name)
    bound = Provenance(
        model_name=name,
        files=files,
        documents={paper: digest_bytes(data) for paper, data in documents.items()},
        environment=Environment.here(()),
        kfp_run_id="",
        mlflow_run_id="",
    )
    made = Decided(decide(rules, evidence, bound), rules, evidence, documents)
    evidence.write(folder / "evidence")
    write_atomically(folder / POLICY_FILE, text.encode())
    for paper, data in {**documents, DECISION: made.decision.to_json()}.items():
        write_atomically(folder / paper, data)
    return Passed(made, folder)


def register_like(server: Mlflow, first: str, name: str, one: Passed, source: str = "") -> str:
    """Register a version for a decision as the gate does, with what lies under the first version of ``first``.

    What differs, the papers, is written to the server's disk: sending all of it anew takes seconds for each of hundreds.
    ``source``: other bytes than those. Gives the version's number.
    """
    client: MlflowClient = registry_of(server.uri)
    like = client.get_model_version(first, "1")
    identifier = None
    if not source:
        run = client.get_run(like.run_id)
        logged = client.create_logged_model(run.info.experiment_id, "model", like.run_id)
        identifier = logged.model_id
        ours = on_disk(server, logged.artifact_location)
        shutil.copytree(
            on_disk(server, client.get_logged_model(like.source.removeprefix("models:/")).artifact_location), ours
        )
        for paper, data in {**one.made.documents, DECISION: one.made.decision.to_json()}.items():
            (ours / "model" / paper).write_bytes(data)
        client.finalize_logged_model(identifier, "READY")
    made = client.create_model_version(
        name,
        source=source or f"models:/{identifier}",
        run_id=like.run_id,
        model_id=identifier,
        tags={k: v for k, v in like.tags.items() if k not in _OF_A_PROMOTION}
        | version_tags(one.made.decision, one.made.evidence),
    )
    return str(made.version)


def on_disk(server: Mlflow, location: str) -> Path:
    """Find where a server keeps artifacts whose place it calls ``location``."""
    return Path(server.artifacts) / location.removeprefix("mlflow-artifacts:/")


@dataclass(frozen=True)
class Ground:
    """A server with one model, ``name``, whose version 1 holds the model of ``case``. ``lock``: see ``gate_processes``."""

    server: Mlflow
    case: Case
    name: str
    lock: Mapping[str, float]


def prepare(server: Mlflow, case: Case, folder: Path) -> Ground:
    """Log the bytes once, by a promotion like any other, and find how short the lock's expiry can be on this machine."""
    name, took = "ground", 0.0
    for seconds in (1.0, 2.0):
        one = decided(case, folder / f"alone{seconds}", seconds, name)
        if took:
            register_like(server, name, name, one)
        began = time.monotonic()
        arguments = ["promote", str(one.folder), "--model", str(case.model), "--name", name]
        ended = start(arguments, one.folder / "log", {"MLFLOW_TRACKING_URI": server.uri}).wait()
        if ended.code:
            raise RuntimeError(ended.text)
        took = time.monotonic() - began
    # a holder among eight is to come to its end before it
    expiry = max(_SHORTEST_S, 5 * took)
    return Ground(server, case, name, {"expiry": expiry, "margin": expiry / 2})
