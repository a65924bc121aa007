"""A plug-in of pytest for source_mutants.py: `pytest -p executed_lines` keeps which test executes which line.

It writes `.coverage`, with a context for each test, and `seconds.json`: what each test takes of a processor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

_LINES = coverage.Coverage(source=["graphopt/ir", "graphopt/rewrite"])
_LINES.start()
_SECONDS: dict[str, float] = {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What is executed from here on is this test's."""
    _LINES.switch_context(item.nodeid)
    before = time.process_time()
    result = yield
    _SECONDS[item.nodeid] = time.process_time() - before
    return result


def pytest_sessionfinish() -> None:
    """Writes what was found."""
    _LINES.stop()
    _LINES.save()
    Path("seconds.json").write_text(json.dumps(_SECONDS))
