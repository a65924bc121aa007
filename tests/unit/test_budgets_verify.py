"""What cannot be run is kept, and said in words: models that take all memory, or for ever, or that kill the runtime."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import graphopt
from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

GELU = "g1 = Erf(Div(x, 1.4142135)) g = Mul(Mul(x, Add(g1, 1.0)), 0.5)"
LOOP = "body=(i: int64[], on: bool[], s: float32[]) -> (c2, s2) { c2 = Identity(on) s2 = Add(s, 1.0) }"


def model_of(body: str, **constants: Any) -> Any:
    given = [f"{name}: {np.asarray(array).dtype}{list(np.shape(array))}" for name, array in constants.items()]
    text = f"({', '.join(['x: float32[2, 3]', *given])}) -> (y) {{ {body} {GELU} y = Add(g, b) }}"
    proto = model_to_proto(parse(text, opset=17))
    kept = [info for info in proto.graph.input if info.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    return proto


def expanded(size: int) -> Any:
    return model_of("h = Expand(x, s) b = ReduceMax(h, keepdims=0)", s=np.array([size, 2, 3], np.int64))


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], str, str, int]] = {
    "more than there is": (lambda: expanded(1 << 40), {}, "GO056", "ran out of memory", 5),
    "more than may be": (lambda: expanded(1 << 26), {"memory": 500 << 20}, "GO056", "allow more with --memory", 5),
    "for ever": (
        lambda: model_of(f"b = Loop(n, c, k, {LOOP})", n=np.int64(1 << 60), c=np.array(True), k=np.float32(1)),
        {"timeout": 3.0},
        "GO052",
        "--timeout",
        5,
    ),
    "a number that kills it": (
        lambda: model_of("d = Div(p, q) b = Cast(d, to=1)", p=np.array([-(1 << 63)]), q=np.array([-1])),
        {},
        "GO051",
        "SIGFPE",
        5,
    ),
    "what it refuses": (
        lambda: model_of("d = Div(p, q) b = Cast(d, to=1)", p=np.array([5]), q=np.array([0])),
        {},
        "GO081",
        "does not run the original",
        4,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_check_that_cannot_end_ends_and_says_why(name: str, tmp_path: Any) -> None:
    make, limits, code, words, exit_code = CASES[name]
    start = time.monotonic()
    result = graphopt.fuse(make(), tmp_path / "out.onnx", **({"timeout": 60.0} | limits))
    (error,) = result.errors
    assert (error.code, error.exit_code, result.verdict) == (code, exit_code, "inconclusive")
    assert words in str(error)
    assert not (tmp_path / "out.onnx").exists()
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("name", ["more than there is", "for ever"])
def test_without_a_check_the_model_is_written(name: str, tmp_path: Any) -> None:
    result = graphopt.fuse(CASES[name][0](), tmp_path / "out.onnx", verify="off")
    assert (result.verdict, result.exit_code) == ("skipped", 0)
    assert "Erf" not in [node.op for node in graphopt.load(tmp_path / "out.onnx").graph.ops()]
