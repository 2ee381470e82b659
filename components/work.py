"""Where a step keeps what is to outlive its process: on a volume in Kubeflow, in the run's folder on one machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from beear_core.errors import BeearError, StorageError
from beear_core.evaluation.samples import share_samples
from beear_core.progress import say
from components.face import read_failure, write_failure

WORK, RUN = "BEEAR_WORK", "BEEAR_RUN"
"""Environment variables: a folder that outlives the process; the name of the run, where several runs share it."""
CHECKPOINTS = "BEEAR_CHECKPOINTS"
"""Environment variable: a folder that several runs share; each mitigation has its own in it, by what it works on."""
_FAILURE = "failure.json"


def work_folder(given: str, step: str) -> Path | None:
    """Name the folder of a step of this run; ``None``: nothing outlives its process.

    Args:
        given: the step's parameter; empty for BEEAR_WORK.
        step: what the folder is called.
    """
    root = given or os.environ.get(WORK, "")
    return Path(root, os.environ.get(RUN, ""), step) if root else None


@contextmanager
def failing_once(folder: Path | None) -> Iterator[None]:
    """Let a step that cannot end well end at once when it is tried again.

    What Kubeflow tries again has the same inputs. So an error that these bring about is left in the folder, in the place of
    what was there to go on from, and raised from there the next time; one that may pass (``BeearError.passing``) is not,
    nor is one that nobody foresaw.

    Args:
        folder: of the step, see ``work_folder``.

    Raises:
        StepFailedError: as an attempt before this one failed.
    """
    if folder is not None and (failed := read_failure(folder / _FAILURE)):
        say(f"an attempt before this one failed, and this one has the same inputs: {folder / _FAILURE}")
        raise failed
    try:
        yield
    except BeearError as error:
        if folder is not None and not error.passing:
            _leave(folder, error)
        raise


@contextmanager
def full_samples(kept: Path | None, artifact: Path, *, stored: bool) -> Iterator[Path]:
    """Yield where a step writes every reply in full; its artifact is left with what may be shared of them.

    Args:
        kept: the folder of the step, where they stay; without, they go with the process.
        artifact: what Kubeflow stores.
        stored: let it hold them in full.
    """
    if stored:
        yield artifact
        return
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="beear-samples-") as folder:
        full = Path(folder) / "samples.jsonl"
        yield full
        share_samples(full, artifact)


def _leave(folder: Path, error: BeearError) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        write_failure(folder / _FAILURE, error)
    except StorageError as unwritten:
        # the error itself must not be lost behind this one
        say(f"error: {unwritten}")
