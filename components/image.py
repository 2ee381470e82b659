"""The images that components run in: those of this release, unless the environment names others."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version

try:
    _RELEASE = version("beear-gate")
except PackageNotFoundError:  # a source tree that was never installed
    _RELEASE = "0.0.0"

DEFAULT_IMAGE = f"ghcr.io/beear-gate/beear-gate:{_RELEASE}"
DEFAULT_SLIM_IMAGE = f"{DEFAULT_IMAGE}-slim"
IMAGE = os.environ.get("BEEAR_IMAGE") or DEFAULT_IMAGE
"""Has torch; runs everything."""
SLIM_IMAGE = os.environ.get("BEEAR_SLIM_IMAGE") or os.environ.get("BEEAR_IMAGE") or DEFAULT_SLIM_IMAGE
"""Has no torch; a single image that was named is taken here, too."""
NEED_TORCH = frozenset({"beear-mitigation", "safety-eval", "champion-eval"})
"""Components, as Kubeflow writes their names, that run in the first one; all others run in the second."""


def image_of(executor: str, full: str, slim: str) -> str:
    """Choose the image of one of a compiled pipeline's executors by its label, ``exec-<component>``.

    A component that is used twice has two, and the second has a number behind its name.
    """
    return full if re.sub(r"^exec-|-\d+$", "", executor) in NEED_TORCH else slim
