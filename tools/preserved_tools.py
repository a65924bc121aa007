"""Tools that read a model and write one, each run in a process of its own under limits.

`Bench` starts one process for each tool, which imports it once and forks for each file: a crash, a hang or a leak is an
outcome, and none reaches the next file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

MEMORY = 8 << 30
TIMEOUT = 20.0


def by_onnx(source: Path, output: Path) -> None:
    import onnx

    onnx.save(onnx.load(source), output)


def by_onnxsim(source: Path, output: Path) -> None:
    import onnx
    import onnxsim

    model, same = onnxsim.simplify(onnx.load(source))
    if not same:
        raise ValueError("onnxsim's own check failed")
    onnx.save(model, output)


def by_onnxslim(source: Path, output: Path) -> None:
    import onnxslim

    onnxslim.slim(str(source), str(output))


def by_onnxscript(source: Path, output: Path) -> None:
    import onnx
    import onnxscript.optimizer

    onnx.save(onnxscript.optimizer.optimize(onnx.load(source)), output)


def by_onnxruntime(source: Path, output: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # What is written at a higher level is for this machine alone.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(output)
    options.log_severity_level = 4
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def by_graphopt(source: Path, output: Path) -> None:
    import graphopt

    result = graphopt.fuse(source, output)
    if result.error is not None:
        raise result.error


TOOLS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "onnx load+save": ("onnx", by_onnx),
    "onnxsim": ("onnxsim", by_onnxsim),
    "onnxslim": ("onnxslim", by_onnxslim),
    "onnxscript": ("onnxscript.optimizer", by_onnxscript),
    "onnxruntime": ("onnxruntime", by_onnxruntime),
    "graphopt": ("graphopt.pipeline", by_graphopt),
}


@dataclass(frozen=True)
class Ending:
    """How a run ended: `done`, `error` (it said so), `crashed` or `hung`; what it said last, and its seconds."""

    kind: str
    said: str
    seconds: float


class Bench:
    """A process that has imported one tool; a context manager."""

    def __init__(self, tool: str) -> None:
        self.tool = tool

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, self.tool]
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def run(self, source: Path, output: Path) -> Ending:
        """What becomes of one file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(source), str(output)]), file=self._process.stdin, flush=True)
        return Ending(*json.loads(self._process.stdout.readline()))


def serve(tool: str) -> None:
    """Answers requests on stdin until it ends: the outcome of each file, as a line of JSON."""
    module, run = TOOLS[tool]
    __import__(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    for line in sys.stdin:
        source, output = map(Path, json.loads(line))
        began = time.monotonic()
        kind, said = forked(run, source, output)
        print(json.dumps([kind, said, time.monotonic() - began]), file=answers, flush=True)


def forked(run: Callable[[Path, Path], None], source: Path, output: Path) -> tuple[str, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os._exit(tried(run, source, output, writing))
    os.close(writing)
    status = ended(child)
    with os.fdopen(reading) as pipe:
        said = pipe.read() if status is not None else ""
    if status is None:
        return "hung", f"more than {TIMEOUT:.0f} s"
    if os.WIFSIGNALED(status):
        return "crashed", signal.Signals(os.WTERMSIG(status)).name
    return ("done", "") if os.WEXITSTATUS(status) == 0 else ("error", said)


def tried(run: Callable[[Path, Path], None], source: Path, output: Path, writing: int) -> int:
    """The exit code of the child; it says its error first."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        run(source, output)
    except BaseException as error:
        last = traceback.format_exception_only(error)[-1].strip()
        os.write(writing, last.encode(errors="replace")[:2000])
        return 1
    return 0


def ended(child: int) -> int | None:
    """How a process ended; None where it ran out of time and was killed, with what it had started."""
    limit = time.monotonic() + TIMEOUT
    while time.monotonic() < limit:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    serve(sys.argv[1])
