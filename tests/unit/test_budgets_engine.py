"""Rules that would run without end are stopped by what they did, named with those beside them; the rest goes on."""

from __future__ import annotations

import time

from graphopt.ir import Model
from graphopt.ir.text import parse
from graphopt.rewrite import Attr, Builder, CompiledRule, Engine, Expr, Limits, Ops, Reason, Rule, Trace, Value


class Grows(Rule):
    """tan(x) → tan(−tan(x)): each site makes two, none at the root of another."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Tan(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Tan(op.Neg(op.Tan(x)))


class Explodes(Rule):
    """exp(x) → exp of fifty negations of x."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Exp(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        for _ in range(50):
            x = op.Neg(x)
        return op.Exp(x)


class CountsUp(Rule):
    """LeakyRelu with a slope of n → with one of n + 1, up to 60."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, n: Attr) -> Expr:
        return op.LeakyRelu(x, alpha=n)

    def where(self, n: float) -> Reason:
        return n < 60 or "large enough"

    def rewrite(self, op: Builder, x: Value, n: float) -> Value:
        return op.LeakyRelu(x, alpha=n + 1)


class SinToCos(Rule):
    """sin(x) → −cos(−x): the new root lies behind the old one."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sin(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Neg(op.Cos(op.Neg(x)))


class CosToSin(Rule):
    """cos(x) → −sin(−x)"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Cos(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Neg(op.Sin(op.Neg(x)))


class AbsOfRoot(Rule):
    """√(x·x) → |x|"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sqrt(op.Mul(x, x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Abs(x)


def rewrite(model: Model, *rules: type[Rule], **limits: int) -> Trace:
    engine = Engine([CompiledRule(rule()) for rule in rules], limits=Limits(**limits))
    engine.run(model)
    return engine.trace


def graph(body: str) -> Model:
    return parse(f"(x: float32[4], c: bool[]) -> (y) {{ {body} }}")


def branches(count: int, body: str) -> str:
    """So many Ifs, each with a `body` of its own that computes `p`, and their sum."""
    ifs = " ".join(
        f"i{n} = If(c, then_branch=() -> (p) {{ {body} }}, else_branch=() -> (q) {{ q = Relu(x) }})"
        for n in range(count)
    )
    return f"{ifs} s = Sum({', '.join(f'i{n}' for n in range(count))})"


def test_two_rules_that_undo_each_other_at_fresh_roots_are_stopped_and_named() -> None:
    model = graph("s = Sin(x) y = Sqrt(Mul(s, s))")
    start = time.process_time()
    trace = rewrite(model, SinToCos, CosToSin, AbsOfRoot, spare=200)
    (failure,) = trace.failures
    assert all(name in failure.rule + failure.message for name in ("SinToCos", "CosToSin"))
    assert failure.error.exit_code == 6
    assert trace.counts["AbsOfRoot"].applied == 1
    assert time.process_time() - start < 10


def test_a_rule_that_writes_without_end_is_stopped_by_what_it_writes() -> None:
    model = graph("s = Exp(x) y = Sqrt(Mul(s, s))")
    trace = rewrite(model, Explodes, AbsOfRoot, sites_per_root=10**9, spare=50)
    (failure,) = trace.failures
    assert (failure.rule, "writes without end" in failure.message) == ("Explodes", True)
    assert model.node_count() < 20 * 60 + 100
    assert trace.counts["AbsOfRoot"].applied == 1


def test_a_rule_that_feeds_itself_in_a_small_scope_of_a_large_model_ends_soon() -> None:
    chain = " ".join(f"v{n} = Relu({f'v{n - 1}' if n else 'x'})" for n in range(500))
    model = graph(f"{chain} {branches(1, 'p = Tan(x)')} y = Add(s, v499)")
    trace = rewrite(model, Grows, spare=20)
    (failure,) = trace.failures
    assert "alone" in failure.message
    assert trace.counts["Grows"].applied < 4 * 40


def test_a_rule_that_goes_on_for_long_in_each_of_many_scopes_ends() -> None:
    model = graph(f"{branches(30, 'p = LeakyRelu(x, alpha=1.0)')} y = Identity(s)")
    trace = rewrite(model, CountsUp, sites_per_node=1, spare=100)
    (failure,) = trace.failures
    assert failure.rule == "CountsUp"
    assert trace.counts["CountsUp"].applied < 30 * 60 / 4


def test_a_rule_set_aside_leaves_a_valid_model() -> None:
    model = graph("s = Tan(x) y = Sqrt(Mul(s, s))")
    rewrite(model, Grows, AbsOfRoot, spare=20)
    assert [node.op for node in model.graph.ops()][-1] == "Abs"
