"""A run ends where no rule matches any more: what a site or a pass changes, however far from it, is tried again."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from graphopt.ir import Model, Value
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.passes import fold_constants
from graphopt.rewrite import (
    Builder,
    CompiledRule,
    Engine,
    Expr,
    Number,
    Ops,
    Reason,
    Rule,
    const,
    like,
    numbers_of,
)

Const = Annotated[Value, const()]
Vector = Annotated[Value, like(rank=1)]


def graph(text: str) -> Model:
    model = parse(f"opset 20, my 1\n{text}")
    infer(model)
    return model


def captured(outside: str, inside: str) -> Model:
    """A model that computes `w` and captures it in one branch of an If."""
    branches = f"then_branch=() -> (p) {{ p = {inside} }}, else_branch=() -> (q) {{ q = Neg(x) }}"
    return graph(f"(x: float32[4], c: bool[]) -> (y) {{ w = {outside} y = If(c, {branches}) }}")


def engine(*rules: type[Rule], **options: Any) -> Engine:
    return Engine([CompiledRule(rule()) for rule in rules], **options)


def assert_all_fire(model: Model, *rules: type[Rule]) -> None:
    """Each of `rules` fires once, in this order, in one run, which leaves nothing to a fresh engine."""
    runs = engine(*rules)
    runs.run(model)
    assert [site.rule for site in runs.trace.sites] == [rule.__name__ for rule in rules]
    assert engine(*rules).run(model) == 0


class ReluFromMax(Rule):
    """max(x, 0) → relu(x)"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Max(x, 0.0)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Relu(x)


class ProductOfPower(Rule):
    """x ** c → x·c, wrong but for c = 2 and x = 2"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, c: Const) -> Expr:
        return op.Pow(x, c)

    def rewrite(self, op: Builder, x: Value, c: Value) -> Value:
        return op.Mul(x, c)


# ---- what a subgraph captures ----------------------------------------------------------------------------------------


def test_a_captured_value_is_another_operation_now() -> None:
    class PowerOfCaptured(Rule):
        """x ** relu(y), relu(y) captured → x·y"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
            return op.Pow(x, op.captured(op.Relu(y)))

        def rewrite(self, op: Builder, x: Value, y: Value) -> Value:
            return op.Mul(x, y)

    assert_all_fire(captured("Max(x, 0.0)", "Pow(x, w)"), ReluFromMax, PowerOfCaptured)


class FoldsAbs(Rule):
    """|c| → a constant"""

    stage = "clean"

    def pattern(self, op: Ops, c: Const) -> Expr:
        return op.Abs(c)

    def rewrite(self, op: Builder, c: Value) -> Value:
        return op.const(abs(numbers_of(c)), like=c)


def test_a_captured_value_is_a_constant_now() -> None:
    assert_all_fire(captured("Abs(float32[4] 2.0)", "Pow(x, w)"), FoldsAbs, ProductOfPower)


def test_a_value_that_is_captured_through_several_levels_is_a_constant_now() -> None:
    inside = "Pow(x, w)"
    for level in range(3):
        branches = f"then_branch=() -> (p{level}) {{ p{level} = {inside} }}, else_branch=() -> (q) {{ q = Neg(x) }}"
        inside = f"If(c, {branches})"
        assert_all_fire(captured("Abs(float32[4] 2.0)", inside), FoldsAbs, ProductOfPower)


def test_a_captured_value_behind_copies_is_a_constant_now() -> None:
    copies = "Identity(Dropout(Identity({})))"
    assert_all_fire(captured(copies.format("Abs(float32[4] 2.0)"), "Pow(x, w)"), FoldsAbs, ProductOfPower)
    assert_all_fire(captured("Abs(float32[4] 2.0)", f"Pow(x, {copies.format('w')})"), FoldsAbs, ProductOfPower)


def test_a_pass_makes_a_captured_value_a_constant() -> None:
    model = captured("Neg(float32[4] 2.0)", "Pow(x, w)")
    runs = engine(ProductOfPower)
    assert runs.run(model) == 0
    fold_constants(model)
    assert runs.run(model) == 1


