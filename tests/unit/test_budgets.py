"""Hostile numbers in small models: each pass ends soon, writes little, keeps what it cannot afford, and says so."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphopt
from graphopt.errors import ModelError
from graphopt.ir import Model, Tensor, dims, model_from_proto, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.masks import never_empty
from graphopt.ir.text import parse, to_text
from graphopt.passes import fold_constants, simplify_shapes
from graphopt.passes.fold_budget import Budget
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Trace, find_rules
from graphopt.targets import target_named

HUGE = 1 << 40
LOWEST = -(1 << 63)
GELU = "g1 = Erf(Div(x, 1.4142135)) g = Mul(Mul(x, Add(g1, 1.0)), 0.5)"
LOOP = "body=(i: int64[], on: bool[], s: float32[]) -> (c2, s2) { c2 = Identity(on) s2 = Add(s, 1.0) }"


def numbers(*of: int) -> np.ndarray:
    return np.array(of, np.int64)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


BOMBS: dict[str, tuple[str, dict[str, Any]]] = {
    "ConstantOfShape": ("b = ConstantOfShape(s)", {"s": numbers(HUGE)}),
    "ConstantOfShape, product beyond 64 bits": ("b = ConstantOfShape(s)", {"s": numbers(HUGE, HUGE, HUGE)}),
    "ConstantOfShape, negative": ("b = ConstantOfShape(s)", {"s": numbers(-5)}),
    "Range": ("r = Range(a, z, d) b = Cast(r, to=1)", {"a": np.int64(0), "z": np.int64(HUGE), "d": np.int64(1)}),
    "Range, no step": ("r = Range(a, z, d) b = Cast(r, to=1)", {"a": np.int64(0), "z": np.int64(5), "d": np.int64(0)}),
    "Range of floats": ("b = Range(a, z, d)", {"a": np.float32(0), "z": np.float32(1e30), "d": np.float32(1e-30)}),
    "Tile": ("b = Tile(k, t)", {"k": ones(2), "t": numbers(HUGE)}),
    "Tile of integers": ("r = Tile(k, t) b = Cast(r, to=1)", {"k": numbers(1, 2), "t": numbers(HUGE)}),
    "Expand": ("b = Expand(k, t)", {"k": ones(2, 1), "t": numbers(2, HUGE)}),
    "Pad": ("b = Pad(k, t)", {"k": ones(2), "t": numbers(HUGE, HUGE)}),
    "broadcast": ("b = Add(k, l)", {"k": ones(1 << 18, 1), "l": ones(1, 1 << 18)}),
    "Einsum": ('b = Einsum(k, l, equation="i,j->ij")', {"k": ones(1 << 18), "l": ones(1 << 18)}),
    "MatMul": ("b = MatMul(k, l)", {"k": ones(1 << 10, 1), "l": ones(1, 1 << 18)}),
    "Gather": ("b = Gather(k, i)", {"k": ones(4, 1 << 14), "i": np.zeros(1 << 14, np.int64)}),
    "Gather, indices out of range": ("b = Gather(k, i)", {"k": ones(2), "i": numbers(1 << 62, LOWEST, 5)}),
    "Reshape beyond 64 bits": ("b = Reshape(k, t)", {"k": ones(2), "t": numbers(1 << 62, 1 << 62, 4)}),
    "Reshape of rank 60": ("b = Reshape(k, t)", {"k": ones(1), "t": numbers(*[1] * 60)}),
    "OneHot": ("b = OneHot(i, n, k)", {"i": numbers(0, 1), "n": np.int64(HUGE), "k": ones(2)}),
    "EyeLike": ("z = ConstantOfShape(s) b = EyeLike(z)", {"s": numbers(1 << 20, 1 << 20)}),
    "Trilu": ("b = Trilu(k, n)", {"k": ones(3, 3), "n": np.int64(LOWEST)}),
    "CumSum": ("z = ConstantOfShape(s) b = CumSum(z, a)", {"s": numbers(HUGE), "a": np.int64(0)}),
    "Slice": (
        "b = Slice(k, s, e, a, t)",
        {"k": ones(2), "s": numbers(LOWEST), "e": numbers(2**63 - 1), "a": numbers(0), "t": numbers(LOWEST)},
    ),
    "division by zero": ("r = Div(p, q) b = Cast(r, to=1)", {"p": numbers(5), "q": numbers(0)}),
    "the lowest by -1": ("r = Div(p, q) b = Cast(r, to=1)", {"p": numbers(LOWEST), "q": numbers(-1)}),
    "modulo zero": ("r = Mod(p, q) b = Cast(r, to=1)", {"p": numbers(5), "q": numbers(0)}),
    "the absolute of the lowest": ("r = Abs(p) n = Neg(r) b = Cast(n, to=1)", {"p": numbers(LOWEST)}),
    "powers": ("p1 = Pow(p, p) p2 = Pow(p1, p1) p3 = Pow(p2, p2) b = Cast(p3, to=1)", {"p": np.int64(9)}),
    "a tower of squares": (
        " ".join(f"p{n + 1} = Mul(p{n}, p{n})" for n in range(300)) + " b = Cast(p300, to=1)",
        {"p0": np.int64(9)},
    ),
    "doubled forty times": (
        " ".join(f"k{n + 1} = Concat(k{n}, k{n}, axis=0)" for n in range(40)) + " b = Identity(k40)",
        {"k0": ones(2)},
    ),
    "a loop of 2^60 turns": (
        f"b = Loop(n, c, k, {LOOP})",
        {"n": np.int64(1 << 60), "c": np.array(True), "k": np.float32(1)},
    ),
    "a loop without end": (f"b = Loop(_, c, k, {LOOP})", {"c": np.array(True), "k": np.float32(1)}),
}


def model_of(body: str, constants: dict[str, Any] | None = None, x: str = "float32[2, 3]") -> Model:
    """A model of `body`, with constants of any size."""
    constants = constants or {}
    given = [f"{name}: {np.asarray(array).dtype}{list(np.shape(array))}" for name, array in constants.items()]
    proto = model_to_proto(parse(f"({', '.join([f'x: {x}', *given])}) -> (y) {{ {body} }}"))
    kept = [info for info in proto.graph.input if info.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    return model_from_proto(proto)


@contextmanager
def quick(seconds: float) -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def rewritten(model: Model) -> Trace:
    return optimize(model, target=target_named("ort-cpu"), rules=find_rules(()).rules)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stays_as_it_is_and_the_rest_is_rewritten(name: str) -> None:
    body, constants = BOMBS[name]
    model = model_of(f"{body} {GELU} m = ReduceMax(b, keepdims=0) y = Add(g, m)", constants)
    with quick(5):
        rewritten(model)
        size = model_to_proto(model).ByteSize()
    given = sum(np.asarray(array).nbytes for array in constants.values())
    assert size < 2 * given + 300_000
    assert "Erf" not in [node.op for node in model.graph.ops()]


# ---- folding ---------------------------------------------------------------------------------------------------------


def test_many_results_that_are_small_each_are_not_large_together() -> None:
    count = 100
    adds = " ".join(f"v{n} = Add(k, {float(n)})" for n in range(count))
    model = model_of(
        f"{adds} y = Concat(x, {', '.join(f'v{n}' for n in range(count))}, axis=0)", {"k": ones(16_000)}, "float32[7]"
    )
    infer(model)
    budget = Budget(small=1 << 20)
    assert fold_constants(model, budget) == (1 << 20) // 64_000
    assert fold_constants(model, budget) == 0
    first = next(iter(budget.stopped.values()))
    assert (first.rule, first.reason) == ("fold_constants", "the bytes for all results up to 64 KiB are used up")
    assert len(budget.stopped) == count - (1 << 20) // 64_000


def test_a_chain_of_results_writes_no_more_than_the_budget() -> None:
    chain = " ".join(f"v{n + 1} = Add(v{n}, 1.0)" for n in range(50))
    model = model_of(f"{chain} y = Add(x, v50)", {"v0": ones(16_000)}, "float32[16000]")
    infer(model)
    assert fold_constants(model, Budget(small=10 * 64_000)) == 10


def test_new_weights_are_as_many_as_they_may_be() -> None:
    body = "t = Transpose(w) u = Transpose(v) y = Add(MatMul(x, t), MatMul(x, u))"
    weights = {"w": ones(200, 300), "v": ones(200, 300)}
    model = model_of(body, weights, "float32[2, 300]")
    infer(model)
    budget = Budget(large=300_000)
    assert fold_constants(model, budget) == 1
    assert [stop.reason for stop in budget.stopped.values()] == [
        "the bytes for all new weights (--max-new-weights) are used up"
    ]


def test_steps_for_one_result_and_for_all_are_counted() -> None:
    model = model_of(
        "s = ReduceSum(k, keepdims=0) t = ReduceMax(k, keepdims=0) y = Add(s, t)", {"k": np.ones(200_000, np.int64)}
    )
    infer(model)
    budget = Budget(steps=3_000_000)
    assert fold_constants(model, budget) == 1
    assert [stop.reason for stop in budget.stopped.values()] == ["the steps for all results are used up"]
    assert fold_constants(model, Budget()) == 2


def test_one_result_takes_about_a_second_at_most() -> None:
    model = model_of("s = ReduceSum(k, keepdims=0) y = Add(x, Cast(s, to=1))", {"k": np.ones(4, np.int64)})
    constant = next(node for node in model.graph.sources("Constant") if node.output.name == "k")
    made: list[int] = []

    def make() -> np.ndarray:
        made.append(1)
        return np.ones(1 << 27, np.int64)

    weights = model.graph.add_constant(Tensor.deferred(TensorProto.INT64, (1 << 27,), make), "w")
    model.graph.replace(constant.output, weights)
    infer(model)
    budget = Budget()
    assert fold_constants(model, budget) == 0
    assert not made
    assert "one result may take" in next(iter(budget.stopped.values())).reason


def test_what_was_too_much_is_said() -> None:
    count = 1_200
    adds = " ".join(f"v{n} = Add(k, {float(n)})" for n in range(count))
    sums = " ".join(f"w{n} = Mul({f'w{n - 1}' if n else 'x'}, v{n})" for n in range(count))
    model = model_of(f"{adds} {sums} y = Identity(w{count - 1})", {"k": ones(16_000)}, "float32[16000]")
    trace = rewritten(model)
    assert {stop.rule for stop in trace.stopped} == {"fold_constants"}
    assert model_to_proto(model).ByteSize() < 70 << 20


def test_malformed_operands_raise_nothing() -> None:
    value = helper.make_node("ConstantOfShape", ["s"], ["b"])
    value.attribute.add(name="value", type=onnx.AttributeProto.FLOATS, floats=[1.0])
    proto = model_to_proto(model_of("b = ConstantOfShape(s) y = Add(x, b)", {"s": numbers(3)}))
    proto.graph.node[0].CopyFrom(value)
    model = model_from_proto(proto)
    infer(model)
    assert fold_constants(model) == 0


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "*".join(f"(a{n}+b{n})" for n in range(40)),
        "*".join(["(a+b+c+d)"] * 40),
        "*".join(["9" * 18] * 20),
        "a*" * 190 + "a",
        "+".join(f"a{n}" for n in range(30_000)),
        "-" * 5_000 + "a",
        "(" * 300 + "a" + ")" * 300,
        "3 - 5",
    ],
    ids=["products of sums", "powers", "a large number", "a high power", "a long sum", "signs", "brackets", "negative"],
)
def test_a_dimension_that_says_too_much_is_one_name(text: str) -> None:
    with quick(1):
        assert dims.parse(text) == dims.symbol(text)


def sum_of(names: list[dims.Dim]) -> dims.Size:
    total: dims.Size = 0
    for name in names:
        total = dims.add(total, name)
    return total


def test_polynomials_do_not_grow_without_end() -> None:
    names = [dims.symbol(f"a{n}") for n in range(1_000)]
    with pytest.raises(dims.TooLarge):
        sum_of(names)
    with pytest.raises(dims.TooLarge):
        dims.product(names)


@pytest.mark.parametrize("by", ["s{}", str(1 << 62)], ids=["with themselves", "with a number"])
def test_sizes_that_multiply_are_given_up_and_types_stay(by: str) -> None:
    squares = " ".join(f"s{n + 1} = Mul(s{n}, {by.format(n)})" for n in range(2_000))
    model = model_of(f"s0 = Shape(x) {squares} y = Identity(s2000)", None, "float32[A, B, C, D]")
    with quick(3):
        infer(model)
        simplify_shapes(model)
    (y,) = model.graph.outputs
    assert (y.dtype, y.shape, y.content) == (TensorProto.INT64, (4,), None)
    made = [str(size) for node in model.graph.ops() for size in node.output.content or ()]
    assert all(len(text) < 1_000 for text in made)


def test_the_product_of_a_shape_of_sums_is_given_up() -> None:
    sums = ", ".join("+".join(f"a{j}_{i}" for i in range(30)) for j in range(8))
    model = model_of("y = Flatten(x, axis=4)", None, "float32[2]")
    proto = model_to_proto(model)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, sums.split(", ")))
    model = model_from_proto(proto)
    with quick(2):
        infer(model)
    assert model.graph.outputs[0].rank == 2


def test_contents_that_would_wrap_around_are_not_known() -> None:
    model = model_of("p = Mul(k, k) y = Identity(p)", {"k": np.int32(1 << 20)})
    infer(model)
    assert next(model.graph.ops()).output.content is None


def test_a_rank_that_no_tensor_has_is_not_followed() -> None:
    model = model_of("y = Reshape(x, s)", None, f"float32[2], s: int64[{HUGE}]")
    infer(model)
    assert model.graph.outputs[0].shape is None


def test_masks_that_double_are_proved_once() -> None:
    doubled = " ".join(f"m{n + 1} = And(m{n}, m{n})" for n in range(60))
    rows = "r = Range(0, n, 1) m0 = LessOrEqual(r, Unsqueeze(r, [1]))"
    model = parse(f"(x: float32[N, 4]) -> (y) {{ n = Gather(Shape(x), 0) {rows} {doubled} y = Identity(m60) }}")
    infer(model)
    with quick(2):
        assert never_empty(model.graph.outputs[0])


# ---- depth -----------------------------------------------------------------------------------------------------------


@contextmanager
def shallow(depth: int = 230) -> Iterator[None]:
    """Python's stack ends soon."""
    frame, here = sys._getframe(), 0
    while frame is not None:
        frame, here = frame.f_back, here + 1  # type: ignore[assignment]
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(here + depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def deep(op: str, count: int, *others: str) -> str:
    extra = f", {', '.join(others)}" if others else ""
    return " ".join(f"v{n + 1} = {op}(v{n}{extra})" for n in range(count)) + f" y = Identity(v{count})"


@pytest.mark.parametrize(
    "body",
    [
        deep("Neg", 1500),
        deep("Add", 600, "x"),
        deep("Mul", 600, "2.0"),
        deep("Sub", 600, "x"),
        deep("Concat", 300, "x", "axis=0"),
        deep("Cos", 600),
        deep("Transpose", 400, "perm=[1, 0]"),
        deep("Softmax", 600),
    ],
    ids=["Neg", "Add", "Mul", "Sub", "Concat", "Cos", "Transpose", "Softmax"],
)
def test_a_deep_model_needs_no_deep_stack(body: str) -> None:
    rewritten(parse("(x: float32[2, 3]) -> (y) { y = Relu(x) }"))
    model = parse(f"(x: float32[N, 3]) -> (y) {{ v0 = Relu(x) {body} }}")
    with shallow():
        trace = rewritten(model)
        model_from_proto(model_to_proto(model))
        parse(to_text(model))
    assert not trace.failures


@pytest.mark.parametrize("text", ["Neg(" * 3_000 + "x" + ")" * 3_000, "If(c, then_branch=() -> (p) { p = " * 3_000])
def test_a_text_that_is_nested_too_deep_is_an_error(text: str) -> None:
    with pytest.raises(ModelError, match="GO046"):
        parse(f"(x: float32[2], c: bool[]) -> (y) {{ y = {text} }}")


def functions(count: int, calls: int) -> onnx.ModelProto:
    """f0 calls f1 so many times, that calls f2, and so on."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = []
    for n in range(count):
        names = ["a", *(f"h{k}" for k in range(calls - 1)), "b"]
        body = [helper.make_node(f"f{n + 1}", [i], [o], domain="f") for i, o in itertools.pairwise(names)]
        last = [helper.make_node("Relu", ["a"], ["b"])]
        made.append(helper.make_function("f", f"f{n}", ["a"], ["b"], body if n + 1 < count else last, imports))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="f")], "g", [x], [y])
    return helper.make_model(graph, functions=made, opset_imports=imports, ir_version=9)


def test_functions_that_call_the_next_one_twice_stay_and_that_is_said() -> None:
    model = model_from_proto(functions(60, 2))
    with quick(3):
        trace = rewritten(model)
    assert "more than 200,000 nodes" in trace.left_out["function f.f0"]
    assert len(model.functions) == 60


def test_functions_that_call_each_other_in_a_long_chain_are_inlined() -> None:
    rewritten(parse("(x: float32[2, 3]) -> (y) { y = Relu(x) }"))
    model = model_from_proto(functions(1_000, 1))
    with shallow(), quick(5):
        rewritten(model)
    assert [node.op for node in model.graph.ops()] == ["Relu"]


def test_the_public_function_keeps_a_bomb() -> None:
    body, constants = BOMBS["Tile"]
    model = model_to_proto(model_of(f"{body} m = ReduceMax(b, keepdims=0) y = Add(x, m)", constants))
    result = graphopt.fuse(model, verify="off")
    assert result.exit_code == 0
