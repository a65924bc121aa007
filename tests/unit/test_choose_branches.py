"""An If whose condition is known before the model runs, and what must stay a choice."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from graphopt.ir import Model, load
from graphopt.ir.save import model_to_proto
from graphopt.ir.text import parse
from graphopt.ir.validate import validate
from graphopt.passes import choose_branches, remove_dead
from graphopt.pipeline import fuse
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Trace, built_in_rules
from graphopt.targets import target_named
from tests.unit.test_passes import Feeds, check_same, numbers, ops

FEEDS: Feeds = {"x": numbers(2, 3)}


def chosen(text: str) -> Model:
    """What is left of `text`, which computes the same."""
    before, after, trace = parse(text), parse(text), Trace()
    count = choose_branches(after, trace)
    assert count == len(trace.sites) == trace.count("choose_branches").applied
    assert choose_branches(after, trace) == 0
    validate(after)
    check_same(before, after, FEEDS)
    remove_dead(after)
    return after


def written(condition: str, inputs: str = "x: float32[2, 3]") -> str:
    return f"""({inputs}) -> (y) {{ y = If({condition},
      then_branch=() -> (a) {{ a = Mul(Neg(x), float32[3] random(1)) }},
      else_branch=() -> (b) {{ b = Relu(x) }}) }}"""


@pytest.mark.parametrize(
    ("condition", "left"), [("true", {"Neg": 1, "Mul": 1}), ("[true]", {"Neg": 1, "Mul": 1}), ("[false]", {"Relu": 1})]
)
def test_the_branch_that_is_taken_stands_in_its_place(condition: str, left: dict[str, int]) -> None:
    model = chosen(written(condition))
    assert ops(model) == left
    assert "y" in model.graph.names


def test_a_condition_that_the_caller_gives_or_may_override_stays() -> None:
    for inputs in ("x: float32[2, 3], c: bool[]", "x: float32[2, 3], c = true"):
        model = parse(written("c", inputs))
        assert choose_branches(model, Trace()) == 0
        assert ops(model)["If"] == 1


def test_a_site_that_was_found_guilty_stays() -> None:
    model = parse(written("true"))
    assert choose_branches(model, Trace(), exclude=frozenset({("choose_branches", "y")})) == 0


def test_branches_in_branches() -> None:
    model = chosen("""(x: float32[2, 3]) -> (y, z) {
      h = Abs(x)
      t = true
      y, z = If(t,
        then_branch=() -> (a, w) {
          w = Exp(h)
          a = If(Not(t), then_branch=() -> (p) { p = Sin(h) },
            else_branch=() -> (q) { q = If(t, then_branch=() -> (r) { r = Add(w, h) },
                                              else_branch=() -> (s) { s = Sin(h) }) })
        },
        else_branch=() -> (b, v) { b = Relu(x)  v = Cos(x) })
    }""")
    assert ops(model) == {"Abs": 1, "Exp": 1, "If": 1, "Not": 1, "Sin": 1, "Add": 1}


def test_a_choice_inside_what_stays_one() -> None:
    text = """(x: float32[2, 3], c: bool[]) -> (y) {
      y = If(c, then_branch=() -> (a) { a = If(false, then_branch=() -> (p) { p = Neg(x) },
                                                      else_branch=() -> (q) { q = Mul(x, x) }) },
                else_branch=() -> (b) { b = Relu(x) }) }"""
    model = parse(text)
    assert choose_branches(model, Trace()) == 1
    validate(model)
    assert ops(model) == {"If": 1, "Mul": 1, "Relu": 1}
    for c in (True, False):
        check_same(parse(text), model, FEEDS | {"c": np.array(c)})


def test_one_result_as_two_outputs_and_an_operand_as_a_result() -> None:
    model = chosen("""(x: float32[2, 3]) -> (y, z, u) {
      k = Abs(x)
      y, z, u = If(true,
        then_branch=() -> (a, b, c) { a = Neg(x)  b = Identity(a)  c = Identity(k) },
        else_branch=() -> (d, e, f) { d = Relu(x)  e = Abs(x)  f = Neg(x) })
    }""")
    assert ops(model) == {"Abs": 1, "Neg": 1, "Identity": 2}


def test_a_loop_in_a_branch_comes_along() -> None:
    model = chosen("""(x: float32[2, 3]) -> (y) {
      y = If(true, then_branch=() -> (a) {
          n = Neg(x)
          a = Loop(3, true, n, body=(i: int64[], c: bool[], v: float32[2, 3]) -> (d, w) {
            d = Identity(c)  w = Add(Add(v, n), Cast(i, to=float32)) })
        },
        else_branch=() -> (b) { b = Relu(x) }) }""")
    assert ops(model) == {"Neg": 1, "Loop": 1, "Identity": 1, "Add": 2, "Cast": 1}


def test_conditions_that_fold_late_are_seen() -> None:
    text = """(x: float32[B, 2, 3]) -> (y: float32) {
      rank = Size(Shape(x))
      h = If(Equal(rank, 0), then_branch=() -> (a: float32) { a = Unsqueeze(x, [0]) },
                             else_branch=() -> (b: float32) { b = Neg(x) })
      k = Size(Shape(h))
      y = If(Less(k, Add(rank, 1)), then_branch=() -> (c: float32) { c = Sqrt(Abs(h)) },
                                    else_branch=() -> (d: float32) { d = Squeeze(h) })
    }"""
    model = parse(text, opset=17)
    trace = optimize(model, target=target_named("ort-cpu"), rules=built_in_rules())
    assert ops(model) == {"Neg": 1, "Abs": 1, "Sqrt": 1}
    assert trace.counts["choose_branches"].applied == 2
    assert fuse(model_to_proto(parse(text, opset=17))).verdict == "equal"


def test_a_sparse_weight_of_a_branch_comes_along() -> None:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("places", TensorProto.INT64, [1], [4]), [2, 3])
    out = helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3])
    taken = helper.make_graph([helper.make_node("Add", ["x", "w"], ["a"])], "taken", [], [out])
    taken.sparse_initializer.append(sparse)
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["a"])], "other", [], [out])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["c"], ["y"], then_branch=taken, else_branch=other),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    opsets = [helper.make_opsetid("", 17)]
    proto = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8)
    before, after = load(proto), load(proto)
    assert choose_branches(after, Trace()) == 1
    validate(after)
    check_same(before, after, FEEDS)
