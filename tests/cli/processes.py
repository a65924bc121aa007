"""Runs of the program that end before they are done, and what those leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

GRAPHOPT = [sys.executable, "-c", "from graphopt.cli import main; main()"]

WAITING = """
import os, signal, sys, time
from graphopt.rewrite import Expr, Ops, Rule, Value

class Waits(Rule):
    "Waits."
    stage = "clean"
    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Erf(x)
    def where(self):
        print("begun", file=sys.stderr, flush=True)
        time.sleep(60)
        return "too slow"
    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Erf(x)
"""
"""A rule that says when it has begun, and takes its time."""

FORKED = """
import os, signal, sys
import graphopt.report.terminal
from graphopt.cli import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree"}

def before_operation(number):
    left = number
    def hook(event, arguments):
        nonlocal left
        if event in CHANGES or event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    return hook

for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.addaudithook(before_operation(int(line)))
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Reads numbers; for each runs the program, which is killed before so many operations that change files."""

AT_ONCE = """
import json, os, sys
import graphopt.quantize.observe, graphopt.report.quantization, graphopt.report.terminal
from graphopt.cli import main

for lines in json.loads(sys.argv[1]):
    children = []
    for line in lines:
        if not (child := os.fork()):
            sys.argv = ["graphopt", *line]
            main()
        children.append(child)
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)
"""
"""Runs command lines at once, those of the next list when all have ended; says how each ended."""


class Ended(NamedTuple):
    code: int
    err: str


def environment(root: Path, scratch: Path, **others: str) -> dict[str, str]:
    """That of a run which keeps its temporary files, and what it calibrates, in `scratch`."""
    mine = {"PYTHONPATH": str(root), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, "XDG_CACHE_HOME": str(scratch), **mine, **others}


@contextmanager
def killed_at(root: Path, scratch: Path, *arguments: object) -> Iterator[Callable[[int], int]]:
    """A function that runs the program, kills it before that operation on files, and returns how it ended."""
    command = [sys.executable, "-c", FORKED, *map(str, arguments)]
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(root, scratch), **options) as forking:

        def end(operation: int) -> int:
            print(operation, file=forking.stdin, flush=True)
            return int(forking.stdout.readline())

        yield end


def finished(command: list[str], environment: Mapping[str, str], **options: Any) -> Ended:
    """Runs a command to its end."""
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=60, **options)
    return Ended(done.returncode, done.stderr)


def at_once(root: Path, scratch: Path, rounds: list[list[list[str]]]) -> list[list[int]]:
    """Runs the command lines of each round at once; returns their exit codes."""
    command = [sys.executable, "-c", AT_ONCE, json.dumps(rounds)]
    done = subprocess.run(command, env=environment(root, scratch), stdout=subprocess.PIPE, text=True, timeout=120)
    return [[int(code) for code in line.split()] for line in done.stdout.splitlines()]


def workers(scratch: Path) -> list[int]:
    """The processes that run models for a run whose temporary files are in `scratch`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(scratch).encode() in line and b"graphopt.runtime.worker" in line:
            found.append(int(process.name))
    return found


def nothing_goes_on(scratch: Path, seconds: float = 15) -> bool:
    """Whether soon no process of a run is left, and no temporary file."""
    end = time.monotonic() + seconds
    while workers(scratch) or any(scratch.iterdir()):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
