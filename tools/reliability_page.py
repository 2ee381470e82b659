"""Write docs/reliability.md from what the tests of reliability noted: ``python -m tools.reliability_page``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beear_core.files import write_atomically

DOCS = Path(__file__).parents[1] / "docs"
NOTES, PAGE = DOCS / "reliability.json", DOCS / "reliability.md"
_HEAD = """<!-- Written by `make reliability`; run it instead of editing. -->
# Reliability

What was done to promotions, how often, and what came out. The tests use a real MLflow server on PostgreSQL and real
processes that run `beear promote`; triggers in the database note every move of the alias, apart from the code that is
tested. A figure stands here only when all that the test asserts of it held. `make test` runs a part of this,
`make reliability` all of it.

"""
_FAULTS = {
    "dropped": "the connection ends before the server has heard of the call",
    "lost": "the server acts, the answer is lost",
    "late answer": "the server acts, the answer comes after the client's limit",
    "late request": "the server hears of the call after the client's limit, and acts",
    "error": "HTTP 500",
    "killed before": "the process is killed (SIGKILL) before the server hears of the call",
    "killed after": "the process is killed (SIGKILL) when the server has acted",
}
_FAULTS_HEAD = """
## One call that goes wrong

A promotion that logs, registers and verifies a model and makes it champion, and one whose version is registered already,
make {calls} different calls, {changing} of them to change something. One went wrong in each run, and MLflow's client
tried nothing again. After each of them, running again promoted; the decision had one version, with the bytes that were
decided on; the alias had been at the champion before and at that version, and nowhere else; and it had not moved before
every file was read back.

"""
_USERS = {
    "basic": "user and password (`MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_PASSWORD`)",
    "token": "bearer token (`MLFLOW_TRACKING_TOKEN`)",
    "wrong_password": "wrong password",
    "wrong_token": "wrong token",
    "password_in_uri": "wrong password in the URI",
    "no_password": "no password",
    "reader": "user who may only read",
}

Notes = Mapping[str, Mapping[str, Any]]


def page(notes: Notes) -> str:
    """Write the page; of what nothing was noted, nothing stands there."""
    parts = [_HEAD]
    if "race" in notes:
        parts += _race(notes["race"])
    if notes.get("faults", {}).keys() & _FAULTS.keys():
        parts += _faults(notes["faults"])
    if "users" in notes:
        parts += _users(notes["users"])
    return "".join(parts)


def _race(race: Mapping[str, Any]) -> list[str]:
    rows = [
        ("rounds, in each of which one process was killed (SIGKILL)", race["rounds"]),
        ("processes that promoted at once", race["processes"]),
        ("points of the protocol at which one was killed", race["points"]),
        ("champions, in one serial order: epochs, alias and `replaced_version` agree", race["promotions"]),
        ("lost the race: exit 1, nothing changed", race["lost"]),
        ("ran out of the lock's time: exit 1, alias not moved", race["too_late"]),
        ("held other bytes than were decided on: exit 1, nothing changed", race["altered"]),
        ("killed, and had moved the alias, to a verified version", race["killed_after_moving"]),
        ("longest time from a kill to the next holder", f"{race['blocked_s']} s, expiry {race['expiry_s']} s"),
    ]
    head = "## Eight at once, one of them killed\n\nThe lock's expiry is 150 s otherwise; here it is shortened.\n\n"
    return [head, *_table(("what", "figure"), rows)]


def _faults(faults: Mapping[str, Any]) -> list[str]:
    head = _FAULTS_HEAD.format(**faults)
    rows = [
        (text, sum(faults[name].values()), *(faults[name].get(end, 0) for end in ("done", "error", "killed")))
        for name, text in _FAULTS.items()
        if name in faults
    ]
    lines = _table(("what went wrong", "calls", "promoted all the same", "exit 1", "killed"), rows)
    if "altered" in faults:
        lines.append(
            f"\nOne byte of a model's file changed on its way to the server, {faults['altered']['refused']} times: exit 1, "
            "the alias was not moved, and the file was named.\n"
        )
    return [head, *lines]


def _users(users: Mapping[str, str]) -> list[str]:
    head = "\n## Who calls\n\nMLflow's auth app. No message held a password or token.\n\n"
    return [
        head,
        *_table(("who", "what came out"), [(text, users[name]) for name, text in _USERS.items() if name in users]),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    lines = (head, tuple("---" for _ in head), *rows)
    return [f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines]


def main() -> None:
    """Write the page."""
    write_atomically(PAGE, page(json.loads(NOTES.read_text())).encode())


if __name__ == "__main__":
    main()
