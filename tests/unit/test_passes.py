"""What every pass must do, must leave alone, and that no pass changes a number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graphopt.ir import dims
from graphopt.ir.infer import infer
from graphopt.ir.model import Model
from graphopt.ir.save import model_to_proto
from graphopt.ir.tensor import Tensor
from graphopt.ir.text import parse
from graphopt.passes import fold_constants, merge_common, remove_dead, simplify_shapes
from graphopt.passes.simplify_shapes import literal_target

Feeds = dict[str, np.ndarray[Any, Any]]


def run(model: Model, feeds: Feeds) -> list[np.ndarray[Any, Any]]:
    """The outputs of `model` as onnxruntime computes them with every optimization off."""
    infer(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    data = model_to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run([node.name for node in session.get_outputs()], feeds)  # type: ignore[no-any-return]


def ops(model: Model) -> Counter[str]:
    """How often each operator stands in any scope."""
    return Counter(node.op for graph in model.scopes() for node in graph.ops())


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def check_same(before: Model, after: Model, feeds: Feeds) -> None:
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        assert expected.dtype == found.dtype
        assert expected.shape == found.shape
        assert expected.tobytes() == found.tobytes()


# ---- fold_constants --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "perm"),
    [("2, 3", "[1, 0]"), ("2, 3, 4", "[0, 2, 1]"), ("2, 3, 4", "[1, 2, 0]"), ("2, 3, 4, 5", "[0, 2, 3, 1]")],
)
def test_folding_a_transpose_honours_perm(shape: str, perm: str) -> None:
    text = f"(x: float32) -> (y) {{ t = Transpose(float32[{shape}] random(1), perm={perm})  y = Add(x, t) }}"
    before, after = parse(text), parse(text)
    assert fold_constants(after) == 1
    assert ops(after) == {"Add": 1}
    check_same(before, after, {"x": numbers(1)})


def test_folding_keeps_the_name_of_what_it_replaces() -> None:
    model = parse("(x: float32[4]) -> (y) { s = Sqrt(float32[4] {1, 4, 9, 16})  y = Div(x, s) }")
    fold_constants(model)
    tensor = model.graph.names["s"].tensor
    assert tensor is not None
    assert tensor.numpy().tolist() == [1, 2, 3, 4]


def test_a_chain_folds_in_one_walk() -> None:
    text = """(x: float32[2, 2]) -> (y) {
      h = Unsqueeze(float32[4] {1, 2, 3, 4}, [0])
      y = Add(x, Mul(Reshape(Transpose(h, perm=[1, 0]), [2, -1]), 0.5)) }"""
    before, after = parse(text), parse(text)
    assert fold_constants(after) == 4
    check_same(before, after, {"x": numbers(2, 2)})


def test_a_folded_graph_output_keeps_its_name() -> None:
    text = "(x: float32[2]) -> (s, y) { s = Sqrt(float32[2] {4, 9})  y = Add(x, Neg(s)) }"
    before, after = parse(text), parse(text)
    assert fold_constants(after) == 2
    assert ops(after) == {"Identity": 1, "Add": 1}
    assert [value.name for value in after.graph.outputs] == ["s", "y"]
    check_same(before, after, {"x": numbers(2)})
    assert fold_constants(after) == 0


def test_an_identity_passes_a_constant_on_without_a_copy() -> None:
    model = parse("(x: float32[2]) -> (y) { w = float32[2] {4, 9}  i = Identity(w)  j = Identity(i)  y = Add(x, j) }")
    assert fold_constants(model) == 2
    assert model.graph.output.inputs[0].node.inputs[1] is model.graph.names["w"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "(x: float32[4], w = float32[4] random(1)) -> (y) { y = Add(x, Neg(w)) }",
        "(x: float32[4]) -> (y) { y = Add(x, RandomNormal(shape=[4])) }",
        "(x: float32[4]) -> (y) { y = Add(x, RandomNormalLike(float32[4] 1)) }",
        "(x: float32[4]) -> (y) { y = Add(x, Exp(float32[4] 1)) }",
        "(x: float32[4]) -> (y) { y = Add(x, Pow(float32[4] 2, 0.5)) }",
        "(x: int64[4]) -> (y) { y = Add(x, Div(int64[4] 1, int64[4] 0)) }",
        "(x: int64[4]) -> (y) { y = Add(x, Cast(float32[4] nan, to=7)) }",
        "(x: int64[4]) -> (y) { y = Add(x, Cast(float32[4] 1e30, to=7)) }",
        "(x: float32[4]) -> (y) { y = Add(x, Max(float32[4] 0.0, float32[4] -0.0)) }",
        "(x: float32[4]) -> (y) { y = Add(x, Min(float32[4] nan, float32[4] 1.0)) }",
        "(x: float32[4]) -> (y) { y = Identity(float32[4] 1) }",
        "(x: float32[4]) -> (y) { y = Add(x, Slice(float32[4] 1, [3], [9223372036854775807], [0], [-1])) }",
        "(x: float32[4]) -> (y) { y = Add(x, Gather(float32[4] 1, 7)) }",
        "(x: float32[4]) -> (y) { y = Add(x, Range(0.0, 0.4, 0.1)) }",
    ],
    ids=["overridable", "random", "random-like", "libm", "root", "by-zero", "nan-to-int", "huge-to-int", "zeros", "nan",
         "names-an-output", "backwards", "malformed", "rounded"],
)  # fmt: skip
def test_folding_leaves_alone(text: str) -> None:
    model = parse(text)
    before = ops(model)
    assert fold_constants(model) == 0
    assert ops(model) == before


def test_a_large_weight_is_never_written_twice() -> None:
    shared = parse("""(x: float32[B, 200]) -> (y, z) {
      w = float32[200, 100] random(1)
      y = MatMul(x, w)
      z = MatMul(y, Transpose(w, perm=[1, 0])) }""")
    alone = parse("""(x: float32[B, 100]) -> (z) {
      w = float32[200, 100] random(1)
      z = MatMul(x, Transpose(w, perm=[1, 0])) }""")
    assert fold_constants(shared) == 0
    assert fold_constants(alone) == 1
    assert remove_dead(alone) == 1


@pytest.mark.parametrize(("rows", "folded"), [(64, 1), (65, 0)])
def test_a_result_must_not_outgrow_its_budget(rows: int, folded: int) -> None:
    model = parse(f"(x: float32) -> (y) {{ y = Add(x, Expand(float32[1, 256] random(1), [{rows}, 256])) }}")
    assert fold_constants(model) == folded


def test_no_memory_is_taken_for_what_is_not_folded() -> None:
    model = parse("(x: float32) -> (y) { y = Add(x, ConstantOfShape([1000000, 1000000, 1000])) }")
    assert fold_constants(model) == 0


def test_captured_constants_fold_and_captured_inputs_do_not() -> None:
    text = """(c: bool[], x: float32[3]) -> (y) {
      w = float32[3] {1, 4, 9}
      y = If(c, then_branch=() -> (p) { p = Add(Sqrt(w), Sqrt(x)) }, else_branch=() -> (q) { q = Sqrt(w) }) }"""
    before, after = parse(text), parse(text)
    assert fold_constants(after) == 2
    assert ops(after) == {"If": 1, "Add": 1, "Sqrt": 1, "Identity": 1}
    remove_dead(after)
    assert "w" not in after.graph.names
    for c in (True, False):
        check_same(before, after, {"c": np.array(c), "x": abs(numbers(3))})


def test_a_function_body_folds_and_still_runs() -> None:
    text = """opset 20, my 1
    (x: float32[2]) -> (y: float32[2]) { y = my.Scale(x) }
    function my.Scale (a) -> (b) { b = Div(a, Sqrt(float32[1] {16})) }"""
    before, after = parse(text), parse(text)
    assert fold_constants(after) == 1
    check_same(before, after, {"x": numbers(2)})


def test_what_the_caller_of_a_function_gives_is_no_constant() -> None:
    model = parse("""opset 20, my 1
    (x: float32[2, 3]) -> (y) { y = my.Turned(x, perm=[1, 0]) }
    function my.Turned (a, perm = @) -> (b) { b = Add(a, Transpose(float32[2, 3] random(1), perm=@perm)) }""")
    assert fold_constants(model) == 0


# ---- simplify_shapes -------------------------------------------------------------------------------------------------

HEADS = """(x: float32[B, S, 64], z: float32[B, S, 64]) -> (q, k) {
  b = Gather(Shape(x), 0)
  s = Gather(Shape(x), 1)
  n = Concat(Unsqueeze(b, [0]), Unsqueeze(s, [0]), [-1], [16], axis=0)
  q = Reshape(x, n)
  m = Concat(Slice(Shape(z), [0], [2]), [-1], [16], axis=0)
  k = Reshape(z, m)
}"""


def test_a_computed_target_becomes_copies_and_one_inferred_size() -> None:
    before, after = parse(HEADS), parse(HEADS)
    assert simplify_shapes(after) > 0
    remove_dead(after)
    assert ops(after) == {"Reshape": 2}
    targets = {node.inputs[1] for node in after.graph.ops()}
    assert [value.tensor.numpy().tolist() for value in targets if value and value.tensor] == [[0, 0, -1, 16]]
    check_same(before, after, {"x": numbers(2, 5, 64), "z": numbers(2, 5, 64)})
    assert simplify_shapes(after) == 0


def test_equal_symbolic_contents_are_computed_once() -> None:
    text = """(x: float32[B, S, 64], z: float32[B, S, 7]) -> (y) {
      n = Concat(Slice(Shape(x), [0], [2]), [1], axis=0)
      m = Concat(Slice(Shape(z), [0], [2]), [1], axis=0)
      y = Add(Expand(1.0, n), Expand(2.0, m)) }"""
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    remove_dead(after)
    assert ops(after) == {"Shape": 1, "Slice": 1, "Concat": 1, "Expand": 2, "Add": 1}
    check_same(before, after, {"x": numbers(2, 5, 64), "z": numbers(2, 5, 7)})


def test_equal_contents_of_different_rank_or_type_are_not_shared() -> None:
    text = """(x: float32[B, 4]) -> (y, z, w) {
      n = Gather(Shape(x), 0)
      y = Range(0, n, 1)
      z = Expand(1.0, Gather(Shape(x), [0]))
      w = Range(int32 0, Cast(n, to=int32), int32 1) }"""
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    assert ops(after) == {"Shape": 2, "Gather": 2, "Cast": 1, "Range": 2, "Expand": 1}
    check_same(before, after, {"x": numbers(3, 4)})


def test_a_scale_computed_from_a_static_size_folds() -> None:
    text = """(x: float32[B, 16]) -> (y) {
      d = Cast(Slice(Shape(x), [-1], [9223372036854775807]), to=float32)
      y = Div(x, Sqrt(d)) }"""
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    fold_constants(after)
    remove_dead(after)
    assert ops(after) == {"Div": 1}
    check_same(before, after, {"x": numbers(3, 16)})


def test_a_static_graph_output_stays_and_symbolic_ones_keep_their_names() -> None:
    text = """(x: float32[B, 16]) -> (n, m, d) { n = Shape(x)  m = Shape(x)  d = Gather(Shape(x), 1) }"""
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    assert [value.name for value in after.graph.outputs] == ["n", "m", "d"]
    assert ops(after)["Identity"] == 0
    check_same(before, after, {"x": numbers(3, 16)})


def test_a_size_is_not_read_from_what_a_rule_only_measures() -> None:
    text = "r = Reshape(Relu(x), [-1, 32])  y = Expand(2.0, Concat(Gather(Shape(r), [0]), [7], axis=0))"
    model = parse(f"(x: float32[B, 4, 8]) -> (y) {{ {text} }}")
    simplify_shapes(model)
    remove_dead(model)
    assert sorted(node.op for node in model.graph.ops()) == ["Concat", "Expand", "Gather", "Shape"]


@pytest.mark.parametrize(("target", "dropped"), [("Shape(x)", True), ("[1, 4]", True), ("Shape(z)", False)])
def test_an_expand_to_the_shape_that_is_there_goes(target: str, dropped: bool) -> None:
    text = f"(x: float32[B, 4], z: float32[A, B, 4]) -> (y) {{ h = Neg(x)  y = Abs(Expand(h, {target})) }}"
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    remove_dead(after)
    assert ops(after)["Expand"] == (not dropped)
    check_same(before, after, {"x": numbers(2, 4), "z": numbers(3, 2, 4)})


def test_an_expand_that_repeats_stays() -> None:
    text = "(x: float32[B, 4]) -> (y) { y = Abs(Expand(ReduceMax(x, [0]), Shape(x))) }"
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    remove_dead(after)
    assert ops(after)["Expand"] == 1
    check_same(before, after, {"x": numbers(3, 4)})


def test_an_expand_of_an_input_that_is_an_output_stays() -> None:
    model = parse("(x: float32[B, 4]) -> (y) { y = Expand(x, Shape(x)) }")
    assert simplify_shapes(model) == 0


def test_sizes_of_outer_scopes_are_known_in_inner_ones() -> None:
    text = """(c: bool[], x: float32[B, 4, 6]) -> (y) {
      n = Concat(Gather(Shape(x), [0]), [24], axis=0)
      y = If(c, then_branch=() -> (p) { p = Reshape(x, n) }, else_branch=() -> (q) { q = Neg(Reshape(x, n)) }) }"""
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    remove_dead(after)
    assert ops(after) == {"If": 1, "Reshape": 2, "Neg": 1}
    check_same(before, after, {"c": np.array(True), "x": numbers(3, 4, 6)})


B, S = dims.symbol("B"), dims.symbol("S")


@pytest.mark.parametrize(
    ("shape", "content", "copying", "expected"),
    [
        ((B, S, 64), (B, S, 4, 16), True, (0, 0, 4, 16)),
        ((B, S, 64), (B, S, -1, 16), True, (0, 0, -1, 16)),
        ((B, S, 64), (dims.mul(B, S), 64), True, (-1, 64)),
        ((B, 8, S), (B, 8, S), False, (0, 8, 0)),
        # -1 beside a size that may be 0 at run time: the runtime would divide by it.
        ((B, 2, S, 8), (B, dims.mul(2, S), 8), True, None),
        # Two sizes that are neither there already nor the only one left.
        ((dims.mul(B, S), 64), (B, S, 64), True, None),
        # -1 is taken.
        ((B, S, 64), (dims.mul(B, S), -1), True, None),
        # A size at another place is not a copy.
        ((B, S, 64), (S, B, 64), True, None),
        # 0 means no elements here.
        ((B, S, 0), (B, 0), False, None),
        (None, (B, 64), True, (-1, 64)),
        (None, (B, S, 64), True, None),
        # 0 with nothing to copy: as a constant it would be refused when the model is loaded.
        ((B, 64), (B, 64, 0), True, None),
    ],
)
def test_literal_target(
    shape: dims.Shape | None, content: dims.Shape, copying: bool, expected: tuple[int, ...] | None
) -> None:
    assert literal_target(shape, content, copying) == expected


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_batch_of_nothing_still_reshapes(batch: int) -> None:
    text = """(x: float32[B, S, 64]) -> (a, b) {
      s = Shape(x)
      a = Reshape(x, Concat(Slice(s, [0], [2]), [4, 16], axis=0), allowzero=1)
      b = Reshape(x, Concat(Mul(Gather(s, [0]), Gather(s, [1])), [64], axis=0)) }"""
    before, after = parse(text), parse(text)
    simplify_shapes(after)
    remove_dead(after)
    assert ops(after) == {"Reshape": 2}
    check_same(before, after, {"x": numbers(batch, 5, 64)})


# ---- remove_dead -----------------------------------------------------------------------------------------------------


def test_dead_chains_go_with_their_constants_and_inputs_stay() -> None:
    model = parse("""opset 17, my 1
    (x: float32[4], unused: float32[4], w = float32[4] 1) -> (y) {
      v = float32[4] 2
      a = Add(x, v)
      b = my.Anything(a, w)
      y = Neg(x) }""")
    assert remove_dead(model) == 3
    assert ops(model) == {"Neg": 1}
    assert [node.output.name for node in model.graph.inputs] == ["x", "unused", "w"]
    assert remove_dead(model) == 0


def test_an_operation_of_which_one_output_is_read_stays() -> None:
    model = parse("(x: float32[4]) -> (y) { a, b = Split(x, num_outputs=2)  y = Neg(b) }")
    assert remove_dead(model) == 0


def test_what_only_dead_code_in_a_branch_captured_goes() -> None:
    text = """(c: bool[], x: float32[3]) -> (y) {
      h = Exp(x)
      g = Abs(x)
      y = If(c, then_branch=() -> (p) { d = Neg(h)  p = Neg(g) }, else_branch=() -> (q) { q = Add(x, g) }) }"""
    before, after = parse(text), parse(text)
    # The capture, its reader and what it captured.
    assert remove_dead(after) == 3
    assert ops(after) == {"Abs": 1, "If": 1, "Neg": 1, "Add": 1}
    for c in (True, False):
        check_same(before, after, {"c": np.array(c), "x": numbers(3)})


def test_a_capture_that_another_branch_shares_stays() -> None:
    text = """(c: bool[], x: float32[3]) -> (y) {
      h = Exp(x)
      y = If(c, then_branch=() -> (p) { d = Neg(h)  p = Neg(x) }, else_branch=() -> (q) { q = Abs(h) }) }"""
    before, after = parse(text), parse(text)
    assert remove_dead(after) == 2
    for c in (True, False):
        check_same(before, after, {"c": np.array(c), "x": numbers(3)})


def test_a_model_without_outputs_stays() -> None:
    model = parse("(x: float32[4]) -> () { h = Relu(x)  y = Neg(h) }")
    assert remove_dead(model) == 0
    assert [node.op for node in model.graph.ops()] == ["Relu", "Neg"]


def test_removal_can_be_taken_back() -> None:
    model = parse("(x: float32[4]) -> (y) { b = Exp(Add(x, float32[4] 2))  y = Neg(x) }")
    before = model_to_proto(model)
    with model.ledger.transaction() as transaction:
        remove_dead(model)
        assert model_to_proto(model) != before
        transaction.rollback()
    assert model_to_proto(model) == before


# ---- merge_common ----------------------------------------------------------------------------------------------------


def test_equal_operations_on_equal_constants_merge() -> None:
    text = """(x: float32[4]) -> (y) {
      a = Mul(Add(x, 1.0), float32[4] {1, 2, 3, 4})
      b = Mul(Add(x, 1.0), float32[4] {1, 2, 3, 4})
      y = Sub(a, Neg(b)) }"""
    before, after = parse(text), parse(text)
    assert merge_common(after) == 2
    assert ops(after) == {"Add": 1, "Mul": 1, "Neg": 1, "Sub": 1}
    check_same(before, after, {"x": numbers(4)})


@pytest.mark.parametrize(
    "text",
    [
        "(x: float32[4]) -> (y) { y = Sub(RandomNormalLike(x), RandomNormalLike(x)) }",
        "(x: float32[4]) -> (y) { y = Sub(RandomNormalLike(x, seed=1.0), RandomNormalLike(x, seed=1.0)) }",
        "(x: float32[4]) -> (y) { a = Dropout(x, 0.5, true)  b = Dropout(x, 0.5, true)  y = Sub(a, b) }",
        "(x: float32[4]) -> (y) { y = Sub(Add(x, 1.0), Add(x, 2.0)) }",
        "(x: float32[4]) -> (y) { y = Sub(Add(x, 0.0), Add(x, -0.0)) }",
        "(x: float32[4, 4]) -> (y) { y = Sub(Softmax(x, axis=0), Softmax(x, axis=1)) }",
        "(x: float32[4, 4]) -> (y) { y = Sub(x, Add(Elu(x, alpha=0.0), Elu(x, alpha=-0.0))) }",
        "opset 17, my 1 (x: float32[4]) -> (y) { y = Sub(my.Draw(x), my.Draw(x)) }",
        """opset 17, my 1 (x: float32[4]) -> (y) { y = Sub(my.Outermost(x), my.Outermost(x)) }
        function my.Outermost (a) -> (b) { b = my.Outer(a) }
        function my.Outer (a) -> (b) { b = my.Inner(a) }
        function my.Inner (a) -> (b) { b = RandomNormalLike(a) }""",
        """(c: bool[], x: float32[4]) -> (y) {
          a = If(c, then_branch=() -> (p) { p = Neg(x) }, else_branch=() -> (q) { q = Abs(x) })
          b = If(c, then_branch=() -> (r) { r = Abs(x) }, else_branch=() -> (s) { s = Neg(x) })
          y = Sub(a, b) }""",
        "(x: float32[4]) -> (y, z) { y = Identity(x)  z = Identity(x) }",
    ],
    ids=["random", "seeded", "dropout", "constant", "zeros", "axis", "attribute-zeros", "unknown", "random-function",
         "subgraphs", "two-names"],
)  # fmt: skip
def test_merging_leaves_alone(text: str) -> None:
    model = parse(text)
    assert merge_common(model) == 0


def test_calls_of_a_function_that_draws_nothing_merge() -> None:
    model = parse("""opset 17, my 1
    (x: float32[4]) -> (y) { y = Sub(my.Twice(x), my.Twice(x)) }
    function my.Twice (a) -> (b) { b = Add(a, a) }""")
    assert merge_common(model) == 1


def test_the_survivor_takes_the_name_of_a_graph_output() -> None:
    text = "(x: float32[4]) -> (z) { y = Neg(x)  w = Exp(y)  z = Neg(x)  v = Exp(w) }"
    before, after = parse(text), parse(text)
    assert merge_common(after) == 1
    assert [value.name for value in after.graph.outputs] == ["z"]
    check_same(before, after, {"x": numbers(4)})


def test_two_graph_outputs_that_are_equal_are_computed_once() -> None:
    text = """(x: float32[4, 4]) -> (u, v, s, y, z) {
      a, u = Split(x, num_outputs=2)
      b, v = Split(x, num_outputs=2)
      s = Add(Exp(a), Exp(b))
      y = Neg(x)
      z = Neg(x) }"""
    before, after = parse(text), parse(text)
    assert merge_common(after) == 3
    assert ops(after) == {"Split": 1, "Exp": 1, "Add": 1, "Neg": 1, "Identity": 2}
    check_same(before, after, {"x": numbers(4, 4)})
    assert merge_common(after) == 0


def test_empty_slots_at_the_end_are_none() -> None:
    text = "(x: float32[4]) -> (y) { y = Sum(Clip(x, 0.5), Clip(x, 0.5, _), Clip(x, _, 0.5)) }"
    model = parse(text)
    assert merge_common(model) == 1
    assert ops(model) == {"Clip": 2, "Sum": 1}


def test_scopes_merge_apart() -> None:
    text = """(c: bool[], x: float32[3]) -> (y) {
      h = Neg(x)
      y = If(c, then_branch=() -> (p) { p = Add(Neg(x), Neg(x)) }, else_branch=() -> (q) { q = Neg(h) }) }"""
    before, after = parse(text), parse(text)
    assert merge_common(after) == 1
    for c in (True, False):
        check_same(before, after, {"c": np.array(c), "x": numbers(3)})


def test_what_reads_merged_values_merges_at_once() -> None:
    text = """(x: float32[4]) -> (y) {
      a = Neg(x)
      u = Exp(a)
      b = Neg(x)
      v = Exp(b)
      y = Sub(Abs(u), Abs(v)) }"""
    before, after = parse(text), parse(text)
    assert merge_common(after) == 3
    assert ops(after) == {"Neg": 1, "Exp": 1, "Abs": 1, "Sub": 1}
    check_same(before, after, {"x": numbers(4)})


def test_nodes_with_subgraphs_do_not_merge_when_what_they_capture_does() -> None:
    text = """(c: bool[], x: float32[4]) -> (y) {
      a = Neg(x)
      u = If(c, then_branch=() -> (p) { p = Exp(a) }, else_branch=() -> (q) { q = Abs(a) })
      b = Neg(x)
      v = If(c, then_branch=() -> (r) { r = Abs(b) }, else_branch=() -> (s) { s = Exp(b) })
      y = Sub(u, v) }"""
    before, after = parse(text), parse(text)
    assert merge_common(after) == 1
    check_same(before, after, {"c": np.array(True), "x": numbers(4)})


def test_large_constants_are_equal_only_where_they_are_one() -> None:
    text = """(x: float32[B, 40]) -> (y) {
      v = float32[40, 800] random(1)
      w = float32[40, 800] random(1)
      y = Sub(MatMul(x, v), MatMul(x, w)) }"""
    assert merge_common(parse(text)) == 0
    assert merge_common(parse(text.replace("800", "80"))) == 1
    assert merge_common(parse(text.replace("x, w", "x, v"))) == 1


def test_equal_constant_nodes_merge() -> None:
    model = parse("(x: float32[4]) -> (y) { y = Neg(x) }")
    graph = model.graph
    values = [graph.add_op("Constant", [], {"value": Tensor.of(np.float32(2))}).output for _ in range(2)]
    added = graph.add_op("Add", [graph.add_op("Mul", [graph.outputs[0], values[0]]).output, values[1]])
    graph.set_input(graph.output, 0, added.output)
    assert merge_common(model) == 1
    assert ops(model)["Constant"] == 1


def test_equal_overridable_initializers_do_not_merge() -> None:
    text = "(x: float32[4]{}) -> (y) {{ {} y = Sub(Mul(Add(x, v), v), Mul(Add(x, w), w)) }}"
    constants = "v = float32[4] 2{0} w = float32[4] 2"
    assert merge_common(parse(text.format(", " + constants.format(","), ""))) == 0
    assert merge_common(parse(text.format("", constants.format("")))) == 2


def test_a_function_that_draws_in_a_subgraph_does_not_merge() -> None:
    text = """opset 20, my 1
    (x: float32[4], c: bool[]) -> (y) { y = Sub(my.Draw(x, c), my.Draw(x, c)) }
    function my.Draw (a, c) -> (b) { b = If(c,
      then_branch=() -> (p) { p = %s(a) }, else_branch=() -> (q) { q = Neg(a) }) }"""
    assert merge_common(parse(text % "RandomNormalLike")) == 0
    assert merge_common(parse(text % "Exp")) == 1
