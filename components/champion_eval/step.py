"""Find the champion that a policy compares with: as it was measured when it was released, or measured anew.

What it was released on is taken where suites, judge and settings are those of the model that is decided on. Where they are
not, or nothing readable is stored, the champion's model is fetched, held up to the digest that its version carries, and
evaluated by the same code as the candidate.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from beear_core.config import EvaluationConfig, RegistryConfig, parse_json
from beear_core.errors import EvidenceError
from beear_core.evaluation.figures import telling
from beear_core.files import disk_errors, write_atomically
from beear_core.models.folder import check_folder, directory_digest
from beear_core.models.safety import check_names
from beear_core.policy import champion_faults, find_policy, measured_otherwise
from beear_core.progress import say
from beear_core.records import ChampionRecord, EvaluationRecord
from components.mlflow_store.champion import Version
from components.mlflow_store.client import required_uri
from components.mlflow_store.registry import Registry
from components.passport.folder import BESIDE
from components.storage import places as storage
from components.work import failing_once, full_samples, work_folder


def run(
    after: Path,
    suites_dir: Path,
    out_samples: Path,
    *,
    policy: str,
    config: EvaluationConfig,
    registry: RegistryConfig,
) -> ChampionRecord:
    """Say who is champion, and how it does.

    Args:
        after: record of the model that is to be decided on.
        suites_dir: evaluation suites, as data_validation leaves them.
        out_samples: JSONL with every reply of a champion that was measured anew, else empty; not for sharing.
        policy: a shipped policy's name, a file, or the text of one. Where no check of it compares with the champion, the
            registry is not asked.
        config: how ``after`` was measured.
        registry: where the champion is.

    Raises:
        ConfigError: no MLflow is named, or the policy cannot be read.
        RegistryError: the registry gives another answer than a version, or that there is no champion.
        EvidenceError: the champion holds other bytes than were registered, or ``after`` cannot be read, or was measured on
            other suites or with other settings than are given.
        ModelError, DataError, EvaluationError, StorageError: the champion cannot be fetched, loaded or measured.
    """
    rules, _ = find_policy(policy)
    found = ChampionRecord(state="not compared", model_name=registry.model_name, alias=registry.alias)
    write_atomically(out_samples, b"")
    if rules.compares_with_champion:
        decided_on = EvaluationRecord.read(after)
        found = _look(decided_on, suites_dir, out_samples, config, registry)
    if found.state != "measured":  # that was said, with the reasons, before it began
        say(found.in_words())
    return found


def _look(
    after: EvaluationRecord, suites_dir: Path, out_samples: Path, config: EvaluationConfig, registry: RegistryConfig
) -> ChampionRecord:
    shelf = Registry(required_uri(registry.tracking_uri), registry)
    champion = shelf.alias.champion()
    if champion is None:
        return ChampionRecord(state="none", model_name=shelf.name, alias=registry.alias)
    evaluation, reasons = _stored(shelf, champion, after)
    if evaluation is None:
        say(f"version {champion.number} of {shelf.name} is measured anew because {'; '.join(reasons)}")
        evaluation = _measured(shelf, champion, suites_dir, out_samples, config)
        if faults := champion_faults(evaluation, after):
            raise EvidenceError(
                f"the champion was measured anew, and still not as the model that is decided on ({'; '.join(faults)}); "
                "give the suites and the evaluation settings that the latter was measured with"
            )
    return ChampionRecord(
        state="measured" if reasons else "stored",
        model_name=shelf.name,
        alias=registry.alias,
        version=champion.number,
        model_digest=evaluation.model_digest,
        reasons=reasons,
        evaluation=evaluation,
    )


def _stored(shelf: Registry, champion: Version, after: EvaluationRecord) -> tuple[EvaluationRecord | None, tuple[str, ...]]:
    """Read what the champion was released on, or tell why it cannot be used."""
    try:
        stored = shelf.evaluation(champion)
    except EvidenceError as error:
        return None, (str(error),)
    reasons = tuple(measured_otherwise(stored, after))
    return (None, reasons) if reasons else (stored, ())


def _measured(
    shelf: Registry, champion: Version, suites_dir: Path, out_samples: Path, config: EvaluationConfig
) -> EvaluationRecord:
    """Fetch the champion and evaluate it; its copy does not outlive this."""
    # loaded here, because where nothing is measured no torch is needed
    from beear_core.data import load_suites
    from beear_core.evaluation.evaluate import evaluate
    from beear_core.evaluation.samples import samples_to_jsonl
    from beear_core.models.load import load

    suites = load_suites(suites_dir)
    with disk_errors(f"write to {out_samples.parent}"):
        holder = tempfile.TemporaryDirectory(prefix=".champion-", dir=out_samples.parent)
    with holder as folder:
        fetch_champion(shelf, champion, Path(folder) / "model")
        record, samples = evaluate(load(Path(folder) / "model"), suites, config, label="champion")
    write_atomically(out_samples, samples_to_jsonl(samples))
    return record


def fetch_champion(shelf: Registry, champion: Version, dest: Path) -> None:
    """Fetch a version's model to a new folder, if it is the very one that was registered, and a whole and safe one.

    Raises:
        EvidenceError: it holds other bytes than its version says.
        ModelError, StorageError, RegistryError: see ``check_folder`` and ``places.fetch``.
    """
    # by its number: the alias may move meanwhile
    uri = f"models:/{shelf.name}/{champion.number}"

    def select(names: tuple[str, ...]) -> tuple[str, ...]:
        check_names(names, uri)
        return tuple(name for name in names if name not in BESIDE)

    def accept(folder: Path, _: str) -> None:
        found, registered = directory_digest(folder), champion.tags.get("model_digest", "")
        # a version that was registered by hand says nothing of its bytes; it is known by what is measured now
        if registered and found != registered:
            raise EvidenceError(
                f"version {champion.number} of {shelf.name}, the {shelf.alias.alias} to compare with, holds a model with "
                f"the digest {found}, registered was {registered}: it was altered since, so nothing is compared with it. "
                f"Find out by whom, and move {shelf.alias.alias} to a version that is intact"
            )
        check_folder(folder)

    storage.fetch(uri, dest, select=select, accept=accept)


def run_component(
    *,
    after: str,
    suites: str,
    policy: str,
    config_json: str,
    registry_json: str,
    work: str,
    record: str,
    samples: str,
) -> tuple[str, dict[str, float]]:
    """Run the step as its Kubeflow face calls it; returns the state and the champion's figures to show in the run."""
    config = parse_json(EvaluationConfig, config_json, "evaluation configuration")
    registry = parse_json(RegistryConfig, registry_json, "registry configuration")
    kept, stored = work_folder(work, "champion_eval"), config.full_samples == "artifact"
    with failing_once(kept), full_samples(kept, Path(samples), stored=stored) as full:
        found = run(Path(after), Path(suites), full, policy=policy, config=config, registry=registry)
    found.write(Path(record))
    metrics = found.evaluation.metrics if found.evaluation else {}
    figures = {name: telling(metric) for name, metric in metrics.items()}
    return found.state, {n: e.value for n, e in figures.items() if e is not None and e.value is not None}
