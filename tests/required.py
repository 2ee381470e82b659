"""Under BEEAR_REQUIRE_SERVICES=1 what is skipped has failed: a check that never ran must not look like one that passed.

Without it, as on a laptop, what is not installed is skipped, and the reason says what to install.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

ROOT_ONLY = "file systems can be mounted by root only"
_MAY_BE_SKIPPED = (ROOT_ONLY,)  # nothing that could be installed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Look at what became of a test."""
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Look at what became of a file: one that is skipped as a whole is so here."""
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: Any) -> Any:
    if os.environ.get("BEEAR_REQUIRE_SERVICES") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.endswith(_MAY_BE_SKIPPED):
            report.outcome = "failed"
            report.longrepr = f"BEEAR_REQUIRE_SERVICES=1 lets nothing be skipped. {reason}"
    return report
