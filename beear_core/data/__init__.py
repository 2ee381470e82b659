"""Prompts, openings and triggers, and the two folders that the validated ones travel in.

``anchors/`` holds what the mitigation may see, ``suites/`` what models are measured with; each row stands in one of
them at most. A manifest binds the files of a folder, so that what was validated is what is used.
"""

from beear_core.data.manifest import verify_manifest, write_manifest
from beear_core.data.rows import BUILTIN, CODE, DEFAULT_CATEGORY, ROLES, Row, builtin_path, read_rows, split_of, write_rows
from beear_core.data.sets import (
    ANCHOR_FILES,
    ANSWERED,
    SPLITS,
    SUITE_FILES,
    AnchorSet,
    Message,
    Opening,
    Prompt,
    SuiteSet,
    Trigger,
    load_anchors,
    load_suites,
    read_openings,
    read_prompts,
    read_triggers,
)

__all__ = [
    "ANCHOR_FILES",
    "ANSWERED",
    "BUILTIN",
    "CODE",
    "DEFAULT_CATEGORY",
    "ROLES",
    "SPLITS",
    "SUITE_FILES",
    "AnchorSet",
    "Message",
    "Opening",
    "Prompt",
    "Row",
    "SuiteSet",
    "Trigger",
    "builtin_path",
    "load_anchors",
    "load_suites",
    "read_openings",
    "read_prompts",
    "read_rows",
    "read_triggers",
    "split_of",
    "verify_manifest",
    "write_manifest",
    "write_rows",
]
