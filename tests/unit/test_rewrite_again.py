"""What is tried, and tried again: no rule misses a place where it would match, in this run or in a later one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest

from graphopt.ir import Model, Node, Value
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.rewrite import Builder, CompiledRule, Engine, Expr, Limits, Number, Ops, Reason, Rule, const, like


def graph(text: str, opset: str = "20, my 1") -> Model:
    """A model from statements over float x, y (N, 4); or from a whole text."""
    if not text.startswith("("):
        text = f"(x: float32[N, 4], y: float32[N, 4]) -> (z) {{ {text} }}"
    model = parse(f"opset {opset}\n{text}")
    infer(model)
    return model


def engine(*rules: type[Rule], **options: Any) -> Engine:
    return Engine([CompiledRule(rule()) for rule in rules], **options)


def node(model: Model, name: str) -> Node:
    return model.graph.names[name].node


# ---- what changed between two runs -----------------------------------------------------------------------------------


class Finds(Rule):
    """Replaces what it finds, once."""

    stage = "clean"
    once = True

    def rewrite(self, op: Builder, root: Value) -> Value:
        return op.Unheard(*root.node.inputs[:1], domain="my")


class AbsOfRoot(Finds):
    """√(x·x)"""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sqrt(op.prod(x, x))


class UpperOnly(Finds):
    """min(x, k)"""

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.Clip(x, None, k)


class Halved(Finds):
    """x/2"""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Mul(x, 0.5)


class ReadTwice(Finds):
    """relu(x), read twice."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Relu(x)

    def where(self, root: Value) -> Reason:
        return root.uses == 2 or f"read {root.uses} times"


class OfMatrix(Finds):
    """exp(x) of a matrix x."""

    def pattern(self, op: Ops, x: Annotated[Value, like(rank=2)]) -> Expr:
        return op.Exp(x)


class OfKnown(Finds):
    """|x| of integers x that are known."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Abs(x)

    def where(self, x: Value) -> Reason:
        return x.content is not None or "not known"


class LastAxis(Finds):
    """softmax over the last axis."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Softmax(x, axis=-1)


class Sine(Finds):
    """sin x"""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sin(x)


class Drawn(Finds):
    """A random value."""

    def pattern(self, op: Ops) -> Expr:
        return op.RandomNormal(...)


Change = Callable[[Model], object]

CHANGES: dict[str, tuple[type[Rule], str, Change]] = {
    "reads nothing now": (
        UpperOnly,
        "z = Clip(x, 0.0, 6.0)",
        lambda m: m.graph.set_input(node(m, "z"), 1, None),
    ),
    "reads another constant": (
        Halved,
        "h = Identity(0.5) z = Mul(x, 0.25)",
        lambda m: m.graph.set_input(node(m, "z"), 1, node(m, "h").inputs[0]),
    ),
    "lost a reader": (
        AbsOfRoot,
        "(x: float32[4], y: float32[4]) -> (z, u) { h = Mul(x, x) z = Sqrt(h) u = Neg(h) }",
        lambda m: m.graph.set_input(node(m, "u"), 0, m.graph.names["y"]),
    ),
    "has another reader": (
        ReadTwice,
        "(x: float32[4], y: float32[4]) -> (z, u) { h = Relu(x) z = Sqrt(h) u = Neg(y) }",
        lambda m: m.graph.set_input(node(m, "u"), 0, m.graph.names["h"]),
    ),
    "has a type": (OfMatrix, "h = my.Unheard(x) z = Exp(h)", lambda m: m.graph.set_type(m.graph.names["h"], 1, (2, 2))),
    "has known elements": (
        OfKnown,
        "(x: int64[2]) -> (z) { h = Neg(x) z = Abs(h) }",
        lambda m: m.graph.set_content(m.graph.names["h"], (1, 2)),
    ),
    "has another attribute": (
        LastAxis,
        "z = Softmax(x, axis=0)",
        lambda m: m.graph.set_attr(node(m, "z"), "axis", 1),
    ),
    "is another operation": (Sine, "z = Cos(x)", lambda m: m.graph.set_op(node(m, "z"), "Sin", "", 20)),
    "is new and reads nothing": (
        Drawn,
        "z = Cos(x)",
        lambda m: m.graph.add_op("RandomNormal", [], {"shape": [2]}),
    ),
}


