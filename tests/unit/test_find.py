"""`find`: where a pattern stands, without rewriting."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import onnx
import onnx.parser
import pytest

import graphopt
from graphopt.errors import InconclusiveError, RuleError
from graphopt.ir import model_to_proto
from graphopt.ir.text import parse
from graphopt.rewrite import Attr, Expr, Number, Ops, Reason, Rule, Value, const, like, numbers_of


def gelu_like(op: Ops, x: Value, k: Number) -> Expr:
    return op.prod(x, op.Erf(op.scaled(x, k)) + 1.0)


def twice(op: Ops, x: Value) -> Expr:
    return op.Relu(op.Relu(x))


def test_bindings_nodes_and_root_are_told() -> None:
    model = parse("(x: float32[N, 4]) -> (y) { e = Erf(Div(x, 2.0))\n s = Add(1.0, e)\n y = Mul(s, x) }")
    (found,) = graphopt.find(model, gelu_like)
    assert found.root.name == "y"
    assert found.bindings == {"x": model.graph.names["x"], "k": 0.5}
    assert [node.op for node in found.nodes] == ["Div", "Erf", "Add", "Mul"]
    assert found.scope == "main graph"
    assert repr(found) == f"<y in the main graph: x=x, k=0.5; nodes {found.nodes[0].outputs[0].name}, e, s, y>"


def test_nothing_is_rewritten_so_escapes_and_overlaps_are_found() -> None:
    model = parse("(x: float32[N]) -> (a, b, c) { a = Relu(x)\n b = Relu(a)\n c = Relu(b) }")
    before = [(node, *node.inputs) for node in model.graph.ops()]
    assert [one.root.name for one in graphopt.find(model, twice)] == ["b", "c"]
    assert [(node, *node.inputs) for node in model.graph.ops()] == before


def test_constants_attributes_and_optional_parts() -> None:
    def layer(
        op: Ops,
        x: Annotated[Value, like(rank=2)],
        w: Annotated[Value, const(rank=2)],
        axis: Attr,
        b: Annotated[Value, const(rank=1)] | None = None,
    ) -> Expr:
        product = op.MatMul(x, w)
        return op.Softmax(op.sum(product, b) | product, axis=axis)

    text = """(x: float32[N, 4]) -> (p, q) {
      p = Softmax(Add(MatMul(x, float32[4, 8] random(1)), float32[8] random(2)), axis=0)
      q = Softmax(MatMul(x, float32[4, 8] random(3)))
    }"""
    p, q = graphopt.find(parse(text), layer)
    assert p.bindings["axis"] == 0
    assert p.bindings["b"].shape == (8,)
    assert numbers_of(q.bindings["w"]).shape == (4, 8)
    assert q.bindings["b"] is None
    assert "b=None" in repr(q)


def scoped() -> onnx.ModelProto:
    return onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20, "here" : 1]>
    main (float[N] x, bool flag) => (float[N] y) {
        r = Relu(x)
        c = If(flag) <
            then_branch = one () => (float[N] t) { t = Relu(r) },
            else_branch = two () => (float[N] e) { d = Relu(r)  e = Relu(d) }
        >
        y = here.twice(c)
    }
    <domain: "here", opset_import: ["" : 20]> twice (a) => (b) { m = Relu(a)  b = Relu(m) }
    """)


def test_every_scope_is_searched_and_none_left() -> None:
    found = graphopt.find(scoped(), twice)
    # t = Relu(r) reads a Relu of the scope around it: no match reaches out.
    assert [(one.root.name, one.scope) for one in found] == [
        ("e", "else_branch of c, main graph"),
        ("b", "function here.twice"),
    ]


def test_a_rule_is_found_where_its_condition_holds() -> None:
    class Leaky(Rule):
        """max(x, αx)."""

        stage = "recover"

        def pattern(self, op: Ops, x: Value, alpha: Number) -> Expr:
            return op.Max(x, op.scaled(x, alpha))

        def where(self, alpha: float) -> Reason:
            return alpha <= 1 or "above 1"

        def rewrite(self, x: Value) -> Value:
            return x

    text = "(x: float32[N]) -> (a, b) { a = Max(Mul(x, 0.5), x)\n b = Max(x, Mul(x, 1.5)) }"
    assert [one.root.name for one in graphopt.find(parse(text), Leaky)] == ["a"]


def test_several_roots_and_all_uses() -> None:
    def pair(op: Ops, x: Value) -> tuple[Expr, Expr]:
        return op.Sin(x), op.Cos(x)

    def uses(op: Ops, x: Value, k: Number) -> Expr:
        return op.each_use(op.Exp(x), lambda y: op.scaled(y, k))

    model = parse("""(x: float32[N]) -> (a, b, c, d) {
      a = Sin(x)
      b = Cos(x)
      e = Exp(x)
      c = Mul(e, 2.0)
      d = Div(e, 2.0)
    }""")
    (both,) = graphopt.find(model, pair)
    assert [value.name for value in both.roots] == ["a", "b"]
    (all_uses,) = graphopt.find(model, uses)
    assert all_uses.bindings["k"] == [2.0, 0.5]
    assert "k=[2, 0.5]" in repr(all_uses)


def test_what_a_budget_does_not_reach_is_an_error() -> None:
    sums = "".join(f"s{i} = Add(s{i - 1}, x{i})\n" for i in range(1, 9))
    inputs = ", ".join(f"x{i}: float32[N]" for i in range(1, 9))
    model = parse(f"(s0: float32[N], {inputs}) -> (y) {{ {sums} y = Neg(s8) }}")

    def blown_up(op: Ops, a: Value, b: Value, c: Value, d: Value, e: Value, f: Value) -> Expr:
        return op.Neg(op.sum(a, b, c, d, e, op.Exp(f)) | op.sum(op.Relu(a), b, c, d, op.Exp(e), f))

    with pytest.raises(InconclusiveError, match="more than 50 steps") as raised:
        graphopt.find(model, blown_up, steps=50)
    assert raised.value.code == "GO066"
    assert "(Neg)" in raised.value.where


def test_a_pattern_that_is_none_is_told_with_its_line() -> None:
    def nothing(op: Ops, x: Value) -> None:
        op.Relu(x)

    with pytest.raises(RuleError, match="cannot be read") as raised:
        graphopt.find(parse("(x: float32[N]) -> (y) { y = Relu(x) }"), nothing)
    assert "test_find.py:" in raised.value.where


def test_a_file_is_searched_too(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "model.onnx")
    onnx.save(scoped(), path)
    assert len(graphopt.find(path, twice)) == 2


def test_order_does_not_depend_on_hashes() -> None:
    code = """
import graphopt
from graphopt.ir.text import parse
model = parse('''(x: float32[N]) -> (y) {
    a = Relu(x)
    b = Relu(a)
    c = Relu(a)
    d = Relu(b)
    y = Add(c, d)
}''')
print(graphopt.find(model, lambda op, x: op.Relu(op.Relu(x))))
"""
    said = set()
    for seed in "012":
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        said.add(done.stdout)
        assert done.returncode == 0, done.stderr
    assert len(said) == 1


def test_types_are_inferred_first() -> None:
    model = parse("(x: float32[N, 4]) -> (y) { h = Relu(x)\n y = Exp(h) }")
    proto = model_to_proto(model)
    del proto.graph.value_info[:]

    def flat(op: Ops, h: Annotated[Value, like(rank=2, dtype="float32")]) -> Expr:
        return op.Exp(h)

    assert len(graphopt.find(proto, flat)) == 1
