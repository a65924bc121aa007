"""Which values of two models are equal by structure, and what the regions are where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.ir import Model, Tensor
from graphopt.ir.text import parse
from graphopt.ir.versions import raise_opset
from graphopt.verify import Region, regions

BASE = """
opset 17
(x: float32[N, 64]) -> (y, z) {
  w = float32[64, 64] random(1)
  v = float32[64, 64] random(2)
  a = MatMul(x, w)
  b = Relu(a)
  y = MatMul(b, v)
  z = Softmax(y, axis=-1)
}
"""


def compared(original: str | Model, candidate: str | Model) -> tuple[dict[str, Region], int]:
    """The regions by output, and how many cut points are equal for free."""
    models = [model if isinstance(model, Model) else parse(model) for model in (original, candidate)]
    found, free = regions(*models)
    return {region.output: region for region in found}, free


def ops(region: Region) -> tuple[list[str], list[str]]:
    return [n.op for n in region.original_cone.nodes], [n.op for n in region.candidate_cone.nodes]


def test_a_model_is_equal_to_itself_without_a_run() -> None:
    assert compared(BASE, BASE) == ({}, 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b = Relu(a)", "c = Relu(a)\n b = Identity(c)"),  # identities
        ("Softmax(y, axis=-1)", "Softmax(y)"),  # schema defaults
        ("v = float32[64, 64] random(2)", "u = float32[64, 64] random(2)\n v = Identity(u)"),  # names of constants
    ],
)
def test_what_changes_nothing_is_free(old: str, new: str) -> None:
    assert old in BASE
    assert compared(BASE, BASE.replace(old, new))[0] == {}


@pytest.mark.parametrize(
    ("old", "new", "output"),
    [
        ("Relu(a)", "Abs(a)", "b"),
        ("MatMul(b, v)", "MatMul(v, b)", "y"),
        ("axis=-1", "axis=0", "z"),
        ("v = float32[64, 64] random(2)", "v = float32[64, 64] random(3)", "y"),  # same name, other bits
        ("float32[64, 64] random(2)", "float32[64, 64] random(1)", "y"),  # another constant of the model
    ],
)
def test_what_changes_something_is_one_region(old: str, new: str, output: str) -> None:
    found, free = compared(BASE, BASE.replace(old, new))
    assert (list(found), free) == ([output], 3)


def test_a_region_reaches_back_to_the_nearest_cuts_in_both_models() -> None:
    found, _ = compared(BASE, BASE.replace("b = Relu(a)", "c = Relu(a)").replace("y = MatMul(b, v)", "y = Gemm(c, v)"))
    region = found["y"]
    assert ops(region) == (["Relu", "MatMul"], ["Relu", "Gemm"])
    assert region.inputs == ("a",)
    assert list(region.original_cone.constants) == ["v"]
    assert {"b", "c", "y"} <= region.names


def test_values_that_nothing_depends_on_are_not_compared() -> None:
    assert compared(BASE.replace("z = S", "d = Neg(b)\n z = S"), BASE.replace("z = S", "d = Abs(b)\n z = S"))[0] == {}


def test_a_name_that_became_a_constant_stands_for_itself_on_both_sides() -> None:
    before = "opset 17\n(x: float32[2]) -> (y) { s = Sqrt(float32[2] {4, 9})\n t = Add(x, s)\n y = Exp(t) }"
    after = "opset 17\n(x: float32[2]) -> (y) { s = float32[2] {2, 3}\n t = Add(x, s)\n y = Exp(t) }"
    found, _ = compared(before, after)
    assert list(found) == ["s"]
    assert found["s"].inputs == ()


def test_merging_common_subexpressions_is_free_and_what_it_exploits_is_known() -> None:
    text = "opset 17\n(x: float32[2]) -> (y) {{ a = Exp(x)\n {}y = Sub(a, {}) }}"
    assert compared(text.format("b = Exp(x)\n ", "b"), text.format("", "a")) == ({}, 2)
    found, _ = compared(text.format("b = Exp(x)\n c = Neg(b)\n ", "c"), text.format("c = Abs(a)\n ", "c"))
    # `b` stands for `a`, so both sides of the region start from `a`.
    assert found["c"].original_cone.boundary == found["c"].candidate_cone.boundary == ("a",)


def test_two_draws_are_two_values() -> None:
    draw = "RandomNormal(shape=[2])"
    text = "opset 17\n(x: float32[2]) -> (y) {{ {} y = Add(x, Sub(p, q)) }}"
    two = text.format(f"p = {draw}\n q = {draw}\n")
    assert compared(two, two)[0] == {}
    merged = parse(text.format(f"p = {draw}\n q = Identity(p)\n"))
    found, _ = compared(two, merged)
    assert list(found) == ["q"]
    assert found["q"].is_random


def test_versions_that_mean_the_same_are_the_same() -> None:
    text = """opset 13\n(x: float32[2, 3]) -> (y) {
      t = Transpose(x, perm=[1, 0])\n r = Reshape(t, [-1])\n i = Identity(r)\n y = Relu(i) }"""
    raised = parse(text)
    raise_opset(raised, 21)
    assert raised.opset == 21
    found, _ = compared(text, raised)
    assert set(found) <= {"r"}  # Reshape-14 has an attribute more
    old = "opset 12\n(x: float32[2, 3, 4]) -> (y) { y = Softmax(x, axis=1) }"
    assert list(compared(old, old.replace("opset 12", "opset 13"))[0]) == ["y"]


def test_subgraphs_are_compared_and_their_captures_are_inputs() -> None:
    text = """opset 17\n(x: float32[2], c: bool[]) -> (y) {{ a = Exp(x)\n
      y = If(c, then_branch=() -> (p) {{ p = {}(a) }}, else_branch=() -> (q) {{ q = Abs(a) }}) }}"""
    assert compared(text.format("Neg"), text.format("Neg"))[0] == {}
    found, _ = compared(text.format("Neg"), text.format("Relu"))
    assert ops(found["y"]) == (["If"], ["If"])
    assert set(found["y"].inputs) == {"c", "a"}


def test_a_node_with_several_outputs_is_compared_output_by_output() -> None:
    text = "opset 18\n(x: float32[4]) -> (a, b) {{ a, b = Split(x, {}, axis=0) }}"
    found, free = compared(text.format("[2, 2]"), text.format("[1, 3]"))
    assert (set(found), free) == ({"a", "b"}, 0)


def test_functions_are_compared_by_their_bodies() -> None:
    text = """opset 17, mine 1\n(x: float32[2]) -> (y) {{ y = mine.F(x) }}
      function mine.F (p) -> (q) {{ q = {}(p) }}"""
    assert compared(text.format("Exp"), text.format("Exp"))[0] == {}
    assert list(compared(text.format("Exp"), text.format("Log"))[0]) == ["y"]


def test_large_constants_are_told_apart_by_their_last_element() -> None:
    def model(last: float) -> Model:
        model = parse("opset 17\n(x: float32[4096]) -> (y) { y = Neg(x) }")
        data = np.zeros(4096, np.float32)
        data[-1] = last
        node = model.graph.names["y"].node
        new = model.graph.add_op("Add", [node.inputs[0], model.graph.add_constant(Tensor.of(data), "w")])
        model.graph.replace(node.output, new.output, take_name=True)
        return model

    assert compared(model(1), model(1))[0] == {}
    assert list(compared(model(1), model(2))[0]) == ["y"]


def test_a_long_chain_is_compared_without_recursion() -> None:
    lines = "\n".join(f"v{i + 1} = Neg(v{i})" for i in range(20_000))
    text = f"opset 17\n(v0: float32[2]) -> (v20000) {{ {lines} }}"
    changed = text.replace("v7 = Neg(v6)", "v7 = Abs(v6)")
    found, free = compared(text, changed)
    assert (list(found), free) == (["v7"], 19_999)


FUNCTIONS = """
opset 17, loc 1
(x: float32[N]) -> (y) { y = loc.Outer(x) }
function loc.Outer(a) -> (b) { b = loc.Inner(a) }
function loc.Inner(c) -> (d) { d = Abs(c) }
"""
BRANCHES = """
opset 17, loc 1
(x: float32[N], c: bool[]) -> (y) {
  y = If(c, then_branch=() -> (p) { p = loc.F(x) }, else_branch=() -> (q) { q = Neg(x) })
}
function loc.F(a) -> (b) { b = Abs(a) }
"""
VERSIONS = """
opset 12
(x: float32[2, 3, 4], c: bool[]) -> (y) {
  y = If(c, then_branch=() -> (p) { p = Softmax(x, axis=1) }, else_branch=() -> (q) { q = Neg(x) })
}
"""


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        (FUNCTIONS, "Abs(c)", "Relu(c)"),
        (BRANCHES, "Abs(a)", "Relu(a)"),
        (VERSIONS, "opset 12", "opset 13"),  # until then Softmax took all axes from 1 on as one
    ],
)
def test_what_a_function_calls_and_a_branch_holds_counts(model: str, old: str, new: str) -> None:
    assert old in model
    assert compared(model, model) == ({}, 1)
    assert list(compared(model, model.replace(old, new))[0]) == ["y"]


def test_tensors_without_elements_are_equal_for_free() -> None:
    base = "opset 17\n(x: float32[0, 4]) -> (y: float32[0, 4]) { y = Abs(x) }"
    assert compared(base, base.replace("Abs", "Neg")) == ({}, 1)
