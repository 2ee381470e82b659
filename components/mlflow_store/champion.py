"""The alias that names the champion: read, moved forwards once, moved back.

MLflow lets anybody move an alias, and has no compare-and-set. So whoever moves it through this project holds the promotion
lock, reads where it points, moves it, and reads it again; anything unexpected is an error, and the alias is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from beear_core.config import RegistryConfig
from beear_core.errors import RegistryError
from beear_core.records import Event, Waiver
from components.mlflow_store.client import mlflow_errors
from components.mlflow_store.lock import Held, PromotionLock

_NO_MODEL = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version: its number as MLflow writes it, its tags, and the run that it came from."""

    number: str
    tags: Mapping[str, str]
    run_id: str = ""


def version_of(found: Any) -> Version:
    """Read what MLflow says of a version."""
    return Version(number=str(found.version), tags=dict(found.tags), run_id=str(found.run_id or ""))


@dataclass(frozen=True, slots=True)
class Grounds:
    """Why the alias is to move. ``tags``: noted with the version before; ``waivers``: those that it rests on."""

    event: Event = "promotion"
    by: str = ""
    reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """What the alias did, while the lock is still held."""

    version: Version
    before: Version | None
    held: Held
    grounds: Grounds


Recorder = Callable[[Move], None]
"""Writes down what the alias did."""