@pytest.mark.parametrize(("rule", "text", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_what_changed_between_two_runs_is_tried_again(rule: type[Rule], text: str, change: Change) -> None:
    model = graph(text)
    runs = engine(rule)
    assert runs.run(model) == 0
    tried = runs.trace.count(rule.__name__).tried
    assert runs.run(model) == 0
    assert runs.trace.count(rule.__name__).tried == tried, "nothing has changed"
    change(model)
    assert runs.run(model) == 1


class Later(AbsOfRoot):
    """Another stage."""

    stage = "recover"


def test_a_rule_that_has_not_run_yet_looks_everywhere() -> None:
    model = graph("z = Sqrt(Mul(x, x))")
    runs = engine(Sine, Later)
    assert runs.run(model, ("clean",)) == 0
    assert runs.run(model, ("clean", "recover")) == 1


def test_a_rule_looks_at_what_changed_since_it_ran() -> None:
    model = graph("h = Mul(x, y) z = Sqrt(h)")
    runs = engine(Sine, Later)
    assert runs.run(model) == 0
    model.graph.set_input(node(model, "h"), 1, model.graph.names["x"])
    assert runs.run(model, ("clean",)) == 0
    assert runs.run(model) == 1


def test_a_change_deep_inside_a_pattern_is_seen_at_its_root() -> None:
    class Deep(Finds):
        def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
            return op.Sub(y, op.Sqrt(op.Exp(op.Abs(op.Neg(op.Sin(x))))))

    for copies in ("h", "Identity(Identity(Identity(Identity(h))))"):
        model = graph(f"h = Cos(x) z = Sub(y, Sqrt(Exp(Abs(Neg({copies})))))")
        runs = engine(Deep)
        assert runs.run(model) == 0
        model.graph.set_op(node(model, "h"), "Sin", "", 20)
        assert runs.run(model) == 1


def test_what_reads_the_result_of_a_site_is_tried_again() -> None:
    class Behind(Finds):
        once = False

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Exp(op.Abs(op.Sin(x)))

        def rewrite(self, x: Value) -> Value:
            return x

    class OfInput(Finds):
        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Neg(x)

        def where(self, x: Value) -> Reason:
            return x.node.op == "Input" or "no input"

    model = read_by_many("h = Cos(x) z = Neg(Exp(Abs(h)))", "z")
    runs = engine(Behind, OfInput)
    assert runs.run(model) == 0
    model.graph.set_op(node(model, "h"), "Sin", "", 20)
    assert runs.run(model) == 2


READERS = [f"t{number}" for number in range(5)]
"""More than what a site frees may have."""


def read_by_many(text: str, results: str) -> Model:
    body = " ".join(f"{name} = Tanh(x)" for name in READERS)
    return graph(f"(x: float32[4]) -> ({results}, {', '.join(READERS)}) {{ {text} {body} }}")


class CosToSin(Finds):
    """cos x, of which a sine is made."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Cos(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Sin(x)


def test_what_a_site_made_is_tried_again() -> None:
    assert engine(CosToSin, Sine).run(read_by_many("z = Cos(x)", "z")) == 2


def test_a_root_is_tried_again_when_what_lies_behind_another_changes() -> None:
    class Both(Finds):
        def pattern(self, op: Ops, x: Value) -> tuple[Expr, Expr]:
            return op.Exp(x), op.Neg(op.Sin(x))

        def rewrite(self, op: Builder, x: Value) -> tuple[Value, ...]:
            return op.Unheard(x, domain="my"), op.Unheard(x, domain="my")

    assert engine(CosToSin, Both).run(read_by_many("e = Exp(x) z = Neg(Cos(x))", "z, e")) == 2


def test_a_root_that_a_site_has_freed_is_tried_again() -> None:
    class ReadOnce(Finds):
        priority = -1

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Relu(x)

        def where(self, root: Value) -> Reason:
            return root.uses == 1 or "read by others, too"

    class NoSine(Sine):
        def rewrite(self, x: Value) -> Value:
            return x.node.inputs[0] or x

    model = graph("(x: float32[4]) -> (z, u) { h = Relu(x) z = Neg(h) u = Exp(Sin(h)) }")
    assert engine(ReadOnce, NoSine).run(model) == 2


def test_a_root_that_stays_is_tried_with_the_other_rules() -> None:
    class Inner(Finds):
        priority = 1

        def pattern(self, op: Ops, x: Value) -> Expr:
            part = op.Sin(x)
            return op.anchor(op.Exp(op.Abs(part)), part)

    class OfMine(Finds):
        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Exp(x)

    model = graph("z = Cos(Abs(Sin(x)))")
    runs = engine(Inner, OfMine)
    assert runs.run(model) == 0
    model.graph.set_op(node(model, "z"), "Exp", "", 20)
    assert runs.run(model) == 2


def test_what_got_a_type_is_tried_again() -> None:
    class NoCast(Finds):
        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Cast(x, ...)

        def rewrite(self, x: Value) -> Value:
            return x

    class OfFloats(Finds):
        def pattern(self, op: Ops, x: Annotated[Value, like(dtype="float32")]) -> Expr:
            return op.Exp(x)

    model = graph("(x: float32[4]) -> (z, u) { h = my.Unheard(x) z = Exp(h) u = Neg(Cast(h, to=float32)) }")
    runs = engine(NoCast, OfFloats)
    assert runs.run(model) == 2
    assert [site.rule for site in runs.trace.sites] == ["NoCast", "OfFloats"]


BRANCHES = """(x: float32[4], c: bool[]) -> (z, n) {{ {} z = If(c, then_branch=() -> (p) {{ {} }},
  else_branch=() -> (q) {{ q = Abs(x) }}) }}"""


class Known(Sine):
    """sin x, said to be 0: nothing is captured any more."""

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Neg(op.const([0.0] * 4, like=x))


def test_what_a_subgraph_frees_is_tried_again() -> None:
    model = graph(BRANCHES.format("h = Mul(x, x) n = Sqrt(h)", "p = Cos(h)"))
    runs = engine(AbsOfRoot, Known)
    assert runs.run(model) == 0
    (inner,) = (scope for scope in model.scopes() if "p" in scope.names)
    inner.set_op(inner.names["p"].node, "Sin", "", 20)
    assert runs.run(model) == 2


class OfCaptured(Finds):
    """exp(|−x|) with −x around."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Exp(op.captured(op.Abs(op.Neg(x))))

    def rewrite(self, op: Builder, root: Value) -> Value:
        return op.Unheard(root.node.inputs[0], domain="my")


def test_what_changed_around_a_subgraph_is_tried_in_it() -> None:
    model = graph(BRANCHES.format("h = Cos(x) n = Abs(h)", "p = Exp(n)"))
    runs = engine(OfCaptured)
    assert runs.run(model) == 0
    model.graph.set_op(node(model, "h"), "Neg", "", 20)
    assert runs.run(model) == 1


def test_what_changes_around_a_subgraph_is_tried_in_it() -> None:
    class Cosine(Finds):
        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Cos(x)

        def rewrite(self, op: Builder, x: Value) -> Value:
            return op.Neg(x)

    model = graph(BRANCHES.format("h = Cos(x) n = Abs(h)", "p = Exp(n)"))
    runs = engine(OfCaptured, Cosine)
    assert runs.run(model) == 2
    assert [site.rule for site in runs.trace.sites] == ["Cosine", "OfCaptured"]


def test_a_subgraph_that_went_with_its_node_is_left_alone() -> None:
    class NoIf(Finds):
        def pattern(self, op: Ops, c: Value) -> Expr:
            return op.Neg(op.If(c, ...))

        def where(self, root: Value) -> Reason:
            (branches,) = root.node.producers()
            return len(list(branches.producers())) == 2 or "captures more"

        def rewrite(self, op: Builder, c: Value) -> Value:
            return op.Unheard(c, domain="my")

    class OfLonely(Finds):
        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Exp(x)

        def where(self, x: Value) -> Reason:
            (around,) = x.resolved.node.producers()
            return around.output.uses == 1 or "has other readers"

    model = graph(
        "(x: float32[4], c: bool[]) -> (z) { h = Sqrt(x) g = Abs(h) "
        "z = Neg(If(c, then_branch=() -> (p) { p = Cos(h) }, else_branch=() -> (q) { q = Exp(g) })) }"
    )
    runs = engine(Known, NoIf, OfLonely)
    assert runs.run(model) == 0
    (inner,) = (scope for scope in model.scopes() if "p" in scope.names)
    inner.set_op(inner.names["p"].node, "Sin", "", 20)
    assert runs.run(model) == 2
    assert [site.rule for site in runs.trace.sites] == ["Known", "NoIf"]
    assert not runs.trace.failures


def test_a_constant_that_lost_a_reader_is_looked_at_again() -> None:
    class OfItsOwn(Finds):
        def pattern(self, op: Ops, x: Value, w: Annotated[Value, const()]) -> Expr:
            return op.MatMul(x, w)

        def where(self, w: Value) -> Reason:
            return w.uses == 1 or "shared"

    model = graph("w = float32[4, 4] random(1) a = MatMul(x, w) b = MatMul(y, w) z = Exp(a)")
    runs = engine(OfItsOwn)
    assert runs.run(model) == 0
    model.graph.remove(node(model, "b"))
    assert runs.run(model) == 1


def test_the_budget_of_a_model_is_that_of_one_run() -> None:
    class Never(Finds):
        def pattern(self, op: Ops, a: Value, b: Value, c: Value, d: Value) -> Expr:
            return op.sum(a, b, c, d)

        def where(self) -> Reason:
            return "never"

    model = graph("z = Add(Add(Relu(x), Abs(x)), Add(Exp(x), Neg(x)))")
    runs = engine(Never, limits=Limits(steps_per_node=15, spare=0))
    for _ in range(3):
        assert runs.run(model) == 0
        # A reader: the root has changed.
        model.graph.add_op("Tanh", [model.graph.names["z"]])
    assert runs.trace.counts["Never"].steps > 15 * model.node_count(), "too much for one run"
    assert not runs.trace.stopped


def test_what_was_tried_matched_refused_and_applied_is_counted() -> None:
    class OfFour(Finds):
        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Sin(op.Abs(x) | op.Neg(x))

        def where(self, x: Value) -> Reason:
            return x.shape == (4,) or "another size"

    runs = engine(OfFour)
    text = (
        "(x: float32[4], y: float32[5]) -> (a, b, c, d) { a = Sin(Neg(x)) b = Sin(Abs(y)) c = Sin(Abs(x)) d = Sin(y) }"
    )
    assert runs.run(graph(text)) == 2
    count = runs.trace.counts["OfFour"]
    assert (count.matched, count.applied, count.declined, count.rolled_back) == (3, 2, 0, 0)
    assert count.reasons == {"another size": 1}


def test_sites_are_taken_in_the_order_of_the_graph() -> None:
    model = graph("(x: float32[4]) -> (a, b, d) { a = Sin(x) b = Sin(Neg(x)) d = Sin(Exp(x)) }")
    runs = engine(Sine)
    runs.run(model)
    assert [site.root for site in runs.trace.sites] == ["a", "b", "d"]


# ---- what the index of rules leaves out ------------------------------------------------------------------------------


def six(op: Ops, x: Value) -> Expr:
    return op.sum(op.Relu(x), op.Exp(x), op.Abs(x), op.Neg(x), op.Tanh(x), op.Erf(x))


def scaled(op: Ops, x: Value) -> Expr:
    return op.scaled(op.Relu(x), 0.5)


def chain(op: Ops, x: Value) -> Expr:
    return op.Relu(op.Exp(op.Abs(op.Neg(op.Tanh(op.Erf(op.Sin(x)))))))


def weights(op: Ops, x: Value, w: Annotated[Value, const()]) -> Expr:
    return op.MatMul(x, w)


INNER = """(x: float32[N, 4], b: bool[]) -> (z) {{
  {c}
  z = If(b, then_branch=() -> (t) {{ t = {t} }}, else_branch=() -> (e) {{ e = Tanh(x) }})
}}"""

# Patterns as functions of x, and graphs where they stand.
STAND = {
    "behind a copy": (lambda op, x: op.Exp(op.Relu(x)), "z = Exp(Identity(Dropout(Relu(x))))"),
    "a number behind a copy": (lambda op, x: op.Mul(x, 0.5), "z = Mul(x, Identity(0.5))"),
    "weights behind a copy": (weights, "z = MatMul(x, Identity(float32[4, 4] random(1)))"),
    "weights of one element": (weights, "(x: float32[N, 1]) -> (z) { z = MatMul(x, float32[1, 1] 2.0) }"),
    "the first branch": (lambda op, x: op.Exp(op.Relu(x) | op.Abs(x)), "z = Exp(Relu(x))"),
    "the second branch": (lambda op, x: op.Exp(op.Relu(x) | op.Abs(x)), "z = Exp(Abs(x))"),
    "the other order": (lambda op, x: op.Mul(op.Relu(x), op.Exp(x)), "z = Mul(Exp(x), Relu(x))"),
    "a sum in the other order": (lambda op, x: op.sum(op.Relu(x), op.Exp(x)), "z = Add(Exp(x), Relu(x))"),
    "a sum of three": (
        lambda op, x: op.sum(op.Relu(x), op.Exp(x), op.Abs(x)),
        "z = Add(Exp(x), Add(Abs(x), Relu(x)))",
    ),
    "a long sum": (six, "z = Add(Add(Add(Add(Add(Relu(x), Exp(x)), Abs(x)), Neg(x)), Tanh(x)), Erf(x))"),
    "a deep pattern": (chain, "z = Relu(Exp(Abs(Neg(Tanh(Erf(Sin(x)))))))"),
    "a factor first": (scaled, "z = Mul(0.5, Relu(x))"),
    "a factor last": (scaled, "z = Mul(Relu(x), 0.5)"),
    "a divisor": (scaled, "z = Div(Relu(x), 2.0)"),
    "a quotient as a product": (lambda op, x: op.prod(op.Relu(x), 0.5), "z = Div(Relu(x), 2.0)"),
    "a difference as a sum": (lambda op, x: op.sum(op.Relu(x), -0.5), "z = Sub(Relu(x), 0.5)"),
    "a difference as a sum with a negation": (
        lambda op, x: op.sum(op.Relu(x), op.Neg(op.Exp(x))),
        "z = Sub(Relu(x), Exp(x))",
    ),
    "a difference as a sum with a multiple": (
        lambda op, x: op.sum(op.Relu(x), op.scaled(op.Exp(x), -1.0)),
        "z = Sub(Relu(x), Exp(x))",
    ),
    "a quotient as a product with a reciprocal": (
        lambda op, x: op.prod(op.Relu(x), op.Reciprocal(op.Exp(x))),
        "z = Div(Relu(x), Exp(x))",
    ),
    "a quotient as a product with one over": (
        lambda op, x: op.prod(op.Relu(x), 1.0 / op.Exp(x)),
        "z = Div(Relu(x), Exp(x))",
    ),
    "a difference as a sum with a branch": (
        lambda op, x: op.sum(op.Relu(x), op.Neg(op.Exp(x)) | op.Abs(x)),
        "z = Sub(Relu(x), Exp(x))",
    ),
    "a long sum with a difference": (
        lambda op, x: op.sum(op.Relu(x), op.Exp(x), op.Abs(x), op.Tanh(x), op.Neg(op.Erf(x))),
        "z = Sub(Add(Add(Add(Relu(x), Exp(x)), Abs(x)), Tanh(x)), Erf(x))",
    ),
    "a sum of a sum of one": (
        lambda op, x: op.sum(op.Relu(x), op.Exp(x), op.Abs(x)),
        "z = Add(Abs(x), Sum(Add(Relu(x), Exp(x))))",
    ),
    "a captured number": (lambda op, x: op.Mul(x, 0.5), INNER.format(c="c = Identity(0.5)", t="Mul(x, c)")),
    "captured weights": (
        weights,
        INNER.format(c="c = float32[4, 4] random(1)", t="MatMul(x, c)"),
    ),
    "an attribute before an operand": (lambda op, x: op.Clip(x, 6.0, min=0.0), "z = Clip(x, 0.0, 6.0)"),
    "an attribute as an input": (lambda op, x: op.ReduceMean(op.Relu(x), axes=[-1]), "z = ReduceMean(Relu(x), [-1])"),
    "an operand more": (lambda op, x: op.Dropout(op.Relu(x), ...), "z = Dropout(Relu(x), 0.5, true)"),
}


@pytest.mark.parametrize(("pattern", "text"), STAND.values(), ids=STAND.keys())
def test_the_index_of_rules_leaves_out_nothing(pattern: Callable[..., Expr], text: str) -> None:
    class Found(Finds):
        """What the pattern says."""

    Found.pattern = staticmethod(pattern)
    for explain in (True, False):
        assert engine(Found, explain=explain).run(graph(text)) == 1