# ---- what a site frees -----------------------------------------------------------------------------------------------


class ZeroOfVector(Rule):
    """0·x → 0, of x of known size"""

    stage = "clean"

    def pattern(self, op: Ops, x: Vector) -> Expr:
        return op.Mul(x, 0.0)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.const([0] * len(x.shape or ()), like=x)


def test_a_freed_value_that_a_larger_pattern_reads_often() -> None:
    class FactorOfRelu(Rule):
        """r·r + r → r·(r + 1), r = relu(x)"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value) -> Expr:
            relu = op.Relu(x)
            return op.sum(relu * relu, relu)

        def rewrite(self, op: Builder, x: Value) -> Value:
            relu = op.Elu(x, alpha=0.0)
            return op.Mul(relu, op.Add(relu, op.const(1.0, like=x)))

    model = graph("(x: float32[1]) -> (y, z) { r = Relu(x) y = Add(Mul(r, r), r) z = Neg(Mul(r, 0.0)) }")
    assert_all_fire(model, ZeroOfVector, FactorOfRelu)


def test_a_freed_output_of_what_is_a_root() -> None:
    class FirstOfTopK(Rule):
        """The values of TopK, of which nobody reads the places → a slice"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value, k: Value) -> Expr:
            return op.TopK(x, k, ...)[0]

        def where(self, root: Value) -> Reason:
            return root.node.outputs[1].uses == 0 or "its places are read"

        def rewrite(self, op: Builder, x: Value, k: Value) -> Value:
            return op.Slice(x, op.ints(0), k)

    model = graph("(x: float32[4]) -> (y, z) { v, i = TopK(x, int64[1] {1}) y = Neg(v) z = Neg(Mul(i, 0)) }")
    assert_all_fire(model, ZeroOfVector, FirstOfTopK)


class OnlyReader(ProductOfPower):
    """x ** c, c read here only"""

    def where(self, c: Value) -> Reason:
        return c.uses == 1 or f"read {c.uses} times"


SHARED = "(x: float32[4]) -> (y, z) { w = float32[4] 2.0 y = Pow(x, w) z = Div(x, Neg(w)) }"


def test_a_constant_that_a_site_reads_no_more() -> None:
    class NegatedDivisor(Rule):
        """x / -c, of a constant c → the same with one constant"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value, c: Const) -> Expr:
            return op.Div(x, op.Neg(c))

        def rewrite(self, op: Builder, x: Value, c: Value) -> Value:
            return op.Div(x, op.const(-numbers_of(c), like=c))

    assert_all_fire(graph(SHARED), NegatedDivisor, OnlyReader)


def test_a_constant_that_a_pass_reads_no_more() -> None:
    model = graph(SHARED)
    runs = engine(OnlyReader)
    assert runs.run(model) == 0
    fold_constants(model)
    assert runs.run(model) == 1


# ---- what becomes known ----------------------------------------------------------------------------------------------


def test_a_value_that_was_there_and_gets_a_type() -> None:
    class NegOfNeg(Rule):
        """−(−x) → x"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Neg(op.Neg(x))

        def rewrite(self, x: Value) -> Value:
            return x

    class AbsOfVector(Rule):
        """|x|, of a vector x → max(x, −x)"""

        stage = "clean"

        def pattern(self, op: Ops, x: Vector) -> Expr:
            return op.Abs(x)

        def rewrite(self, op: Builder, x: Value) -> Value:
            return op.Max(x, op.Neg(x))

    readers = "a = Abs(u) d = Exp(u) e = Sin(u) f = Cos(u)"
    model = graph(f"(x: float32[4]) -> (a, b, d, e, f) {{ u = my.Unheard(x) {readers} b: float32[4] = Neg(Neg(u)) }}")
    assert_all_fire(model, NegOfNeg, AbsOfVector)


