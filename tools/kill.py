"""What `kill -9` leaves behind: `fuse` and `quantize` on a small BERT, ended at random points.

    python tools/kill.py                      # 200 points, two cases at once: some ten minutes
    python tools/kill.py --points 20 --only "in-place" --seed 7

Half of the points are moments, uniform over the run; the other half are operations on files (the n-th of those that
create, write, rename or remove one), most of which belong to the save. What is ended is a process of its own that runs
the program as the shell does, forked from one that has imported it already. After each, the input must be as it was,
the output absent, the old one or the new one, judged by what onnxruntime computes with it, no process may be left, and
the next run must succeed. Exits 1 where something of this does not hold.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from kill_cases import CASES, Case, computed, fresh, litter, state

from graphopt.cli import main as program

_IMPORTED = ("graphopt.cli.app", "graphopt.report.quantization", "graphopt.report.html", "graphopt.report.terminal")
_SUBREAPER = 36
_STATES = ("absent", "old", "new", "torn")
_PATIENCE = 20.0
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree")


@dataclass
class Row:
    """What came of the runs of one case."""

    name: str
    states: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)
    stays: Counter[str] = field(default_factory=Counter)

    def add(self, other: Row) -> None:
        """Counts another row, too."""
        for mine, its in ((self.states, other.states), (self.litter, other.litter), (self.stays, other.stays)):
            mine.update(its)
        self.broken += other.broken


@click.command()
@click.option("--points", default=200, show_default=True, help="How many runs are ended, all cases together.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", help="Only cases whose name has this in it.")
@click.option("--jobs", default=2, show_default=True, help="How many cases go on at once.")
def main(points: int, seed: int, only: str, jobs: int) -> None:
    """Ends runs at random points and looks at what is left."""
    cases = [case for case in CASES if only in case.name]
    for module in _IMPORTED:
        import_module(module)
    gc.freeze()  # or each process would copy all memory when it counts
    print(f"{'case':34}points{''.join(f'{one:>8}' for one in _STATES)}   wrong  left; left after the next run")
    total = Row(f"{len(cases)} cases")
    with (
        tempfile.TemporaryDirectory(prefix="kill-") as folder,
        ProcessPoolExecutor(jobs, get_context("fork"), _adopt) as pool,
    ):
        counts = [len(range(number, points, len(cases))) for number in range(len(cases))]
        roots = [Path(folder) / str(number) for number in range(len(cases))]
        for row in pool.map(_row, cases, roots, counts, [f"{seed} {case.name}" for case in cases]):
            _print(row)
            print(*row.broken, sep="\n", end="\n" if row.broken else "", file=sys.stderr, flush=True)
            total.add(row)
    _print(total)
    sys.exit(bool(total.broken))


def _adopt() -> None:
    """Orphans of this process become its own children, and can be counted."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _row(case: Case, root: Path, points: int, seed: str) -> Row:
    """Ends a case at so many points."""
    rng, row = random.Random(seed), Row(case.name)
    old, new, seconds, operations, known = _undisturbed(case, root)
    for number in range(points):
        at = rng.uniform(0, seconds) if number % 2 else rng.randrange(operations)
        said = f"{case.name}, at {at:.3f} s" if isinstance(at, float) else f"{case.name}, before operation {at}"
        fresh(root, case.prepare)
        inputs = case.inputs(root)
        process = _start(case, root, at if isinstance(at, int) else None)
        if isinstance(at, float):
            time.sleep(at)
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        row.broken += [f"{said}: process {orphan} goes on" for orphan in _orphans()]
        found = state(case.output(root), old, new)
        row.states[found] += 1
        row.litter.update(map(_kind, litter(root, known)))
        row.broken += [f"{said}: {what}" for what in _wrong(case, root, inputs, found)]
        row.broken += [f"{said}: {what}" for what in _next(case, root, found, new)]
        row.stays.update(map(_kind, litter(root, known)))
    return row


def _undisturbed(case: Case, root: Path) -> tuple[Any, Any, float, int, dict[str, str]]:
    """What the output computes before and after a run, how long that takes, its operations on files, and its files."""
    fresh(root, case.prepare)
    old = computed(case.output(root)) if case.output(root).exists() else None
    log = root / "tmp" / "operations"
    start = time.monotonic()
    code = _wait(_start(case, root, None, log))
    seconds = time.monotonic() - start
    operations = len(log.read_bytes())
    log.unlink()
    new = computed(case.output(root))
    if code or new is None:
        raise SystemExit(f"{case.name}: exit code {code} undisturbed")
    return old, new, seconds, operations, dict.fromkeys([*litter(root, {}), "out/report.json", "out/report.html"], "")


def _wrong(case: Case, root: Path, inputs: dict[str, str], found: str) -> Iterator[str]:
    if case.inputs(root) != inputs:
        yield "the input changed"
    if found == "torn":
        yield "the output is torn"
    if not case.reports_whole(root):
        yield "a report is torn"


def _next(case: Case, root: Path, found: str, new: Any) -> Iterator[str]:
    """What is wrong with the run that comes next."""
    if case.in_place and found == "new" and case.command == "quantize":
        return  # it is refused, as it is quantized already
    code = _wait(_start(case, root, None))
    if code or state(case.output(root), None, new) != "new":
        yield f"the next run ends with {code}, and its output is {state(case.output(root), None, new)}"


def _start(case: Case, root: Path, end_before: int | None, log: Path | None = None) -> int:
    """Forks a process that runs a case; it ends itself before an operation on files of this number."""
    process = os.fork()
    if process:
        return process
    os.environ["TMPDIR"] = str(root / "tmp")
    tempfile.tempdir = None
    sys.argv = ["graphopt", *case.arguments(root)]
    _watch(_noter(log) if log is not None else _ender(end_before))
    try:
        program()
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    finally:
        os._exit(99)


def _watch(see: Callable[[], None]) -> None:
    """Calls `see` before each operation that changes files."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            see()

    sys.addaudithook(hook)


def _noter(log: Path) -> Callable[[], None]:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note() -> None:
        os.write(file, b".")

    return note


def _ender(end_before: int | None) -> Callable[[], None]:
    left = iter(range(end_before + 1 if end_before is not None else sys.maxsize))

    def count() -> None:
        next(left)
        if end_before is not None and left.__length_hint__() == 0:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def _wait(process: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return 98 if _orphans() else code


def _orphans() -> list[int]:
    """Processes of a run that ended which still live some time later; they are ended."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                if time.monotonic() > end:
                    break
                time.sleep(0.01)
        except ChildProcessError:
            return []
    left = [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    for one in left:
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)
    return left


def _kind(path: str) -> str:
    """What a file is called that is left, without what is random in it."""
    folder, name = os.path.split(path)
    hidden = name.startswith(".")
    return f"{folder}/{'.*.tmp' if hidden else name.split('-')[0]}"


def _print(row: Row) -> None:
    counts = "".join(f"{row.states[one]:>8}" for one in _STATES)
    left = f"{_said(row.litter)}; {_said(row.stays)}"
    print(f"{row.name:34}{row.states.total():>6}{counts}{len(row.broken):>8}  {left}", flush=True)


def _said(files: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(files.items())) or "nothing"


if __name__ == "__main__":
    main()
