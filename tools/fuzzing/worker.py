"""The process in which cases are tried: what kills it, or does not come to an end, is a finding."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from fuzzing.case import Case, Finding, Outcome

_PATIENCE = 150.0
"""Seconds after which a case is given up: what a command may take is held by its own limit."""
_MORE = 3 << 30
"""Bytes of address space beyond what the modules take."""


class Worker:
    """A process that tries cases, and is started again where it dies; a context manager."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._log = Path(tempfile.mkstemp(prefix="fuzz-", suffix=".log")[1])

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self._log.unlink()

    def try_case(self, case: Case) -> Outcome:
        if self._process is None or self._pipe is None:
            self._start()
        assert self._pipe is not None
        assert self._process is not None
        try:
            self._pipe.send(case)
            if not self._pipe.poll(_PATIENCE):
                self._end()
                return Outcome((Finding("it hangs where no signal is heard", self._said()),))
            outcome: Outcome = self._pipe.recv()
            return outcome
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode or 0
            self._process = None
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Outcome((Finding(f"the process dies: {how}{_where(self._said())}", self._said()),))

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(self._log)), daemon=False)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]


def _where(said: str) -> str:
    """The innermost line of graphopt's own in what faulthandler wrote."""
    lines = [line for line in said.splitlines() if "/graphopt/" in line and "File" in line]
    return f" at {lines[0].rpartition('/graphopt/')[2]}" if lines else ""


def _serve(pipe: Connection, log: str) -> None:
    """Tries what comes through `pipe` until that is closed."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)
    faulthandler.enable(all_threads=False)
    import graphopt.pipeline  # noqa: F401  what a limit on memory must leave room for
    from fuzzing.checks import Bench

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MORE, size + _MORE))
    bench = Bench()
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        pipe.send(bench.try_case(case))
