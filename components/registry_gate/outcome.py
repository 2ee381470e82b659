"""What a gate, a promotion or an approval leaves behind: the release record and the report, on disk and in MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beear_core.errors import RegistryError, StorageError
from beear_core.evidence import Evidence
from beear_core.files import digest_file, write_atomically
from beear_core.records import Decision, EvaluationRecord, ReleaseRecord
from beear_core.report import read_pairs, render
from components.mlflow_store.client import mlflow_errors
from components.mlflow_store.tracking import Tracker
from components.registry_gate.summary import summary

NOTE = "mlflow.note.content"
_NOTE_LENGTH = 7700  # characters; a run's tag takes 8000
Samples = tuple[Path | None, Path | None]
"""Files of replies before and after; ``None`` where there is none."""


def leave(
    tracker: Tracker, folder: Path, decision: Decision, evidence: Evidence, release: ReleaseRecord, samples: Samples
) -> None:
    """Write release.json and report.html to the folder, and log both.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
        RegistryError: MLflow fails.
    """
    release.write(folder / "release.json")
    page = render(decision, evidence, read_pairs(*samples), release)
    write_atomically(folder / "report.html", page.encode())
    with mlflow_errors("logging the report", tracker.uri):
        tracker.log_file(folder / "report.html")
        tracker.log_record(release, "release")
        tracker.log_tags({NOTE: note(decision, release)})


def note(decision: Decision, release: ReleaseRecord) -> str:
    """Write what MLflow shows as the run's description: the summary, as many lines of it as a tag takes."""
    lines: list[str] = []
    length = 0
    for line in summary(decision, release).splitlines():
        length += len(line) + 1
        if length > _NOTE_LENGTH:
            return "\n".join([*lines, "", "The rest is in report.html, among the artifacts."])
        lines.append(line)
    return "\n".join(lines)


@contextmanager
def told_of_move(release: ReleaseRecord) -> Iterator[None]:
    """Say, where what follows a promotion fails, that the alias did move.

    Raises:
        RegistryError, StorageError: as they came, with that said.
    """
    try:
        yield
    except (RegistryError, StorageError) as error:
        alias, number = release.alias, release.champion_after
        if release.awaiting_approval:
            alias, number = release.candidate_alias, release.model_version
        raise type(error)(
            f"{alias} of {release.model_name} did move, to version {number}; only the record of that is not everywhere: "
            f"{error}"
        ) from error


def approve_text(release: ReleaseRecord, folder: Path) -> str:
    """Say what awaits approval, and how it is given."""
    return (
        f"version {release.model_version} awaits approval: beear approve {folder} --decision {release.decision_digest} "
        "--by NAME --reason TEXT"
    )


def samples_of(run: Path, evidence: Evidence) -> Samples:
    """Find the replies of a run below its steps, by their digests, for a report that is written again."""
    found = {digest_file(path): path for path in sorted(run.glob("steps/*/safety-eval*/samples"))}

    def file_of(record: EvaluationRecord) -> Path | None:
        return next((found[digest] for digest in sorted(record.samples_digests) if digest in found), None)

    return file_of(evidence.before), file_of(evidence.after)
