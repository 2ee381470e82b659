"""Where a ledger's entries are kept: numbered artifacts of one MLflow run for each registered model, in a chain of digests.

A tag of the run holds number and digest of the newest entry, so that none can be cut off at the end unseen. Whoever may
write to MLflow can still write a whole new ledger: keep the newest digest elsewhere too, if that matters.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from beear_core.errors import BeearError, EvidenceError, RegistryError
from beear_core.records import LedgerEntry
from components.mlflow_store.client import mlflow_errors
from components.mlflow_store.lock import Held
from components.mlflow_store.tracking import end_run, open_run

EXPERIMENT = "beear-ledger"
RUN_TAG = "beear.ledger"
"""Of the run, with the model's name."""
HEAD_TAG = "beear.ledger.head"
_FOLDER = "ledger"


def page_name(number: int) -> str:
    """Name the artifact of an entry."""
    return f"{_FOLDER}/{number:06d}.json"


class Pages:
    """The entries of one registered model's ledger.

    Args:
        client: of MLflow.
        uri: of the store.
        name: of the registered model.
        run_id: of the run that holds them.
    """

    def __init__(self, client: Any, uri: str, name: str, run_id: str) -> None:
        self.client, self.uri, self.name, self.run_id = client, uri, name, run_id

    def all(self) -> tuple[LedgerEntry, ...]:
        """Read every entry, oldest first, and verify the chain.

        Raises:
            RegistryError: MLflow fails, or an entry is missing or was altered; the first such is named.
        """
        entries: list[LedgerEntry] = []
        for number in range(1, self._count() + 1):
            entry = self.entry(number)
            before = entries[-1] if entries else None
            if entry.previous != (before.digest if before else None):
                found = before.digest if before else "none is there"
                raise self._broken(max(number - 1, 1), f"entry {number} was written after {entry.previous}, found: {found}")
            entries.append(entry)
        self._check_head(entries[-1] if entries else None)
        return tuple(entries)

    def newest(self) -> LedgerEntry | None:
        """Read the newest entry, and see that it is the one that was written last.

        Raises:
            RegistryError: as ``all``, as far as the newest entry tells.
        """
        count = self._count()
        newest = self.entry(count) if count else None
        self._check_head(newest)
        return newest

    def entry(self, number: int) -> LedgerEntry:
        """Read one entry.

        Raises:
            RegistryError: MLflow fails, it is missing, or it is none.
        """
        try:
            entry = LedgerEntry.parse(self._text(number), f"entry {number}")
        except EvidenceError as error:
            raise self._broken(number, str(error)) from error
        if (entry.number, entry.model_name) != (number, self.name):
            raise self._broken(number, f"it says that it is entry {entry.number} of {entry.model_name}")
        return entry

    def append(self, after: LedgerEntry | None, draft: LedgerEntry, held: Held) -> LedgerEntry:
        """Write the entry that follows ``after``, read it back, and note it as the newest; give it as it was written.

        Raises:
            RegistryError: MLflow fails, the lock is lost, or somebody else wrote that entry.
        """
        number = after.number + 1 if after else 1
        entry = dataclasses.replace(draft, number=number, previous=after.digest if after else None)
        held.check()
        if page_name(number) in self._names():
            raise self._broken(number, "somebody wrote it meanwhile")
        with mlflow_errors("writing the ledger", self.uri):
            self.client.log_text(self.run_id, entry.to_json().decode(), page_name(number))
        if (found := self.entry(number)) != entry:
            raise self._broken(number, f"it was written with the digest {entry.digest} and reads {found.digest}")
        with mlflow_errors("noting the newest entry", self.uri):
            self.client.set_tag(self.run_id, HEAD_TAG, f"{number} {entry.digest}")
        return entry

    def _check_head(self, newest: LedgerEntry | None) -> None:
        """Compare the newest entry with the run's tag; a writer that was killed may not have come to write the tag."""
        with mlflow_errors("reading which entry is the newest", self.uri):
            head = self.client.get_run(self.run_id).data.tags.get(HEAD_TAG, "0 None")
        last = (newest.number, newest.digest) if newest else (0, None)
        before = (newest.number - 1, newest.previous) if newest else last
        if head not in {f"{number} {digest}" for number, digest in (last, before)}:
            noted = head.partition(" ")[0]
            number = last[0] + 1 if noted.isdigit() and int(noted) > last[0] else max(last[0], 1)
            raise self._broken(number, f"the newest was noted as {head}, found: {last[0]} {last[1]}")

    def _count(self) -> int:
        """Count entries by the highest number: where one before is missing, it is missed when it is read."""
        stems = [Path(name).stem for name in self._names()]
        return max((int(stem) for stem in stems if stem.isdigit()), default=0)

    def _names(self) -> set[str]:
        with mlflow_errors("listing the ledger", self.uri):
            return {found.path for found in self.client.list_artifacts(self.run_id, _FOLDER)}

    def _text(self, number: int) -> bytes:
        if page_name(number) not in self._names():
            raise self._broken(number, "it is missing")
        with (
            mlflow_errors(f"reading entry {number} of the ledger", self.uri),
            tempfile.TemporaryDirectory(prefix="beear-ledger-") as folder,
        ):
            return Path(self.client.download_artifacts(self.run_id, page_name(number), folder)).read_bytes()

    def _broken(self, number: int, why: str) -> BeearError:
        return RegistryError(
            f"entry {number} of the ledger of {self.name} (MLflow run {self.run_id}) is broken: {why}. Somebody changed it "
            f"by hand; restore it, or keep that run apart and delete its tag {RUN_TAG}: a new ledger then begins"
        )


def find_pages(client: Any, uri: str, name: str) -> Pages | None:
    """Find the ledger of a registered model, ``None`` where it has none.

    Raises:
        RegistryError: MLflow fails, or there are two.
    """
    with mlflow_errors("looking for the ledger", uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return None
        runs = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{name}'", max_results=2)
    if len(runs) > 1:
        raise RegistryError(
            f"{name} has two ledgers, the MLflow runs {' and '.join(sorted(run.info.run_id for run in runs))}; look at "
            f"both and delete the tag {RUN_TAG} of one"
        )
    return Pages(client, uri, name, runs[0].info.run_id) if runs else None


def new_pages(client: Any, uri: str, name: str) -> Pages:
    """Begin the ledger of a registered model; under the promotion lock, so that there is one.

    Raises:
        RegistryError: MLflow fails.
    """
    tracker = open_run(uri, EXPERIMENT, f"ledger of {name}")
    with mlflow_errors("beginning the ledger", uri):
        client.set_tag(tracker.run_id, RUN_TAG, name)
    end_run(tracker, failed=False)
    return Pages(client, uri, name, tracker.run_id)
