"""A plug-in of pytest that keeps which test executes which line, for source_mutants.py: `pytest -p executed_lines`."""

from __future__ import annotations

import coverage
import pytest

_LINES = coverage.Coverage(source=["graphopt/ir", "graphopt/rewrite"])
_LINES.start()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is executed from here on is this test's."""
    _LINES.switch_context(item.nodeid)


def pytest_sessionfinish() -> None:
    """Writes `.coverage`."""
    _LINES.stop()
    _LINES.save()
