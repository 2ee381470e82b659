"""One promotion at a time, though MLflow has no compare-and-set: a lock made of what it does atomically.

Every backend of MLflow refuses to create a registered model whose name is taken. So whoever creates the next
``<model>.promotion-lock.<epoch>`` holds the lock, until it is marked released. Epochs only grow, and the newest is never
deleted: an older holder that wakes up finds a newer epoch, and stops. A holder that was killed is passed over by whoever
has watched the same epoch for the whole expiry on its own clock; no two machines need to agree on the time.

What MLflow cannot give is fencing by the server: a holder that hangs, between its last look and the call that follows,
for longer than the rest of the expiry can still act late. So it looks before every call that changes something, and does
not begin one with less than ``MARGIN_S`` left. What was moved is read back afterwards.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from beear_core.errors import RegistryError
from beear_core.progress import warn
from components.mlflow_store.client import mlflow_errors

EXPIRY_S = 150.0
"""A holder that was killed blocks others for so long at the most."""
MARGIN_S = 70.0
"""What one call may take with its retries, by the limits in ``client``."""
WAIT_S = 300.0
_DESCRIPTION = "Makes promotions of {name} take turns. Leave it: the newest of these is needed, older ones are removed."


@dataclass(frozen=True, slots=True)
class _Entry:
    epoch: int
    owner: str
    released: bool


@dataclass(slots=True)
class Held:
    """The lock while it is held. ``epoch``: counts promotions, later ones are larger. ``until``: on the holder's clock."""

    lock: PromotionLock
    epoch: int
    until: float

    def check(self) -> None:
        """Make sure, before something is changed, that the lock is still ours and stays so while the change is made.

        Raises:
            RegistryError: it is not, or MLflow fails.
        """
        with mlflow_errors("looking whether it is still this promotion's turn", self.lock.uri):
            newest = self.lock.newest()
        left = self.until - self.lock.clock()
        if newest is None or (newest.epoch, newest.owner) != (self.epoch, self.lock.owner):
            raise RegistryError(
                f"somebody else took over the promotion of {self.lock.name} after {self.lock.expiry:g} s; nothing more was "
                "changed here. Run again"
            )
        if left < self.lock.margin:
            raise RegistryError(
                f"the promotion of {self.lock.name} took so long that only {left:.0f} of {self.lock.expiry:g} s are left, "
                f"and the next change may need {self.lock.margin:g}; nothing more was changed. Run again"
            )


class PromotionLock:
    """The lock of one registered model.

    Args:
        client: of MLflow.
        uri: of the store, for messages.
        name: of the registered model.
        expiry: seconds after which a holder may be passed over.
        margin: seconds that a holder must have left to begin a change.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        client: Any,
        uri: str,
        name: str,
        *,
        expiry: float = EXPIRY_S,
        margin: float = MARGIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client, self.uri, self.name = client, uri, name
        self.expiry, self.margin, self.clock = expiry, margin, clock
        self.prefix, self.owner = f"{name}.promotion-lock.", uuid.uuid4().hex

    @contextmanager
    def held(self, wait: float = WAIT_S) -> Iterator[Held]:
        """Wait until the lock is ours, and release it in the end.

        Raises:
            RegistryError: another promotion holds it for longer than ``wait`` seconds, or MLflow fails.
        """
        try:
            with mlflow_errors("waiting for other promotions", self.uri):
                held = self._acquired(self.clock() + wait)
        except BaseException:
            # it may be ours, and only the answer was lost
            with suppress(Exception):
                self._let_go()
            raise
        try:
            yield held
        finally:
            try:
                self._let_go()
            except Exception as error:  # noqa: BLE001
                # whatever MLflow and its transports raise: what was done is done, and the lock expires
                warn(f"the promotion lock of {self.name} could not be released and expires in {self.expiry:g} s: {error}")

    def newest(self) -> _Entry | None:
        """Read who holds the lock, or held it last."""
        return max(self._entries(), key=lambda entry: entry.epoch, default=None)

    def _acquired(self, give_up: float) -> Held:
        seen: _Entry | None = None
        since, began = 0.0, self.clock()
        while True:
            now, newest = self.clock(), self.newest()
            if newest != seen:
                seen, since = newest, now
            if newest is None or newest.released or now - since >= self.expiry:
                epoch = newest.epoch + 1 if newest else 1
                self._create(epoch)
                made = self.newest()
                if made is not None and (made.epoch, made.owner) == (epoch, self.owner):
                    # counted from before it was created, so that nobody else's expiry can end before ours
                    return Held(self, epoch, now + self.expiry)
            if now > give_up:
                raise RegistryError(
                    f"another promotion of {self.name} has been going on for {now - since:.0f} s; nothing was changed. Run "
                    "again when it has ended"
                )
            time.sleep(_pause(now - began))

    def _create(self, epoch: int) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(
                f"{self.prefix}{epoch}", tags={"owner": self.owner}, description=_DESCRIPTION.format(name=self.name)
            )
        except MlflowException as error:
            # somebody else was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _let_go(self) -> None:
        """Mark the newest epoch released if it is ours, and remove older ones, which nobody needs."""
        from mlflow.exceptions import MlflowException

        entries = sorted(self._entries(), key=lambda entry: entry.epoch)
        if entries and entries[-1].owner == self.owner:
            self.client.set_registered_model_tag(f"{self.prefix}{entries[-1].epoch}", "released", "true")
            for entry in entries[:-1]:
                # one that the next holder removes at the same time, or that is another user's, is in nobody's way
                with suppress(MlflowException):
                    self.client.delete_registered_model(f"{self.prefix}{entry.epoch}")

    def _entries(self) -> list[_Entry]:
        # LIKE takes "_" for any letter, so what it finds is looked at again
        named = ((model.name, model.tags) for model in self._pages(f"name LIKE '{self.prefix}%'"))
        numbered = ((name.removeprefix(self.prefix), tags) for name, tags in named if name.startswith(self.prefix))
        return [
            _Entry(int(number), tags.get("owner", ""), released="released" in tags)
            for number, tags in numbered
            if number.isdigit()
        ]

    def _pages(self, wanted: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_registered_models(wanted, max_results=100, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _pause(waited: float) -> float:
    """Choose how long to wait before the next look: about a quarter of a second at first, a second in the end.

    Each look costs the server about 10 ms, and those who wait must not slow down the one that they wait for.
    """
    return random.uniform(0.5, 1.5) * min(1.0, 0.25 + waited / 10)
