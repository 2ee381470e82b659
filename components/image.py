"""The image that every component runs in: the one of this release, unless the environment names another."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

try:
    _RELEASE = version("beear-gate")
except PackageNotFoundError:  # a source tree that was never installed
    _RELEASE = "0.0.0"

DEFAULT_IMAGE = f"ghcr.io/beear-gate/beear-gate:{_RELEASE}"
IMAGE = os.environ.get("BEEAR_IMAGE") or DEFAULT_IMAGE
