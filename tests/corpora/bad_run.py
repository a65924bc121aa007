"""Runs every bad file through `graphopt fuse`, `graphopt inspect` and `graphopt.load`, and writes down what is told.

It prints how many kilobytes of memory it had at most.

python -m corpora.bad_run FOLDER REPORT.json BYTES      # BYTES: the address space that it may take
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import shutil
import stat
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from graphopt.cli.app import run
from graphopt.errors import GraphoptError
from graphopt.ir import load

from .bad import BAD, write


def main(folder: Path, report: Path, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    told: dict[str, Any] = {}
    for number, case in enumerate(BAD):
        around = folder / str(number)
        around.mkdir()
        path = write(case, around / "models")
        before = snapshot(around)
        ways: dict[str, Callable[[], int]] = {
            "fuse": lambda path=path: run(["fuse", str(path), "--no-color"]),  # type: ignore[misc]
            "inspect": lambda path=path: run(["inspect", str(path), "--no-color"]),  # type: ignore[misc]
            "load": lambda path=path: _load(path),  # type: ignore[misc]
        }
        # What takes seconds to refuse does so by one way only.
        if case.name.startswith("file: millions"):
            ways = {"fuse": ways["fuse"]}
        told[case.name] = {"ways": {name: _outcome(way) for name, way in ways.items()}}
        told[case.name] |= {"path": str(path), "before": before, "after": snapshot(around)}
        shutil.rmtree(around)
    report.write_text(json.dumps(told))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _load(path: Path) -> int:
    try:
        load(path)
    except GraphoptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _outcome(way: Callable[[], int]) -> dict[str, Any]:
    # Of the processor: whoever waits for ever is ended with this process.
    out, err, start = io.StringIO(), io.StringIO(), time.process_time()
    with redirect_stdout(out), redirect_stderr(err):
        code = way()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": time.process_time() - start}


def snapshot(folder: Path) -> dict[str, list[object]]:
    """All that is in a folder: kind, size, time of the last change, and a hash of what files hold."""
    found: dict[str, list[object]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(folder))] = [status.st_mode, status.st_size, status.st_mtime_ns, digest]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
