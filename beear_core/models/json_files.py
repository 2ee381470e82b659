"""JSON files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beear_core.errors import ModelError


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ModelError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; copy the whole model folder") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}); fetch it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        ModelError: if it is missing, not JSON, or something else.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}, expected an object; fetch it again")
    return values
