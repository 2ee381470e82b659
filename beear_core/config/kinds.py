"""Kinds of values that several sections of the configuration share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from beear_core.uris import has_secret

STRICT = ConfigDict(extra="forbid", strict=True)
"""No key that is not known, and no "8" for 8."""

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1)]


def _not_reserved(alias: str) -> str:
    """Refuse an alias that MLflow keeps for itself: ``latest`` or ``v<number>``."""
    if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError(f"alias {alias!r} is reserved by MLflow; choose another, for instance 'champion'")
    return alias


def _expanded(place: str) -> str:
    """Expand a leading ``~`` to the home folder: no shell expands what stands in a file."""
    if "\0" in place:
        raise ValueError("the path holds a NUL character; remove it")
    try:
        return str(Path(place).expanduser()) if place.startswith("~") else place
    except RuntimeError as error:
        raise ValueError(f"{error} for {place!r}; write the whole path") from error


def without_secret(uri: str, what: str, remedy: str) -> str:
    """Refuse a URI with a user or a password: the configuration is stored with the run and becomes a pipeline parameter."""
    if has_secret(uri):
        raise ValueError(
            f"{what} holds a user, a password or a token, and the configuration is stored with every run; leave it out and "
            f"set {remedy}"
        )
    return uri


def without_credentials(place: str) -> str:
    """Refuse a place with a user or a password; see ``without_secret``."""
    return without_secret(place, "it", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or HF_TOKEN")


Place = Annotated[str, AfterValidator(without_credentials), AfterValidator(_expanded)]
"""A path or URI."""
AliasName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$"), AfterValidator(_not_reserved)]
"""An alias in MLflow's registry."""
