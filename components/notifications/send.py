"""Send a message to every service that ``BEEAR_NOTIFY`` names, within bounds, and never with an error.

``BEEAR_NOTIFY`` holds URLs of Apprise (https://appriseit.com/services/), separated by commas or blanks. They hold
passwords and tokens at any place, so nothing of them is shown but what stands before ``://``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from beear_core.progress import warn
from beear_core.uris import NOTIFY, hide_secrets, notification_urls
from components.notifications.post import NOT_INSTALLED

LIMIT_S = 10.0
"""All services together have so long; then the message counts as not sent."""
_POST = Path(__file__).with_name("post.py")
_KIND = re.compile(r"([a-z]{2,16})s?://", re.IGNORECASE)


def send(title: str, body: str, *, limit: float = LIMIT_S) -> None:
    """Send a message; what cannot be sent in ``limit`` seconds is a warning that names the kind of service.

    Args:
        title: one line.
        body: plain text. Secrets are hidden in both.
        limit: seconds for all services together.
    """
    urls = notification_urls()
    if not urls:
        return
    told = json.dumps({"urls": urls, "title": hide_secrets(title), "body": hide_secrets(body)})
    try:
        printed, missing = _posted(told, limit)
        sent = dict(_result(line) for line in printed.splitlines())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        warn(f"no notification was sent ({type(error).__name__}); everything else was done")
        return
    if missing:
        warn(f"no notification was sent: {NOTIFY} is set and apprise is not installed; install beear-gate[registry]")
        return
    for number, url in enumerate(urls):
        if not sent.get(number):
            warn(f"a notification was not sent by {_kind(url)}: {_reason(sent, number, limit)}; see {NOTIFY}")


def _posted(told: str, limit: float) -> tuple[str, bool]:
    """Post in a process that is killed in time; returns (what it printed, whether Apprise is missing)."""
    # -P: a file named like a library in the working folder is not run
    command = [sys.executable, "-P", str(_POST)]
    try:
        done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        return output.decode() if isinstance(output, bytes) else output, False
    return done.stdout, done.returncode == NOT_INSTALLED


def _result(line: str) -> tuple[int, bool | None]:
    result = json.loads(line)
    return result["url"], result["sent"]


def _reason(sent: dict[int, bool | None], number: int, limit: float) -> str:
    if number not in sent:
        return f"it did not answer within {limit:g} s"
    return "it refused or cannot be reached" if sent[number] is False else "Apprise knows no service with such a URL"


def _kind(url: str) -> str:
    """Name the kind of service by the URL's scheme; what may be something else is not shown."""
    found = _KIND.match(url)
    return found[1].lower() if found else "an unknown service"
