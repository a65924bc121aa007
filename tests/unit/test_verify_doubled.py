"""A part in float64: the same function without rounding, or none where that is not sure; and what it decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.ir import load
from graphopt.ir.text import parse
from graphopt.runtime import External, Runner
from graphopt.verify import Comparison, Options
from graphopt.verify.doubled import pruned, run_doubled
from graphopt.verify.pair import Pair
from graphopt.verify.parts import Part, part
from graphopt.verify.runs import Runs
from graphopt.verify.weights import Weights

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as found:
        yield found


def model(text: str, opset: int = 20) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>\n{text}')


def whole(proto: onnx.ModelProto) -> Part:
    loaded = load(proto)
    return part(loaded, loaded.graph.outputs, Weights())


def exact(runner: Runner, text: str, opset: int = 20, **values: Any) -> Any:
    return run_doubled(whole(model(text, opset)), values, "y", runner)


X = RNG.normal(size=(4, 300)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nothing_is_rounded(runner: Runner, dtype: Any) -> None:
    name = {np.float32: "float", np.float16: "float16"}[dtype]
    x = X.astype(dtype)
    text = f"""g ({name}[4,300] x) => ({name}[4,4] y) {{
        wide = Constant <value_float: float = 1.5> () k = CastLike (wide, x)
        t = Transpose (x) p = MatMul (x, t) y = Mul (p, k) }}"""
    found = exact(runner, text, x=x)
    assert found.dtype == np.float64
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found, wide @ wide.T * 1.5, rtol=1e-14, atol=1e-12)


def test_casts_constants_and_fills_have_the_values_they_had(runner: Runner) -> None:
    text = """g (float[4,300] x) => (float[4,300] y) {
        low = Constant <value_float: float = -3.4028234663852886e+38> ()
        tenth = Constant <value: tensor = float[1] {0.1}> ()
        shape = Shape (x)
        ones = ConstantOfShape <value: tensor = float[1] {0.3}> (shape)
        narrow = Cast <to: int = 10> (x)
        back = Cast <to: int = 1> (narrow)
        whole = Cast <to: int = 7> (x)
        again = Cast <to: int = 1> (whole)
        zero = Constant <value_float: float = 0.0> ()
        kept = Greater (x, zero)
        a = Sum (back, ones, tenth, again)
        y = Where (kept, a, low) }"""
    found = exact(runner, text, x=X)
    wide = X.astype(np.float64) + np.float64(np.float32(0.3)) + np.float64(np.float32(0.1)) + np.trunc(X)
    low = np.float64(np.finfo(np.float32).min)
    np.testing.assert_allclose(found, np.where(X > 0, wide, low), rtol=1e-15)


def test_subgraphs_and_functions(runner: Runner) -> None:
    text = """g (float[4,300] x, bool c) => (float[4,300] y) {
        third = Constant <value_float: float = 0.3333333432674408> ()
        y = If (c) <
            then_branch = a () => (float[4,300] u) <float[1] w = {0.1}> { v = Mul (x, w) u = Div (v, third) },
            else_branch = b () => (float[4,300] v) { v = Identity (x) }> }"""
    found = exact(runner, text, x=X, c=np.array(True))
    want = X.astype(np.float64) * np.float64(np.float32(0.1)) / np.float64(np.float32(1 / 3))
    np.testing.assert_allclose(found, want, rtol=1e-15)
    loop = """g (float[4,300] x, int64 n) => (float[4,300] y) {
        yes = Constant <value: tensor = bool {1}> ()
        y = Loop (n, yes, x) <body = b (int64 i, bool c, float[4,300] s) => (bool d, float[4,300] t) {
            d = Identity (c) f = Cast <to: int = 1> (i) t = Add (s, f) }> }"""
    found = exact(runner, loop, x=X, n=np.array(3))
    np.testing.assert_allclose(found, X.astype(np.float64) + 3, rtol=1e-15)
    proto = model("g (float[4,300] x) => (float[4,300] y) { y = local.F (x) }")
    proto.opset_import.append(helper.make_opsetid("local", 1))
    body = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.array(0.1, np.float32))),
        helper.make_node("Mul", ["x", "k"], ["y"]),
    ]
    proto.functions.append(helper.make_function("local", "F", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))
    found = run_doubled(whole(proto), {"x": X}, "y", runner)
    np.testing.assert_allclose(found, X.astype(np.float64) * np.float64(np.float32(0.1)), rtol=1e-15)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Erf (x)",  # no kernel
        "y = com.microsoft.Gelu (x)",
        "y = RandomUniformLike (x)",
        "s = Constant <value_float: float = 0.1> () q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)",
    ],
)
def test_what_has_no_kernel_or_depends_on_the_type_gives_none(runner: Runner, nodes: str) -> None:
    assert exact(runner, f"g (float[4,300] x) => (float[4,300] y) {{ {nodes} }}", x=X) is None


def test_what_is_in_float64_already_gives_none(runner: Runner) -> None:
    text = "g (double[4,300] x) => (double[4,300] y) { y = Tanh (x) }"
    assert exact(runner, text, x=X.astype(np.float64)) is None


def test_weights_stay_where_they_are(runner: Runner) -> None:
    proto = model("g (float[4,300] x) => (float[4,5] y) <float[300,5] w> { y = MatMul (x, w) }")
    weight = RNG.normal(size=(300, 5)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    del proto.graph.value_info[:]
    with Weights() as weights:
        loaded = load(proto)
        found = part(loaded, loaded.graph.outputs, weights)
        assert isinstance(found.external["w"], External)
        y = run_doubled(found, {"x": X}, "y", runner)
    np.testing.assert_allclose(y, X.astype(np.float64) @ weight.astype(np.float64), rtol=1e-12, atol=1e-12)


def test_only_what_an_output_needs_is_asked_of_the_runtime(runner: Runner) -> None:
    text = "g (float[4,300] x) => (float[4,300] y, float[4,300] z) { z = Erf (x) y = Tanh (x) }"
    found = whole(model(text))
    small = pruned(found, ["y"])
    assert [node.op_type for node in onnx.ModelProto.FromString(small.proto).graph.node] == ["Tanh"]
    np.testing.assert_allclose(run_doubled(found, {"x": X}, "y", runner), np.tanh(X.astype(np.float64)), rtol=1e-14)
    assert run_doubled(found, {"x": X}, "z", runner) is None


def paired(before: str, after: str) -> Comparison:
    head = "g (float[4,300] x) => (float[4,300] y) <float big = {100000.0}, float[1] k = {0.3}> "
    first, second = (load(model(head + body)) for body in (before, after))
    with Runs(first, Options()) as runs:
        old = part(first, first.graph.outputs, runs.weights, noisy=runs.data).load(runs.runner, "before")
        new = part(second, second.graph.outputs, runs.weights).load(runs.runner, "after")
        return Pair(runs, old, new).run("", {"x": X}, 0)[1]["y"]


def test_a_rewrite_that_rounds_less_than_the_original_is_equal_and_one_that_is_off_as_well_is_not() -> None:
    before = "{ a = Add (x, big) s = Sub (a, big) y = Mul (s, k) }"
    found = paired(before, "{ y = Mul (x, k) }")
    assert found.verdict == "equal"
    assert found.reference_ratio is not None
    assert found.reference_ratio > 1000
    for wrong in ("e = Sum (k, c) y = Mul (x, e)", "t = Mul (x, k) y = Add (t, c)"):
        assert paired(before, f"{{ c = Constant <value_float: float = 0.01> () {wrong} }}").verdict == "unequal"


def test_threads_are_noise_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def load(self: Part, runner: Runner, name: str, **options: Any) -> Fixed:
        threads.append(options.get("threads"))
        return Fixed(self, np.float32(1.01) if threads[-1] else np.float32(1))

    monkeypatch.setattr(Part, "load", load)
    part = whole(model("g (float[4,300] x) => (float[4,300] y) { y = com.microsoft.Gelu (x) }"))
    with Runs(parse("(x: float32[4, 300]) -> (y) { y = Neg(x) }"), Options()) as runs:
        original = Fixed(part, np.float32(1))
        right, wrong = (
            Pair(runs, original, Fixed(part, np.float32(factor))).run("", {"x": X}, 0)[1]["y"].verdict
            for factor in (1.02, 1.5)
        )
    assert (right, wrong) == ("equal", "unequal")
    assert max(filter(None, threads)) > 1


class Fixed:
    """A session that gives a multiple of its input."""

    def __init__(self, part: Part, factor: Any) -> None:
        self.part = part
        self.factor = factor

    def run(self, feeds: Any, outputs: Any = None) -> dict[str, Any]:
        return {"y": X * self.factor}

    def close(self) -> None:
        pass


def test_what_saturates_on_purpose_is_not_held_against_float64() -> None:
    # In float32 the scores beside the fill are lost and the row is uniform; a rewrite that keeps them is wrong.
    before = "{ b = Neg (big) c = Mul (b, big) d = Mul (c, k) s = Add (x, d) y = Softmax (s) }"
    found = paired(before, "{ y = Softmax (x) }")
    assert (found.verdict, found.reference_ratio) == ("unequal", None)


def test_types_of_the_proto_are_left_alone() -> None:
    found = whole(model("g (float[4,300] x) => (float[4,300] y) { y = Tanh (x) }"))
    before = found.proto
    pruned(found, ["y"])
    assert found.proto == before
    assert onnx.ModelProto.FromString(before).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
