"""Where a release leaves its model and what was found, besides MLflow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from beear_core.config.kinds import STRICT, Place

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def _can_be_written(uri: str) -> str:
    """Refuse what is neither a folder nor a prefix of a bucket."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if uri.startswith("s3://") and not (bucket and prefix.strip("/")):
        raise ValueError(f"{uri!r} names no folder in a bucket; write s3://bucket/prefix")
    if _SCHEME.match(uri) and not uri.startswith(("s3://", "file:///")):
        raise ValueError(f"{uri!r} cannot be written to; name a folder or s3://bucket/prefix")
    if not uri.strip("/ "):
        raise ValueError("no place is named; name a folder or s3://bucket/prefix, or leave it out")
    return uri.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class ArtifactsConfig:
    """Where a release leaves the model, the records, the report and the logs, besides MLflow.

    Attributes:
        uri: a folder, or ``s3://bucket/prefix``; the model goes to ``models/<SHA-256>`` there, all else to ``runs/<id>``;
            without it nothing is left but in MLflow.
        model: ``False``: all but the model.
    """

    __pydantic_config__ = STRICT
    uri: Annotated[Place, AfterValidator(_can_be_written)] | None = None
    model: bool = True
