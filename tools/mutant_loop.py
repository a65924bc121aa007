"""A plug-in of pytest for source_mutants.py: collects tests once, runs them in a copy of the process for each mutant.

`pytest -p mutant_loop` reads `jobs.json`: for each mutant a function, the source of its module with the mistake, and
the tests to run until one fails. It writes a verdict a line to `verdicts.txt`, `unborn` where no function is found.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

_MEMORY = 6 << 30
_WAIT = 300.0
"""Seconds after which a process that does nothing is ended."""
_UNBORN = 3


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Takes the place of the run of all tests."""
    items = {item.nodeid: item for item in session.items}
    jobs = json.loads(Path("jobs.json").read_text())
    for job in jobs:
        importlib.import_module(job["module"])
    functions = _functions()
    gc.collect()
    gc.freeze()
    with open("verdicts.txt", "w", buffering=1) as verdicts:
        for job in jobs:
            tests = [items[test] for test in job["tests"] if test in items]
            print(_verdict(job, functions.get(tuple(job["code"]), []), tests), file=verdicts)
    return True


def _functions() -> dict[tuple[str, str, int], list[FunctionType]]:
    """All functions, by the code that they are made of."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for one in gc.get_objects():
        if type(one) is FunctionType:
            found.setdefault(_place(one.__code__), []).append(one)
    return found


def _place(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _verdict(job: dict[str, Any], functions: Sequence[FunctionType], items: Sequence[pytest.Item]) -> str:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _run(job, functions, items)
        finally:
            os._exit(status)
    end = time.monotonic() + _WAIT
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timed out"
        time.sleep(0.01)
    if os.WIFSIGNALED(status):
        return "timed out" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "killed"
    return {0: "survived", _UNBORN: "unborn"}.get(os.WEXITSTATUS(status), "killed")


def _run(job: dict[str, Any], functions: Sequence[FunctionType], items: Sequence[pytest.Item]) -> int:
    """The exit status of the process that holds the mutant."""
    os.setpgid(0, 0)
    seconds = int(job["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    if not _changed(job, functions):
        return _UNBORN
    for item, following in zip(items, [*items[1:], None], strict=True):
        if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
            return 1
    return 0


def _changed(job: dict[str, Any], functions: Sequence[FunctionType]) -> bool:
    """Gives every function that is made of the code in question the changed one, wherever it was imported."""
    path, place = job["code"][0], tuple(job["code"])
    new = next((code for code in _codes(compile(job["source"], path, "exec")) if _place(code) == place), None)
    if new is None or not functions:
        return False
    for function in functions:
        try:
            function.__code__ = new
        except ValueError:  # it reads other names of the functions around it
            return False
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    pending = [code]
    while pending:
        found = [one for one in pending.pop().co_consts if isinstance(one, CodeType)]
        yield from found
        pending += found
