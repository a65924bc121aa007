"""The pairs of tests/pairs through graphopt and through the comparers that other tools bring: one table.

    pip install polygraphy onnxsim onnxslim onnxscript
    python tools/checkers.py [--only TOOL] [--json FILE]

Every tool is used with its own defaults and its own inputs; what each is asked is in the docstring of its function. A
tool that is not installed is skipped. `undecided` counts pairs on which a tool raised an error, died or said that it
cannot tell: of a wrong pair that is no catch, of a right one no pass.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pairs import PAIRS, Pair

Shapes = dict[str, list[int]]
Compare = Callable[[onnx.ModelProto, onnx.ModelProto, Shapes], bool]


class Undecided(Exception):
    """The tool says itself that it cannot tell."""


def graphopt(reference: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> bool:
    """`graphopt verify A B`."""
    from graphopt import verify

    found = verify(reference, candidate)
    if found.verdict not in ("equal", "unequal"):
        raise Undecided(found.reason)
    return found.verdict == "equal"


def polygraphy(reference: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> bool:
    """`polygraphy run A --onnxrt` against `polygraphy run B --onnxrt`: its data loader, its tolerances of 1e-5.

    The loader makes floats in [0, 1), integers 0 or 1, and every dimension that is not fixed 1.
    """
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator

    models = {"reference": reference, "candidate": candidate}
    runners = [OnnxrtRunner(SessionFromOnnx(m.SerializeToString()), name=name) for name, m in models.items()]
    return bool(Comparator.compare_accuracy(Comparator.run(runners)))


def onnxsim(reference: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> bool:
    """`onnxsim.model_checking.compare(B, A)`: five draws from [0, 1), rtol 1e-4, atol 1e-5.

    It refuses inputs whose sizes are not fixed unless told `--test-input-shape`: it is told the sizes of a legal input.
    """
    from onnxsim import model_checking

    return bool(model_checking.compare(candidate, reference, input_shapes=shapes))


def onnxslim(reference: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> bool:
    """What `onnxslim --model-check` does: `check_onnx(A)`, B on the same inputs, `check_result`.

    Sizes that are not fixed are 1, integers below 10, floats in [0, 1); rtol 1e-3, atol 1e-4.
    """
    from onnxslim.utils import check_onnx, check_result, onnxruntime_inference

    feeds, old, _ = check_onnx(reference)
    new, _ = onnxruntime_inference(candidate, feeds)
    return bool(check_result(old, new))


def onnxscript_numbers(reference: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> bool:
    """`onnxscript.rewriter.testing.assert_numerically_equal(A, B, inputs)`: rtol 1, atol 1e-3.

    What it draws itself is float32 only, and empty where a size is not fixed: it gets inputs of the sizes of a legal
    one, floats normal, integers and Booleans 0 or 1, strings of one digit.
    """
    from onnxscript.rewriter.testing import assert_numerically_equal

    feeds = {v.name: _drawn(v.type.tensor_type.elem_type, shapes[v.name]) for v in _inputs(reference)}
    return _holds(assert_numerically_equal, reference, candidate, feeds)


def onnxscript_structure(reference: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> bool:
    """`onnxscript.testing.assert_isomorphic(A, B)`: the same nodes, whatever values are called."""
    from onnxscript.testing import assert_isomorphic

    return _holds(assert_isomorphic, reference, candidate)


@dataclass(frozen=True)
class Tool:
    """A comparer, and the package that must be installed for it."""

    name: str
    package: str
    compare: Compare


TOOLS = (
    Tool("graphopt", "graphopt", graphopt),
    Tool("polygraphy", "polygraphy", polygraphy),
    Tool("onnxsim", "onnxsim", onnxsim),
    Tool("onnxslim", "onnxslim", onnxslim),
    Tool("onnxscript numbers", "onnxscript", onnxscript_numbers),
    Tool("onnxscript isomorphic", "onnxscript", onnxscript_structure),
)


@dataclass(frozen=True)
class Answer:
    """What a tool said of a pair: equal, unequal or undecided, the last with the error."""

    pair: str
    right: bool
    said: str
    reason: str = ""


def ask(tool: int, pair: int) -> Answer:
    """One pair through one tool; in a process of its own, since a comparer may take its process with it."""
    asked = PAIRS[pair]
    np.random.seed(0)
    reason = ""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            equal = TOOLS[tool].compare(asked.reference(), asked.candidate(), _shapes(asked))
            said = "equal" if equal else "unequal"
        except Exception as error:
            said, reason = "undecided", f"{type(error).__name__}: {error}"[:300]
    return Answer(asked.name, asked.right, said, reason)


def ask_all(tool: int) -> list[Answer]:
    """All pairs through one tool."""
    answers: list[Answer] = []
    while len(answers) < len(PAIRS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            waiting = [pool.submit(ask, tool, pair) for pair in range(len(answers), len(PAIRS))]
            answers += _until_death(waiting, len(answers))
    return answers


def _until_death(waiting: list[Future[Answer]], first: int) -> list[Answer]:
    answers = []
    for pair, future in enumerate(waiting, first):
        try:
            answers.append(future.result())
        except BrokenProcessPool:
            asked = PAIRS[pair]
            return [*answers, Answer(asked.name, asked.right, "undecided", "the process died")]
    return answers


def _shapes(pair: Pair) -> Shapes:
    if pair.feeds:
        feeds = pair.feeds(np.random.default_rng(0))
        return {name: list(array.shape) for name, array in feeds.items()}
    return {v.name: [d.dim_value or 2 for d in v.type.tensor_type.shape.dim] for v in _inputs(pair.reference())}


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    defaults = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in defaults]


def _drawn(kind: int, shape: list[int]) -> np.ndarray[Any, Any]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if dtype.kind == "f":
        return np.random.standard_normal(shape).astype(dtype)
    drawn = np.random.randint(0, 2, shape)
    return drawn.astype(str).astype(object) if dtype.kind == "O" else drawn.astype(dtype)


def _holds(check: Callable[..., None], *of: object) -> bool:
    try:
        check(*of)
    except AssertionError:
        return False
    return True


def table(found: dict[str, list[Answer]], seconds: dict[str, float]) -> Table:
    """One row a tool: wrong pairs caught, called equal, undecided; right ones passed, called unequal, undecided."""
    total = Counter(pair.right for pair in PAIRS)
    shown = Table(title=f"{total[False]} wrong pairs, {total[True]} right ones")
    shown.add_column("tool", no_wrap=True)
    for head in ("caught", "missed", "undecided", "passed", "alarms", "undecided", "s"):
        shown.add_column(head, justify="right", no_wrap=True)
    for name, answers in found.items():
        said = Counter((answer.right, answer.said) for answer in answers)
        cells = [(False, "unequal"), (False, "equal"), (False, "undecided")]
        cells += [(True, "equal"), (True, "unequal"), (True, "undecided")]
        shown.add_row(name, *(str(said[cell]) for cell in cells), f"{seconds[name]:.0f}")
    return shown


def main() -> None:
    """Asks every tool that is installed and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TOOL", action="append", help="part of a tool's name; repeatable")
    parser.add_argument("--json", metavar="FILE", type=Path, help="every answer, with errors")
    wanted = parser.parse_args()
    found: dict[str, list[Answer]] = {}
    seconds: dict[str, float] = {}
    for index, tool in enumerate(TOOLS):
        if wanted.only and not any(part in tool.name for part in wanted.only):
            continue
        if importlib.util.find_spec(tool.package) is None:
            print(f"skipped: {tool.name}: {tool.package} is not installed", file=sys.stderr)
            continue
        start = time.perf_counter()
        name = f"{tool.name} {importlib.metadata.version(tool.package)}"
        found[name] = ask_all(index)
        seconds[name] = time.perf_counter() - start
    Console(width=None if sys.stdout.isatty() else 110).print(table(found, seconds))
    if wanted.json:
        wanted.json.write_text(
            json.dumps({name: [asdict(a) for a in answers] for name, answers in found.items()}, indent=1)
        )


if __name__ == "__main__":
    main()
