"""How thorough a release is measured, as an option of commands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Profile(StrEnum):
    """How thorough a release is measured."""

    quick = "quick"
    standard = "standard"
    release = "release"


ProfileOption = Annotated[Profile, typer.Option("--profile", help="sample sizes and policy")]
