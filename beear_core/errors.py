"""Every error that a user can meet, and the exit code each one ends the command with.

::

    BeearError                     1   something in the world is not as it must be
    ├── ConfigError                2   a configuration; lists every fault at once
    │   └── PolicyError            2   a policy that cannot be read or cannot be meant
    ├── ModelError                 1   a model folder that cannot be used
    │   ├── ModelNotFoundError     2   nothing at the place that was named
    │   ├── UnsafeModelError       1   pickles, custom code, links out of the folder
    │   ├── CorruptModelError      1   truncated, altered or incomplete weights
    │   └── ChatTemplateError      1   no chat template, or one that cannot be used
    ├── DataError                  1   a data file that cannot be read or must not be used
    ├── MitigationError            1   the bi-level loop cannot go on
    ├── EvaluationError            1   a measurement that cannot be made
    ├── EvidenceError              1   records that do not belong together
    │   └── SignatureError         1   a model that is not what was signed, or by whom
    ├── StorageError               1   disk, S3: cannot be read or written
    ├── RegistryError              1   MLflow cannot be reached or refuses
    └── KubeflowError              1   Kubeflow Pipelines cannot be reached or refuses

``passing`` tells of an error whether trying the same again may mend it: a disk, a network, a copy that was cut off.

A negative verdict of the gate is not an error but a value; commands end with ``EXIT_REFUSED`` then. So they do when a
version passed and awaits approval: 0 means promoted, and what follows a promotion must not begin yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from beear_core.uris import hide_secrets

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3


class BeearError(Exception):
    """Base of all errors a user can mend; the message names thing, value, limit and remedy, and holds no secret."""

    exit_code: ClassVar[int] = EXIT_ERROR
    passing: bool = False

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))

    @property
    def kind(self) -> str:
        """Name the kind of error, as programs and messages call it."""
        return type(self).__name__


class ConfigError(BeearError):
    """A configuration with at least one fault; ``faults`` holds one line for each."""

    exit_code: ClassVar[int] = EXIT_USAGE

    def __init__(self, what: str, faults: Iterable[str] = ()) -> None:
        self.faults = tuple(map(hide_secrets, faults))
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{what}{lines}")


class PolicyError(ConfigError):
    """A policy that cannot be read, names what does not exist, or cannot be meant."""


class ModelError(BeearError):
    """A model folder that cannot be used."""


class ModelNotFoundError(ModelError):
    """Nothing at the place that was named."""

    exit_code: ClassVar[int] = EXIT_USAGE


class UnsafeModelError(ModelError):
    """A folder that could run code when loaded: pickles, custom modules, links out of it."""


class CorruptModelError(ModelError):
    """Weights that are truncated, altered or incomplete."""

    passing = True


class ChatTemplateError(ModelError):
    """No chat template, or one in which the end of the prompt cannot be found."""


class DataError(BeearError):
    """A data file that cannot be read or must not be used."""


class MitigationError(BeearError):
    """The bi-level loop cannot go on."""


class EvaluationError(BeearError):
    """A measurement that cannot be made."""


class EvidenceError(BeearError):
    """Records that do not belong together, or that were altered."""


class SignatureError(EvidenceError):
    """A model that is not what was signed, or not signed by whom it should be.

    ``changed``, ``extra``, ``missing``: files as relative POSIX paths; all empty where the signature itself does not hold.
    """

    def __init__(
        self, what: str, *, changed: Iterable[str] = (), extra: Iterable[str] = (), missing: Iterable[str] = ()
    ) -> None:
        self.changed, self.extra, self.missing = tuple(changed), tuple(extra), tuple(missing)
        super().__init__(what)


class StorageError(BeearError):
    """A disk or object store that cannot be read or written."""

    passing = True


class RegistryError(BeearError):
    """MLflow cannot be reached, refuses, or holds something else than expected."""

    passing = True


class KubeflowError(BeearError):
    """Kubeflow Pipelines cannot be reached, refuses, or does not tell what it must.

    ``passing``: it may answer when it is asked again.
    """

    def __init__(self, message: str = "", *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(message)