class Alias:
    """The champion's alias of one registered model.

    Args:
        client: of MLflow.
        uri: of the store, for messages.
        config: names the model and the alias.
        recorder: called under the lock before anything changes, with the champion; gives what is called after the move.
    """

    def __init__(
        self,
        client: Any,
        uri: str,
        config: RegistryConfig,
        recorder: Callable[[Version | None], Recorder] = lambda _: lambda _: None,
    ) -> None:
        self.client, self.uri, self.name, self.alias = client, uri, config.model_name, config.alias
        self.lock, self.recorder = PromotionLock(client, uri, self.name), recorder

    def champion(self) -> Version | None:
        """Find the version that the alias points to; ``None`` where the registry says that there is none.

        Raises:
            RegistryError: any other answer.
        """
        from mlflow.exceptions import MlflowException

        with mlflow_errors(f"reading the alias {self.alias}", self.uri):
            try:
                # asked for by its alias, MLflow says INVALID_PARAMETER_VALUE, and that can mean anything
                number = self.client.get_registered_model(self.name).aliases.get(self.alias)
            except MlflowException as error:
                if error.error_code == _NO_MODEL:
                    return None
                raise
            return version_of(self.client.get_model_version(self.name, number)) if number is not None else None

    def move_to(
        self,
        version: Version,
        expected: Version | None,
        again: str = "",
        grounds: Grounds | None = None,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a version the champion, if the champion is still the expected one and no newer one was promoted since.

        Args:
            version: a registered and verified one.
            expected: the champion when the gate began.
            again: why an older version, or one that was rolled back, is to be champion once more; noted in its tags.
            grounds: by default that it passed.
            still: called under the lock; raises where the version may not become champion any more.

        Raises:
            RegistryError: somebody else moved the alias, it would go backwards without a reason, or MLflow fails.
        """
        grounds = grounds or Grounds(reason=again)
        with self.lock.held() as held:
            now = self.champion()
            if now is not None and now.number == version.number:
                return
            if number_of(now) != number_of(expected):
                raise RegistryError(
                    f"{self.alias} of {self.name} was expected at {named(expected)} and is at {named(now)}: somebody "
                    "else promoted meanwhile. Nothing was changed; look at that version and run again"
                )
            if not again:
                self.refuse_backwards(version, now)
            still()
            record = self.recorder(now)
            notes = {**grounds.tags, "replaced_version": number_of(now) or "none", "promotion": str(held.epoch)}
            notes |= {"promoted_again": again, "rolled_back": "false"} if again else {}
            self._move(version, now, held, notes)
            record(Move(version, now, held, grounds))

    def move_back(self, verify: Callable[[Version], object], reason: str = "") -> tuple[Version, Version]:
        """Make the version that the champion replaced champion again; returns (left, champion now).

        One that was rolled back itself is passed over, for the one that it replaced.

        Args:
            verify: raises where a version does not hold what was decided on.
            reason: why, in somebody's words.

        Raises:
            RegistryError: there is no champion, none before it that was not rolled back, or that one did not pass its gate.
        """
        champion, earlier = self._replaced()
        # before the lock: a large model takes longer to read than others should wait
        verify(earlier)
        with self.lock.held() as held:
            if number_of(self.champion()) != champion.number:
                raise RegistryError(
                    f"{self.alias} of {self.name} was moved while version {earlier.number} was verified; nothing was "
                    "changed. Look at that version and run again"
                )
            record = self.recorder(champion)
            # noted first: killed between the two, nothing can promote it again, and rolling back again ends it
            self._note(champion, held, {"rolled_back": "true"})
            try:
                self._move(earlier, champion, held, {})
            except RegistryError:
                with suppress(RegistryError):
                    self._note(champion, held, {"rolled_back": "false"})
                raise
            record(Move(earlier, champion, held, Grounds("roll-back", reason=reason)))
        return champion, earlier

    def _replaced(self) -> tuple[Version, Version]:
        """Find the champion, and the last one before it that was not rolled back itself."""
        champion = self.champion()
        if champion is None:
            raise RegistryError(f"{self.name} has no {self.alias} to roll back from")
        earlier, seen = champion, {champion.number}
        while earlier is champion or earlier.tags.get("rolled_back") == "true":
            number = earlier.tags.get("replaced_version", "none")
            if number == "none" and earlier is champion:
                raise RegistryError(
                    f"version {champion.number} of {self.name} replaced no earlier {self.alias}; nothing to roll back to"
                )
            # promoted again, a version replaces one that replaced it
            if number == "none" or number in seen:
                raise RegistryError(
                    f"every {self.alias} before version {champion.number} of {self.name} was rolled back; nothing to roll "
                    "back to. Run the gate on another model, or promote one on purpose with "
                    "'beear promote --again --reason TEXT'"
                )
            seen.add(number)
            with mlflow_errors("reading the version before", self.uri):
                earlier = version_of(self.client.get_model_version(self.name, number))
        if earlier.tags.get("verdict") != "passed":
            raise RegistryError(
                f"version {earlier.number} of {self.name} did not pass its gate; it cannot become {self.alias}"
            )
        return champion, earlier

    def refuse_backwards(self, version: Version, now: Version | None) -> None:
        """Refuse a version that is older than the champion, or was rolled back.

        Raises:
            RegistryError: it is, or MLflow fails.
        """
        with mlflow_errors("reading the version to promote", self.uri):
            tags = version_of(self.client.get_model_version(self.name, version.number)).tags
        remedy = (
            "run the gate again for a new decision, or promote it on purpose with 'beear promote --again --reason TEXT'"
        )
        if tags.get("rolled_back") == "true":
            raise RegistryError(
                f"version {version.number} of {self.name} was {self.alias} and was rolled back; nothing was changed. "
                f"{remedy.capitalize()}"
            )
        if now is not None and int(now.number) > int(version.number):
            raise RegistryError(
                f"version {version.number} of {self.name} is older than {named(now)}, which was promoted since its "
                f"decision; nothing was changed. {remedy.capitalize()}"
            )

    def _move(self, version: Version, before: Version | None, held: Held, notes: Mapping[str, str]) -> None:
        self._note(version, held, notes)
        held.check()
        try:
            with mlflow_errors(f"setting the alias {self.alias}", self.uri):
                self.client.set_registered_model_alias(self.name, self.alias, version.number)
            after = self.champion()
            if number_of(after) != version.number:
                raise RegistryError(
                    f"{self.alias} of {self.name} was set to version {version.number} and reads {named(after)}: somebody "
                    "moved it without the gate; look at that version and run again"
                )
        except RegistryError as error:
            self._put_back(version, before, error)
            raise

    def _note(self, version: Version, held: Held, notes: Mapping[str, str]) -> None:
        for key, value in notes.items():
            held.check()
            with mlflow_errors(f"noting {key}", self.uri):
                self.client.set_model_version_tag(self.name, version.number, key, value)

    def _put_back(self, version: Version, before: Version | None, error: RegistryError) -> None:
        try:
            self._restore(version, before)
        except RegistryError as second:
            raise RegistryError(
                f"{error}; and {self.alias} of {self.name} could not be put back ({second}): it may be at version "
                f"{version.number} now. Look where it points, and run again"
            ) from error

    def _restore(self, version: Version, before: Version | None) -> None:
        """Take back our own move, and only that: an alias that no longer points to ``version`` is left alone."""
        if number_of(self.champion()) != version.number:
            return
        with mlflow_errors(f"putting the alias {self.alias} back", self.uri):
            if before is None:
                self.client.delete_registered_model_alias(self.name, self.alias)
            else:
                self.client.set_registered_model_alias(self.name, self.alias, before.number)


def number_of(version: Version | None) -> str | None:
    """Give a version's number, ``None`` for no version."""
    return version.number if version else None


def named(version: Version | None) -> str:
    """Name a version in a message."""
    return f"version {version.number}" if version else "no version"
