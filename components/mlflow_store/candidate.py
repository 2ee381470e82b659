"""The alias of the version that passed and awaits approval."""

from __future__ import annotations

from beear_core.config import RegistryConfig
from beear_core.errors import RegistryError
from components.mlflow_store.champion import Alias, Version, named, number_of
from components.mlflow_store.client import mlflow_errors


class Candidate:
    """The alias of the version that awaits approval; it moves under the lock of the champion's alias, and forwards.

    Args:
        champion: the champion's alias of the same model.
        alias: this one's name.
    """

    def __init__(self, champion: Alias, alias: str) -> None:
        self.champion, self.alias, self.name = champion, alias, champion.name
        self._pointer = Alias(champion.client, champion.uri, RegistryConfig(model_name=self.name, alias=alias))

    def current(self) -> Version | None:
        """Find the version that awaits approval, or was the last to."""
        return self._pointer.champion()

    def nominate(self, version: Version, again: str = "") -> None:
        """Let a version await approval, unless it is champion already.

        Args:
            version: a registered and verified one.
            again: why it may, though it is older than the champion or another candidate, or was rolled back.

        Raises:
            RegistryError: it would go backwards without a reason, somebody else moved the alias, or MLflow fails.
        """
        with self.champion.lock.held() as held:
            now, waiting = self.champion.champion(), self.current()
            if number_of(now) == version.number:
                return
            if not again:
                self.champion.refuse_backwards(version, now)
                if waiting is not None and int(waiting.number) > int(version.number):
                    raise RegistryError(
                        f"version {version.number} of {self.name} is older than {named(waiting)}, which is {self.alias} "
                        "already; nothing was changed. Approve or leave that one, or run the gate again"
                    )
            held.check()
            with mlflow_errors(f"setting the alias {self.alias}", self.champion.uri):
                self.champion.client.set_registered_model_alias(self.name, self.alias, version.number)
            after = self.current()
            if number_of(after) != version.number:
                raise RegistryError(
                    f"{self.alias} of {self.name} was set to version {version.number} and reads {named(after)}: somebody "
                    "moved it without the gate; look at that version and run again"
                )

    def check(self, version: Version, *, waived: bool) -> None:
        """Make sure that a version may be approved: it is the candidate still.

        Args:
            version: that is to be approved.
            waived: its gate refused it, so it never became candidate; then none may have come after it.

        Raises:
            RegistryError: it may not.
        """
        waiting = self.current()
        if number_of(waiting) == version.number:
            return
        if waived and (waiting is None or int(waiting.number) < int(version.number)):
            return
        raise RegistryError(
            f"{self.alias} of {self.name} is {named(waiting)} and not version {version.number}, which was to be approved; "
            "nothing was changed. Approve the decision of the version that is candidate now, or run the gate again"
        )