def test_another_model_is_tried_from_the_start() -> None:
    runs = engine(ReluFromMax)
    text = "(x: float32[4]) -> (y) { y = Max(x, 0.0) }"
    assert [runs.run(graph(text)), runs.run(graph(text))] == [1, 1]


# ---- with and without explaining -------------------------------------------------------------------------------------


class MaxOfOptional(Rule):
    """max(x), max(x, c) → relu(x)"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, c: Const | None = None) -> Expr:
        return op.Max(x, c)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Relu(x)


class ExpOfSum(Rule):
    """exp(relu(x) − y) → exp(x)"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.Exp(op.sum(op.Relu(x), op.Neg(y)))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Sigmoid(x)


class SumAtCopy(Rule):
    """relu(x) − y, rooted at a sum of one operand → x"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.sum(op.Relu(x), op.Neg(y))

    def where(self, root: Value) -> Reason:
        return root.node.op == "Sum" or "no copy"

    def rewrite(self, x: Value) -> Value:
        return x


class MaxOfTwo(MaxOfOptional):
    """max(exp(x), relu(x)), with a constant or without"""

    def pattern(self, op: Ops, x: Value, c: Const | None = None) -> Expr:
        return op.Max(op.Relu(x), op.Exp(x), c)


class MaxOfMore(ReluFromMax):
    """max(relu(x), …)"""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Max(op.Relu(x), ...)


class ReluOfScaled(Rule):
    """relu(k·x) → k·x"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.Relu(op.scaled(x, k))

    def rewrite(self, op: Builder, x: Value, k: float) -> Value:
        return op.Elu(x, alpha=k)


@pytest.mark.parametrize(
    ("rule", "call", "sites"),
    [
        (MaxOfOptional, "Max(x)", 1),
        (MaxOfTwo, "Max(Exp(x), Relu(x))", 1),
        (MaxOfTwo, "Max(2.0, Exp(x), Relu(x))", 1),
        (MaxOfTwo, "Max(Sin(x), Exp(x), Relu(x))", 0),
        (MaxOfMore, "Max(Exp(x), Sin(x), Relu(x))", 1),
        (ExpOfSum, "Exp(Sum(Add(Relu(x), Neg(x))))", 1),
        (SumAtCopy, "Sum(Add(Relu(x), Neg(x)))", 1),
        (SumAtCopy, "Sum(Sub(Relu(x), x))", 1),
        (ReluOfScaled, "Relu(Mul(x, nan))", 0),
    ],
)
def test_what_is_left_out_would_not_match(rule: type[Rule], call: str, sites: int) -> None:
    text = f"(x: float32[4]) -> (y) {{ y = {call} }}"
    assert [engine(rule, explain=explain).run(graph(text)) for explain in (False, True)] == [sites, sites]


def test_what_is_tried_to_explain_uses_no_budget() -> None:
    class SumOfFive(Rule):
        """A sum of four relus and a sine."""

        stage = "clean"

        def pattern(self, op: Ops, a: Value, b: Value, c: Value, d: Value, e: Value) -> Expr:
            return op.sum(op.Relu(a), op.Relu(b), op.Relu(c), op.Relu(d), op.Sin(e))

        def rewrite(self, op: Builder, a: Value, b: Value, c: Value, d: Value, e: Value) -> Value:
            return op.Sum(*map(op.Relu, (a, b, c, d)), op.Cos(e))

    long = "s0 = Relu(x) " + " ".join(f"r{i} = Relu(Abs(s{i})) s{i + 1} = Add(s{i}, r{i})" for i in range(400))
    sum_of_five = "Add(Add(Add(Add(Relu(x), Relu(Neg(x))), Relu(Exp(x))), Relu(Abs(x))), Sin(x))"
    text = f"(x: float32[4]) -> (y, z) {{ {long} y = Neg(s400) z = {sum_of_five} }}"
    assert [engine(SumOfFive, explain=explain).run(graph(text)) for explain in (False, True)] == [1, 1]
