"""What the tests of reliability try, and where they note what came out.

``BEEAR_SWEEP=all`` tries everything; without it a part is tried, so that all tests end in a few minutes.
``BEEAR_RELIABILITY`` names the file to note in; without it nothing is noted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = os.environ.get("BEEAR_RELIABILITY", "")
FULL = os.environ.get("BEEAR_SWEEP") == "all"


def note(topic: str, **facts: Any) -> None:
    """Add facts to what is known of a topic; called when everything about them was asserted."""
    if not FILE:
        return
    path = Path(FILE)
    known = json.loads(path.read_text()) if path.exists() else {}
    known[topic] = known.get(topic, {}) | facts
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
