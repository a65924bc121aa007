"""Excerpts of graphs, and how a case is made small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from graphopt.ir import Model
from graphopt.ir.text import parse, to_text
from graphopt.rewrite import CompiledRule, Context, Expr, Ops, Rule, Value, built_in_rules
from graphopt.runtime import Runner
from graphopt.verify import Comparison
from graphopt.verify.failures.excerpt import excerpt, inner_names
from graphopt.verify.failures.shrink import Case, shrunk
from graphopt.verify.failures.trial import Trial, alone

LONG = """
(`a long name`: float32[N, 16], w: float32[16, 16], c: bool) -> (y) {
  a = MatMul(`a long name`, w)
  b = If(c, then_branch=() -> (p) { p = Neg(a) }, else_branch=() -> (q) { q = Abs(a) })
  d = Exp(Tanh(b))
  e = Log(Add(d, 1.0))
  f = Sqrt(Abs(Erf(e)))
  y = Mul(f, Exp(f))
}
"""


class ErfIsTanh(Rule):
    """Wrong."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Abs(op.Erf(x))

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Abs(op.Tanh(x))


class CappedAttention(Rule):
    """Wrong, and about an operator that no file has."""

    stage = "fuse"

    def pattern(self, op: Ops, q: Value, k: Value, v: Value) -> Expr:
        return op.Neg(op.ir.Attention(q, k, v, scale=0.5))

    def rewrite(self, op: Ops, q: Value, k: Value, v: Value) -> Expr:
        return op.Neg(op.ir.Attention(q, k, v, scale=0.25))


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner


def trial(rule: type[Rule], runner: Runner) -> Trial:
    lowering = [one for one in built_in_rules() if one.stage == "lower"]
    return Trial(alone(CompiledRule(rule()), Context()), lowering, runner)


def shapes(*sizes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=size).astype(np.float32) for size in sizes]


def found(model: Model, core: list[str], feed: dict[str, Any], rule: type[Rule], runner: Runner) -> Case:
    case = shrunk(model, core, [feed], trial(rule, runner))
    assert case is not None
    return case


def test_an_excerpt_begins_where_it_is_told_to_and_at_subgraphs() -> None:
    graph = parse(LONG).graph
    part = excerpt([graph.names["f"]], ["e"])
    assert to_text(part, names=False).splitlines()[1:] == [
        "(e: float32[N, 16]) -> (f) {" if graph.names["e"].shape else "(e) -> (f) {",
        "  v1 = Erf(e)",
        "  v2 = Abs(v1)",
        "  f = Sqrt(v2)",
        "}",
    ]
    whole = excerpt([graph.names["y"]], ())
    assert [node.output.name for node in whole.graph.inputs] == ["b"]


def test_what_has_nothing_to_do_with_it_is_left_out(runner: Runner) -> None:
    x, w = shapes((3, 16), (16, 16))
    feed = {"a long name": x, "w": w, "c": np.array(True)}
    model = excerpt(parse(LONG.replace("If(c, then_branch=() -> (p) { p = Neg(a) }, ", "Neg(a) #")).graph.outputs, ())
    case = found(model, inner_names(model), feed, ErfIsTanh, runner)
    assert [node.op for node in case.model.graph.ops()] == ["Erf", "Abs"]
    assert {array.size for array in case.feed.values()} == {1}
    assert set(case.feed) == {"x1"}
    assert case.comparison.verdict == "unequal"


class Counted(Trial):
    """Counts what is tried."""

    tried = 0

    def differs(self, model: Model, feed: Mapping[str, Any]) -> Comparison | None:
        type(self).tried += 1
        return super().differs(model, feed)


def test_the_nodes_of_the_match_are_tried_first(runner: Runner) -> None:
    chain = "".join(f"a{i} = Tanh(a{i - 1}) " for i in range(1, 60))
    model = excerpt(parse(f"(a0: float32[N, 4]) -> (y) {{ {chain} e = Erf(a59) y = Abs(e) }}").graph.outputs, ())
    plain = trial(ErfIsTanh, runner)
    case = shrunk(model, ["e", "y"], [{"a0": shapes((3, 4))[0]}], Counted(plain.rewrite, plain.lowering, runner))
    assert case is not None
    assert case.nodes == 2
    assert Counted.tried < 20


def test_a_case_may_have_operators_that_no_file_has(runner: Runner) -> None:
    text = """(q: float32[B, 2, S, 4], k: float32[B, 2, T, 4], v: float32[B, 2, T, 4]) -> (y) {
      y = Neg(ir.Attention(Exp(q), Abs(k), v, scale=0.5))
    }"""
    q, k, v = shapes((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4))
    case = found(parse(text), ["y"], {"q": q, "k": k, "v": v}, CappedAttention, runner)
    assert "ir.Attention(x1, x2, x3, scale=0.5)" in to_text(case.model)
    assert case.nodes == 2
    assert case.feed["x1"].size < q.size


def test_what_is_right_makes_no_case(runner: Runner) -> None:
    text = "(x: float32[N, 4]) -> (y) { y = Erf(x) }"
    assert shrunk(parse(text), ["y"], [{"x": shapes((3, 4))[0]}], trial(ErfIsTanh, runner)) is None


def test_the_first_case_of_what_hangs_is_kept_as_it_is(runner: Runner) -> None:
    model = excerpt(parse("(a: float32[N, 4]) -> (y) { b = Neg(a) e = Erf(b) y = Abs(e) }").graph.outputs, ())
    plain = trial(ErfIsTanh, runner)
    Counted.tried = 0
    counted = Counted(plain.rewrite, plain.lowering, runner)
    case = shrunk(model, ["e", "y"], [{"a": shapes((3, 4))[0]}], counted, hangs=True)
    assert case is not None
    assert Counted.tried == 1
    assert [node.op for node in case.model.graph.ops()] == ["Erf", "Abs"]
