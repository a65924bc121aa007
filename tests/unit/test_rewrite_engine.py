"""What the engine promises whatever a rule does: safety, order, rollback, budgets, an end, and the same bytes."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import numpy as np
import pytest

from graphopt.errors import ModelError
from graphopt.ir import Model, Value, model_from_proto, model_to_proto, validate
from graphopt.ir.infer import infer
from graphopt.ir.text import parse, to_text
from graphopt.rewrite import (
    Attr,
    Builder,
    CompiledRule,
    Context,
    Declined,
    Engine,
    Expr,
    Limits,
    Number,
    Ops,
    Reason,
    Rule,
    Trace,
    const,
    kernel,
)
from graphopt.targets import KernelEntry, Target

Const = Annotated[Value, const()]


class AbsOfRoot(Rule):
    """√(x·x) → |x|"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sqrt(op.prod(x, x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Abs(x)


class NegOfNeg(Rule):
    """−(−x) → x"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.Neg(x))

    def rewrite(self, x: Value) -> Value:
        return x


def graph(text: str, opset: int = 20) -> Model:
    model = parse(text if text.startswith("(") else f"(x: float32[N, 4], c: bool[]) -> (y) {{ {text} }}", opset=opset)
    infer(model)
    return model


def data(model: Model) -> bytes:
    return model_to_proto(model).SerializeToString(deterministic=True)


def rewrite(model: Model, *rules: type[Rule], **options: Any) -> Trace:
    """Applies the rules and explains; the IR must be valid after every site, and the same without explaining."""
    compiled = [CompiledRule(rule()) for rule in rules]
    copy = model_from_proto(model_to_proto(model))
    infer(copy)
    unexplained = Engine(compiled, **{key: value for key, value in options.items() if key != "trace"})
    unexplained.run(copy)
    engine = CheckedEngine(compiled, **options, explain=True)
    engine.run(model)
    validate(model)
    assert "trace" in options or unexplained.trace.sites == engine.trace.sites
    return engine.trace


class CheckedEngine(Engine):
    """Validates the whole model, and that it is sorted, after every site and every refusal."""

    def _apply(self, model: Model, *arguments: Any) -> Any:
        change = super()._apply(model, *arguments)
        validate(model)
        assert_sorted(model)
        return change


def assert_sorted(model: Model) -> None:
    proto = model_to_proto(model).graph
    known = {value.name for value in (*proto.input, *proto.initializer)}
    for node in proto.node:
        assert set(filter(None, node.input)) <= known
        assert not known & set(filter(None, node.output))
        known.update(node.output)
    assert {value.name for value in proto.output} <= known


def ops(model: Model) -> list[str]:
    return [node.op for scope in model.scopes() for node in scope.ops()]


def reasons(trace: Trace) -> str:
    return "\n".join(f"{refusal.node}: {refusal.reason}" for refusal in trace.refusals)


# ---- what may not be cut out -----------------------------------------------------------------------------------------

ESCAPES = {
    "another use": ("(x: float32[4]) -> (y, z) { h = Mul(x, x) y = Sqrt(h) z = Neg(h) }", "h inside the match"),
    "a graph output": (
        "(x: float32[4]) -> (y, h) { h = Mul(x, x) y = Sqrt(h) }",
        "h inside the match is a graph output",
    ),
    "a capture": (
        "(x: float32[4], c: bool[]) -> (y, z) { h = Mul(x, x) y = Sqrt(h) "
        "z = If(c, then_branch=() -> (p) { p = Neg(h) }, else_branch=() -> (q) { q = Neg(x) }) }",
        "h inside the match is also used by z",
    ),
    "a capture two levels down": (
        "(x: float32[4], c: bool[]) -> (y, z) { h = Mul(x, x) y = Sqrt(h) "
        "z = If(c, then_branch=() -> (p) { p = If(c, then_branch=() -> (r) { r = Neg(h) }, "
        "else_branch=() -> (s) { s = Abs(h) }) }, else_branch=() -> (q) { q = Neg(x) }) }",
        "h inside the match is also used by z",
    ),
    "another use of a copy": (
        "(x: float32[4]) -> (y, z) { i = Identity(Mul(x, x)) y = Sqrt(i) z = Neg(i) }",
        "i inside the match is also used by z",
    ),
    "a mask of a dropout": (
        "(x: float32[4]) -> (y, m) { d, m = Dropout(Mul(x, x)) y = Sqrt(d) }",
        "d inside the match is a graph output",
    ),
}


@pytest.mark.parametrize(("text", "reason"), ESCAPES.values(), ids=ESCAPES.keys())
def test_an_inner_value_that_is_seen_from_outside_is_refused(text: str, reason: str) -> None:
    model = graph(text)
    before = data(model)
    trace = rewrite(model, AbsOfRoot)
    assert reason in reasons(trace)
    assert not trace.sites
    assert data(model) == before


def test_a_use_of_the_root_is_no_escape() -> None:
    model = graph(
        "(x: float32[4], c: bool[]) -> (y, z) { y = Sqrt(Mul(x, x)) "
        "z = If(c, then_branch=() -> (p) { p = Neg(y) }, else_branch=() -> (q) { q = Neg(x) }) }"
    )
    assert len(rewrite(model, AbsOfRoot).sites) == 1
    assert sorted(ops(model)) == ["Abs", "If", "Neg", "Neg"]


class Joined(Rule):
    """exp(x) and relu(x) + b, computed together."""

    stage = "clean"
    once = True

    def pattern(self, op: Ops, x: Value, b: Value) -> tuple[Expr, Expr]:
        return op.Exp(x), op.Relu(x) + b

    def rewrite(self, op: Builder, x: Value, b: Value) -> tuple[Value, ...]:
        both = op.Concat(op.Exp(x), op.Add(op.Relu(x), b), axis=0)
        return op.split(both, [4, 4], axis=0)


def test_a_site_that_would_close_a_cycle_is_refused() -> None:
    model = graph("(x: float32[4], b: float32[4]) -> (y) { e = Exp(x) y = Add(Relu(x), Neg(e)) }")
    before = data(model)
    trace = rewrite(model, Joined)
    assert "depends on" in reasons(trace)
    assert trace.counts["Joined"].rolled_back == 1
    assert data(model) == before


@pytest.mark.parametrize(
    "body",
    [
        "e = Exp(x) r = Add(Relu(x), b) y = Add(Neg(e), Abs(r))",
        "e = Exp(x) n = Neg(e) r = Add(Relu(x), b) y = Add(n, Abs(r))",
        "r = Add(Relu(x), b) n = Neg(r) e = Exp(x) y = Add(n, Abs(e))",
    ],
)
def test_a_site_with_two_roots_lands_behind_all_it_reads_and_before_its_readers(body: str) -> None:
    model = graph(f"(x: float32[4], b: float32[4]) -> (y) {{ {body} }}")
    assert len(rewrite(model, Joined).sites) == 1
    assert "Split" in ops(model)


# ---- what a new value must be ----------------------------------------------------------------------------------------


def replaced_by(make: str) -> type[Rule]:
    """A rule that replaces relu(x) by what the expression `make` says."""

    class Replaced(Rule):
        """relu(x) → ..."""

        stage = "clean"
        once = True

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Relu(x)

        def rewrite(self, op: Builder, x: Value, root: Value) -> Any:
            return eval(make, {"np": np, "Declined": Declined}, {"op": op, "x": x, "root": root})

    return Replaced


BAD = {
    "nothing new": ("root", "changes nothing"),
    "nothing": ("op.Neg(op.Exp(x)) and None", "declined"),
    "a refusal": ("[op.Neg(x), (_ for _ in ()).throw(Declined('not here'))]", "not here"),
    "a cycle": ("op.Neg(op.Exp(root))", "depends on"),
    "a number that is too large": ("op.Mul(x, op.const(1e300, like=x))", "a number is too large for float32"),
}


@pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=BAD.keys())
def test_a_value_that_cannot_stand_there_is_refused_and_taken_back(make: str, reason: str) -> None:
    model = graph("neg = Exp(x) y = Sigmoid(Relu(neg))")
    before = data(model)
    trace = rewrite(model, replaced_by(make))
    assert reason in reasons(trace)
    assert (trace.sites, trace.failures) == ([], [])
    assert data(model) == before


WRONG = {
    "an exception after nodes were made": ("[op.Neg(op.Exp(x)), 1 / 0]", "ZeroDivisionError"),
    "two values": ("(op.Neg(x), op.Exp(x))", "2 values for 1 root"),
    "another type": ("op.Cast(x, to=10)", "rewrite returns float16, the value it replaces is float32"),
    "another size": ("op.Concat(x, x, axis=-1)", "returns a value of shape (N, 8), the one it replaces has (N, 4)"),
    "another rank": ("op.Unsqueeze(x, op.ints(0))", "shape"),
    "no value": ("'relu'", "not a value"),
    "a list": ("[op.Neg(x)]", "not a value"),
    "what no inference can make sense of": ("op.Concat(x, x, axis=99)", "Concat cannot be written so: "),
    "an attribute that is not there": ("op.Neg(x, what=1)", "no attribute or input 'what'"),
    "an attribute that cannot be written": ("op.Softmax(x, axis=object())", "can be written"),
    "a value that is not in the graph": ("(lambda v: (v.node.graph.remove(v.node), v)[1])(op.Neg(x))", "another graph"),
}


@pytest.mark.parametrize(("make", "reason"), WRONG.values(), ids=WRONG.keys())
def test_a_rule_that_writes_nonsense_is_set_aside_and_taken_back(make: str, reason: str) -> None:
    model = graph("r = Relu(x) y = Relu(Sqrt(Mul(r, r)))")
    before = data(model)
    trace = rewrite(model, replaced_by(make))
    (failure,) = trace.failures
    assert reason in failure.message
    assert failure.place.rpartition(":")[0].endswith("test_rewrite_engine.py")
    assert failure.place.rpartition(":")[2].isdigit()
    assert "(at " in failure.message
    assert data(model) == before
    assert len(rewrite(model, replaced_by(make), AbsOfRoot).sites) == 1, "the others go on"


def test_what_was_taken_back_leaves_no_trace_in_a_big_site() -> None:
    model = graph("r = Relu(x) y = If(c, then_branch=() -> (p) { p = Neg(r) }, else_branch=() -> (q) { q = Abs(r) })")
    before = data(model)
    make = "[op.Add(op.const(1.0, like=x), op.split(op.Exp(x), [2, 2], axis=1)[0]), 1 / 0]"
    assert rewrite(model, replaced_by(make)).failures
    assert data(model) == before
    assert len(model.graph.sources("Constant")) == 0


class RaisesInWhere(Rule):
    """Raises where it should answer."""

    stage = "clean"
    priority = 1

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sqrt(x)

    def where(self, x: Value) -> Reason:
        raise KeyError(x.name)

    def rewrite(self, x: Value) -> Value:
        return x


class RaisesInPattern(RaisesInWhere):
    """Raises while it is matched."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Softmax(x, axis=lambda axis: axis.missing)


class EndsInPattern(RaisesInWhere):
    """Ends the program while it is matched."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Softmax(x, axis=lambda axis: sys.exit(axis))


def test_a_rule_that_raises_is_told_once_and_the_others_go_on() -> None:
    trace = Trace()
    for _ in range(2):
        model = graph("s = Softmax(x) y = Sqrt(Mul(s, s))")
        rewrite(model, RaisesInWhere, RaisesInPattern, EndsInPattern, AbsOfRoot, trace=trace)
        assert ops(model) == ["Softmax", "Abs"]
    assert sorted(failure.rule for failure in trace.failures) == ["EndsInPattern", "RaisesInPattern", "RaisesInWhere"]
    assert trace.counts["RaisesInWhere"].tried == 1


def test_data_that_cannot_be_read_is_an_error_of_the_model() -> None:
    class Reads(RaisesInWhere):
        def where(self, x: Value) -> Reason:
            raise ModelError("GO000", "the weights are missing")

    model = graph("y = Sqrt(x)")
    with pytest.raises(ModelError, match="the weights are missing"):
        rewrite(model, Reads)


@pytest.mark.parametrize(
    ("answer", "fires"), [(True, 1), (np.True_, 1), (False, 0), (np.False_, 0), ("no", 0), ("", 0)]
)
def test_a_condition_answers_true_or_a_reason(answer: Any, fires: int) -> None:
    class Asks(AbsOfRoot):
        def where(self) -> Reason:
            return answer  # type: ignore[no-any-return]

    trace = rewrite(graph("y = Sqrt(Mul(x, x))"), Asks)
    assert len(trace.sites) == fires
    assert reasons(trace) == (
        "" if fires else f"y: {answer if answer == 'no' else 'the rule' + chr(39) + 's condition'}"
    )


def test_the_new_value_has_name_and_type_of_the_old_one() -> None:
    model = graph("(x: float32[N, 4]) -> (y: float32[N, 4]) { h = Sqrt(Mul(x, x)) y = Sqrt(Mul(h, h)) }")
    outputs = model_to_proto(model).graph.output
    rewrite(model, AbsOfRoot)
    assert to_text(model) == "opset 20\n(x: float32[N, 4]) -> (y: float32[N, 4]) {\n  h = Abs(x)\n  y = Abs(h)\n}\n"
    assert model_to_proto(model).graph.output == outputs


def test_a_new_value_of_unknown_type_has_the_type_of_the_old_one() -> None:
    model = graph("(x: float32[N, 4]) -> (y) { y = Neg(Relu(x)) }")
    model.opsets["my.domain"] = 1
    rewrite(model, replaced_by("op.Unheard(x, domain='my.domain')"))
    (unheard, _) = model.graph.ops()
    assert (unheard.output.dtype, unheard.output.rank) == (1, 2)


def test_a_root_that_is_returned_stays() -> None:
    class Reuses(Rule):
        """exp(x) and neg(exp(x)) → the second from the first, by another way"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value) -> tuple[Expr, Expr]:
            inner = op.Exp(x)
            return op.Neg(inner), inner

        def rewrite(self, op: Builder, x: Value, root: Value) -> tuple[Value, ...]:
            inner = root.node.inputs[0]
            assert inner is not None
            return op.Sub(op.const(0.0, like=x), inner), inner

    model = graph("(x: float32[4]) -> (y, h) { h = Exp(x) y = Neg(h) }")
    assert len(rewrite(model, Reuses).sites) == 1
    assert ops(model) == ["Exp", "Sub"]


# ---- names -----------------------------------------------------------------------------------------------------------


def test_new_names_are_fresh_in_every_scope() -> None:
    taken = " ".join(f"{stem}{tail} = Relu(x)" for stem in ("neg", "exp", "constant") for tail in ("", "_1", "_3"))
    inner = "neg_2 = Exp(x) constant_2 = Neg(neg_2)"
    model = graph(
        f"(x: float32[4], c: bool[]) -> (y, z) {{ {taken} y = Neg(Relu(x)) "
        f"z = If(c, then_branch=() -> (constant_2) {{ {inner} }}, else_branch=() -> (exp_2) {{ exp_2 = Relu(x) }}) }}"
    )
    trace = rewrite(model, replaced_by("op.Add(op.Neg(op.Exp(x)), op.const(1.0, like=x))"))
    assert len(trace.sites) == 11
    names = [value.name for scope in model.scopes() for node in scope for value in node.outputs if node.slot < 0]
    assert len(names) == len(set(names))


# ---- constants and random values -------------------------------------------------------------------------------------


class SubOfSame(Rule):
    """x − x → 0·x"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sub(x, x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Mul(x, op.const(0.0, like=x))


class SubOfOneRandom(SubOfSame):
    def pattern(self, op: Ops, x: Value) -> Expr:
        drawn = op.RandomNormalLike(x)
        return op.Sub(drawn, drawn)


@pytest.mark.parametrize("rule", [SubOfSame, SubOfOneRandom])
def test_two_random_values_are_not_one(rule: type[Rule]) -> None:
    model = graph("y = Sub(RandomNormalLike(x), RandomNormalLike(x))")
    before = data(model)
    assert not rewrite(model, rule).sites
    assert data(model) == before
    assert len(rewrite(graph("r = RandomNormalLike(x) y = Sub(r, r)"), rule).sites) == 1


class FoldProduct(Rule):
    """x·w → x·(2w)/2"""

    stage = "clean"
    once = True

    def pattern(self, op: Ops, x: Value, w: Const) -> Expr:
        return op.MatMul(x, w)

    def rewrite(self, op: Builder, x: Value, w: Value) -> Value:
        return op.MatMul(x, w)


def test_an_overridable_initializer_is_an_input() -> None:
    text = "(x: float32[N, 4]{}) -> (y) {{ {} y = MatMul(x, w) }}"
    weights = "w = float32[4, 4] random(1)"
    assert len(rewrite(graph(text.format("", weights)), FoldProduct).sites) == 1
    assert not rewrite(graph(text.format(", " + weights, "")), FoldProduct).sites


# ---- scopes ----------------------------------------------------------------------------------------------------------

BODIES = {
    "If": "(x: float32[4], c: bool[]) -> (y) {{ {outer} y = If(c, then_branch=() -> (p) {{ {inner} p = Sqrt(h) }}, "
    "else_branch=() -> (q) {{ q = Neg(x) }}) }}",
    "Loop": "(x: float32[4], c: bool[]) -> (y) {{ {outer} y, s = Loop(3, c, x, "
    "body=(i: int64[], go: bool[], v: float32[4]) -> (go, w, p) {{ {inner} p = Sqrt(h) w = Neg(v) }}) }}",
    "two levels": "(x: float32[4], c: bool[]) -> (y) {{ {outer} y = If(c, then_branch=() -> (r) {{ "
    "r = If(c, then_branch=() -> (p) {{ {inner} p = Sqrt(h) }}, else_branch=() -> (q) {{ q = Neg(x) }}) }}, "
    "else_branch=() -> (s) {{ s = Abs(x) }}) }}",
}


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES.keys())
def test_a_match_lies_in_one_scope(text: str) -> None:
    inside = graph(text.format(outer="", inner="h = Mul(x, x)"))
    assert len(rewrite(inside, AbsOfRoot).sites) == 1
    assert "Sqrt" not in ops(inside)
    across = graph(text.format(outer="h = Mul(x, x)", inner=""))
    before = data(across)
    assert not rewrite(across, AbsOfRoot).sites
    assert data(across) == before


def test_rules_run_in_function_bodies() -> None:
    model = graph("(x: float32[4]) -> (y) { y = my.F(x) } function my.F (a) -> (b) { b = Sqrt(Mul(a, a)) }")
    assert len(rewrite(model, AbsOfRoot).sites) == 1
    assert ops(model) == ["F", "Abs"]


def test_a_capture_that_goes_away_frees_what_it_captured() -> None:
    model = graph(
        "(x: float32[4], c: bool[]) -> (y, z) { h = Mul(x, x) y = Sqrt(h) "
        "z = If(c, then_branch=() -> (p) { p = Relu(h) }, else_branch=() -> (q) { q = Neg(x) }) }"
    )
    trace = rewrite(model, AbsOfRoot, replaced_by("op.Exp(op.const(np.zeros(4), like=x))"))
    assert [site.rule for site in trace.sites] == ["Replaced", "AbsOfRoot"]


# ---- outputs of the graph --------------------------------------------------------------------------------------------


class NoIdentity(Rule):
    """Identity(x) → x, wherever it stands."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Identity(x)

    def rewrite(self, x: Value) -> Value:
        return x


OUTPUTS = {
    "of an input": ("(x: float32[4]) -> (y) { y = Identity(x) }", ["Identity"]),
    "of an inner value": ("(x: float32[4]) -> (y) { y = Identity(Relu(x)) }", ["Relu"]),
    "of an output": ("(x: float32[4]) -> (h, y) { h = Relu(x) y = Identity(h) }", ["Relu", "Identity"]),
    "of a constant": ("(x: float32[4]) -> (y, z) { y = Identity([1.0]) z = Relu(x) }", ["Identity", "Relu"]),
    "of a chain": ("(x: float32[4]) -> (y) { y = Identity(Identity(Identity(x))) }", ["Identity"]),
    "twice": ("(x: float32[4]) -> (y, z) { h = Relu(x) y = Identity(h) z = Identity(h) }", ["Relu", "Identity"]),
    "listed twice": ("(x: float32[4]) -> (y, y) { y = Identity(Relu(x)) }", ["Relu"]),
    "used again": ("(x: float32[4]) -> (y, z) { y = Identity(x) z = Relu(y) }", ["Identity", "Relu"]),
}


@pytest.mark.parametrize(("text", "left"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_outputs_keep_their_names_and_the_engine_ends(text: str, left: list[str]) -> None:
    model = graph(text)
    names = [value.name for value in model_to_proto(model).graph.output]
    trace = rewrite(model, NoIdentity)
    assert [value.name for value in model_to_proto(model).graph.output] == names
    assert sorted(ops(model)) == sorted(left)
    assert len(trace.sites) <= 400


def test_an_output_that_is_an_input_and_one_listed_twice_are_left_alone() -> None:
    model = graph("(x: float32[4]) -> (x, y, y) { y = Sqrt(Mul(x, x)) }")
    assert len(rewrite(model, AbsOfRoot).sites) == 1
    assert [value.name for value in model_to_proto(model).graph.output] == ["x", "y", "y"]
    assert ops(model) == ["Abs"]


def test_a_new_value_may_be_an_output_already() -> None:
    model = graph("(x: float32[4]) -> (a, y) { a = Relu(x) y = Neg(Neg(a)) }")
    assert len(rewrite(model, NegOfNeg).sites) == 1
    assert to_text(model).splitlines()[2:4] == ["  a = Relu(x)", "  y = Identity(a)"]


# ---- to a fixpoint ---------------------------------------------------------------------------------------------------


def test_what_a_site_frees_is_tried_again() -> None:
    model = graph("(x: float32[4]) -> (y, z) { h = Mul(x, x) y = Sqrt(h) z = Neg(Neg(Sqrt(Identity(h)))) }")
    trace = rewrite(model, replaced_by("x"), AbsOfRoot, NoIdentity, NegOfNeg)
    assert not any(node.op == "Neg" for node in model.graph.ops()), trace.sites
    model = graph("(x: float32[4]) -> (y, z) { h = Mul(x, x) y = Sqrt(h) z = Relu(h) }")
    trace = rewrite(model, replaced_by("op.Exp(x.node.inputs[0])"), AbsOfRoot)
    assert [site.rule for site in trace.sites] == ["Replaced", "AbsOfRoot"]


class FoldIntoUses(Rule):
    """relu(x) read by products only"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, w: Const) -> Expr:
        return op.each_use(op.Relu(x), lambda y: op.MatMul(y, w))

    def rewrite(self, op: Builder, x: Value, w: list[Value]) -> tuple[Value, ...]:
        return tuple(op.MatMul(op.Clip(x, op.const(0.0, like=x)), one) for one in w)


class ProductOfSum(Rule):
    """x·w + x·w → x·(2w)"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.Neg(op.MatMul(x, x)))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.MatMul(x, op.const(np.eye(4), like=x))


def test_a_root_that_lies_before_the_change_is_tried_again() -> None:
    model = graph(
        "(x: float32[4, 4]) -> (y, z) { r = Relu(x) y = MatMul(r, float32[4, 4] random(1)) z = Neg(Neg(MatMul(r, r))) }"
    )
    trace = rewrite(model, FoldIntoUses, ProductOfSum)
    assert [site.rule for site in trace.sites] == ["ProductOfSum", "FoldIntoUses"]
    assert "Relu" not in ops(model)


def test_long_chains_are_rewritten_to_the_end() -> None:
    text = " ".join(f"a{i + 1} = Neg(a{i})" for i in range(2001))
    model = graph(f"(a0: float32[4]) -> (a2001) {{ {text} }}")
    assert Engine([CompiledRule(NegOfNeg())]).run(model) == 1000
    assert ops(model) == ["Neg"]


def test_rules_are_tried_by_priority_then_name() -> None:
    class Later(AbsOfRoot):
        priority = -1

    class Sooner(AbsOfRoot):
        priority = 1

    assert rewrite(graph("y = Sqrt(Mul(x, x))"), Later, AbsOfRoot, Sooner).sites[0].rule == "Sooner"
    assert rewrite(graph("y = Sqrt(Mul(x, x))"), Later, AbsOfRoot).sites[0].rule == "AbsOfRoot"


def test_a_rule_that_would_fire_on_its_own_output_is_once() -> None:
    model = graph("y = Relu(Relu(x))")
    assert len(rewrite(model, replaced_by("op.Relu(op.Neg(x))")).sites) == 2


def test_excluded_sites_are_not_taken() -> None:
    model = graph("(x: float32[4]) -> (y, z) { y = Sqrt(Mul(x, x)) z = Sqrt(Mul(x, x)) }")
    trace = rewrite(model, AbsOfRoot, exclude=frozenset({("AbsOfRoot", "y")}))
    assert [site.root for site in trace.sites] == ["z"]


def test_a_rule_without_its_kernel_is_not_tried() -> None:
    class Needs(AbsOfRoot):
        needs = kernel("", "Abs")

    trace = rewrite(graph("y = Sqrt(Mul(x, x))"), Needs, context=Context(Target("none", 20, "none")))
    assert not trace.sites
    assert trace.counts["Needs"].tried == 0
    assert trace.counts["Needs"].reasons == {"the target has no kernel Abs": 1}


# ---- no end ----------------------------------------------------------------------------------------------------------


class SinToCos(Rule):
    """A → B"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sin(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Cos(x)


class CosToSin(Rule):
    """B → A"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Cos(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Sin(x)


class Grows(Rule):
    """tan(x) → tan(−tan(x)): each site makes two."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Tan(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Tan(op.Neg(op.Tan(x)))


def test_rules_that_undo_each_other_are_stopped_and_named() -> None:
    model = graph("s = Sin(x) y = Sqrt(Mul(s, s))")
    trace = rewrite(model, SinToCos, CosToSin, AbsOfRoot)
    (failure,) = trace.failures
    assert {failure.rule} < {"SinToCos", "CosToSin"}
    assert all(name in failure.rule + failure.message for name in ("SinToCos", "CosToSin"))
    assert "at s" in failure.message
    assert len(trace.sites) < 250, "long before as many as the graph is large"
    assert ops(model)[1:] == ["Abs"]


def test_a_rule_that_grows_its_own_matches_is_stopped_and_named() -> None:
    model = graph("t = Tan(x) y = Sqrt(Mul(t, t))")
    trace = rewrite(model, Grows, AbsOfRoot, limits=Limits(sites_per_node=1, spare=20))
    (failure,) = trace.failures
    assert failure.rule == "Grows"
    assert "alone" in failure.message
    assert ops(model)[-1] == "Abs"


def test_many_sites_in_many_small_scopes_are_no_cycle() -> None:
    branches = (
        "then_branch=() -> (p{0}) {{ p{0} = Sqrt(Mul(x, x)) }}, else_branch=() -> (q{0}) {{ q{0} = Sqrt(Mul(x, x)) }}"
    )
    text = " ".join(f"y{i} = If(c, {branches.format(i)})" for i in range(40))
    model = graph(f"(x: float32[4], c: bool[]) -> (y0) {{ {text} }}")
    engine = Engine([CompiledRule(AbsOfRoot())], limits=Limits(sites_per_node=1, spare=10))
    assert engine.run(model) == 80
    assert not engine.trace.failures


# ---- step budgets ----------------------------------------------------------------------------------------------------


class SixRelus(Rule):
    """A sum of six rectified values, of which one is never found: all orders are tried."""

    stage = "clean"

    def pattern(self, op: Ops, a: Value, b: Value, c: Value, d: Value, e: Value, f: Value) -> Expr:
        return op.sum(a, b, c, d, e, f)

    def where(self) -> Reason:
        return "never"

    def rewrite(self, a: Value) -> Value:
        return a


class SixProducts(SixRelus):
    """A structured pattern of which the last part is never found."""

    def pattern(self, op: Ops, a: Value, b: Value, c: Value, d: Value, e: Value, f: Value) -> Expr:
        return op.sum(*(op.Mul(x, x) for x in (a, b, c, d, e)), op.Mul(f, op.Sin(f)))


def tree(leaves: list[str]) -> str:
    while len(leaves) > 1:
        leaves = [f"Add({a}, {b})" for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
    return leaves[0]


BLOWING_UP = {
    "a tree of 64 leaves": tree(["Mul(x, x)"] * 64),
    "a tree of one leaf 64 times": "Add(m, m)",
    "a sum of six": "Add(Add(Add(Add(Add(m, m), m), m), m), m)",
    "a long sum": "Add(" * 60 + "m" + ", Mul(x, x))" * 60,
}


@pytest.mark.parametrize("rule", [SixRelus, SixProducts])
@pytest.mark.parametrize("text", BLOWING_UP.values(), ids=BLOWING_UP.keys())
def test_a_pattern_that_blows_up_stops_at_its_budget_and_the_rest_goes_on(text: str, rule: type[Rule]) -> None:
    model = graph(f"m = Mul(x, x) a = {text} y = Sqrt(Mul(a, a))")
    engine = Engine([CompiledRule(rule()), CompiledRule(AbsOfRoot())])
    start = time.process_time()
    engine.run(model)
    assert time.process_time() - start < 2
    assert [site.rule for site in engine.trace.sites] == ["AbsOfRoot"]
    if rule is SixRelus and text is BLOWING_UP["a tree of 64 leaves"]:
        assert any("step budget" in stop.reason and stop.root for stop in engine.trace.stopped)
    assert not engine.trace.failures


def test_the_budget_of_a_rule_grows_with_the_model_and_ends_one_run_only() -> None:
    model = graph(f"m = Mul(x, x) y = {tree(['Mul(x, x)'] * 16)}")
    limits = Limits(steps_per_root=500, steps_per_node=10, spare=10)
    trace = rewrite(model, SixRelus, limits=limits)
    assert "y: step budget used up" not in reasons(trace)
    assert "step budget of the model used up" in reasons(trace)
    assert not trace.failures
    spent = trace.counts["SixRelus"].steps
    rewrite(model, SixRelus, limits=limits, trace=trace)
    assert trace.counts["SixRelus"].steps > spent


def test_attributes_reach_rewrite_as_they_are() -> None:
    class Moves(Rule):
        """Softmax over an axis by its number."""

        stage = "clean"
        once = True

        def pattern(self, op: Ops, x: Value, axis: Attr, k: Number) -> Expr:
            return op.Softmax(op.scaled(x, k), axis=axis)

        def rewrite(self, op: Builder, x: Value, axis: int, k: float) -> Value:
            assert (axis, k) == (-1, 0.5)
            return op.Softmax(op.scaled(x, k), axis=axis)

    assert len(rewrite(graph("y = Softmax(Div(x, 2.0))"), Moves).sites) == 1


# ---- values of the scope around --------------------------------------------------------------------------------------


class NegOfCapturedNeg(Rule):
    """−(−x) → x, the inner one in the scope around."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.captured(op.Neg(x)))

    def rewrite(self, x: Value) -> Value:
        return x


class ExpOfCapturedNeg(NegOfCapturedNeg):
    """exp(−x) → 1/exp(x), which reads x of the scope around."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Exp(op.captured(op.Neg(x)))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Reciprocal(op.Exp(x))


@pytest.mark.parametrize(("rule", "op"), [(NegOfCapturedNeg, "Neg"), (ExpOfCapturedNeg, "Exp")])
def test_a_rule_may_ask_for_a_captured_value_and_what_stands_outside_stays(rule: type[Rule], op: str) -> None:
    text = (
        "(x: float32[4], c: bool[]) -> (z, n) { n = Neg(x) z = If(c, then_branch=() -> (p) { p = Abs(%s(n)) }, "
        "else_branch=() -> (q) { "
        "q = If(c, then_branch=() -> (r) { r = Abs(n) }, else_branch=() -> (s) { s = Abs(x) }) }) }"
    )
    model = graph(text % op)
    assert [site.rule for site in rewrite(model, rule).sites] == [rule.__name__]
    wanted = graph(text.replace("%s(n)", "x" if op == "Neg" else "Reciprocal(Exp(x))"))
    assert to_text(model, names=False) == to_text(wanted, names=False)


# ---- what else may not be cut out, and what stays --------------------------------------------------------------------


def test_an_inner_value_that_a_subgraph_of_an_inner_node_captures_is_refused() -> None:
    class NegOfIf(Rule):
        """−(if not c: ... else ...), whatever the branches are."""

        stage = "clean"

        def pattern(self, op: Ops, c: Value) -> Expr:
            return op.Neg(op.If(op.Not(c), ...))

        def rewrite(self, op: Builder, c: Value) -> Value:
            return op.Cast(c, to=1)

    text = (
        "(x: float32[], c: bool[]) -> (y) {{ n = Not(c) y = Neg(If(n, then_branch=() -> (p) {{ p = Cast({}, to=1) }}, "
        "else_branch=() -> (q) {{ q = Abs(x) }})) }}"
    )
    trace = rewrite(graph(text.format("n")), NegOfIf)
    assert "n inside the match is also used by" in reasons(trace)
    assert not trace.sites
    assert len(rewrite(graph(text.format("x")), NegOfIf).sites) == 1


def test_what_a_graph_input_declares_stays() -> None:
    class NoReshape(Rule):
        """Reshape(x) → x"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Reshape(x, ...)

        def rewrite(self, x: Value) -> Value:
            return x

    model = graph("(x: float32) -> (y) { y = Neg(Reshape(x, [2, 2])) }")
    assert len(rewrite(model, NoReshape).sites) == 1
    assert model.graph.names["x"].shape is None


def test_a_value_that_was_there_before_keeps_its_name() -> None:
    model = graph("a = Relu(x) b = Neg(Neg(a)) y = Abs(b)")
    assert len(rewrite(model, NegOfNeg).sites) == 1
    assert [node.output.name for node in model.graph.ops()] == ["a", "y"]


def test_a_name_is_not_used_again_for_another_meaning() -> None:
    model = graph("(x: float32[4]) -> (y, z) { neg = Mul(x, x) y = Sqrt(neg) z = Relu(x) }")
    trace = rewrite(model, AbsOfRoot, replaced_by("op.Exp(op.Neg(x))"))
    assert [site.rule for site in trace.sites] == ["AbsOfRoot", "Replaced"]
    assert "neg" not in model.graph.names


def test_what_a_rewrite_makes_in_vain_goes() -> None:
    model = graph("y = Relu(x)")
    assert len(rewrite(model, replaced_by("[op.Exp(op.Sin(x)), op.Neg(x)][1]")).sites) == 1
    assert ops(model) == ["Neg"]


def test_a_domain_that_only_a_refused_site_wanted_is_not_imported() -> None:
    model = graph("y = Relu(x)")
    assert not rewrite(model, replaced_by("op.ms.Gelu(x) and None")).sites
    assert list(model.opsets) == [""]
    assert len(rewrite(model, replaced_by("op.ms.Gelu(x)")).sites) == 1
    assert sorted(model.opsets) == ["", "com.microsoft"]


def test_a_kernel_that_does_not_pay_is_none() -> None:
    class Needs(AbsOfRoot):
        needs = kernel("", "Abs")

    for cost, sites in ((0.9, 1), (1.1, 0)):
        target = Target("a target", 20, "none", {("", "Abs"): KernelEntry("", "Abs", cost=cost)})
        assert len(rewrite(graph("y = Sqrt(Mul(x, x))"), Needs, context=Context(target)).sites) == sites


class NegOfRelu(Rule):
    """−(relu(a) + b) → −b − relu(a)"""

    stage = "clean"
    once = True

    def pattern(self, op: Ops, a: Value, b: Value) -> Expr:
        return op.Neg(op.sum(op.Relu(a), b))

    def rewrite(self, op: Builder, a: Value, b: Value) -> Value | None:
        return op.Sub(op.Neg(b), op.Clip(a, op.const(0.0, like=a)))


class NegOfAllowed(NegOfRelu):
    def where(self, a: Value) -> Reason:
        return a.name != "v" or "not v"


class NegOfTaken(NegOfRelu):
    def rewrite(self, op: Builder, a: Value, b: Value) -> Value | None:
        return super().rewrite(op, a, b) if a.name != "v" else None


@pytest.mark.parametrize(("rule", "outputs"), [(NegOfAllowed, "y"), (NegOfTaken, "y"), (NegOfRelu, "y, r")])
@pytest.mark.parametrize("order", ["r, s", "s, r"])
def test_a_match_that_is_refused_leads_to_the_next(rule: type[Rule], outputs: str, order: str) -> None:
    model = graph(f"(v: float32[4], w: float32[4]) -> ({outputs}) {{ r = Relu(v) s = Relu(w) y = Neg(Add({order})) }}")
    assert len(rewrite(model, rule).sites) == 1
    assert sorted(ops(model)) == ["Clip", "Neg", "Relu", "Sub"]
    assert next(node for node in model.graph.ops() if node.op == "Clip").inputs[0] is model.graph.names["w"]


def test_the_uses_of_a_value_share_one_budget() -> None:
    products = " ".join(f"y{i} = MatMul(r, float32[4, 4] random({i}))" for i in range(30))
    outputs = ", ".join(f"y{i}" for i in range(30))
    model = graph(f"(x: float32[4, 4]) -> ({outputs}) {{ r = Relu(x) {products} }}")
    trace = rewrite(model, FoldIntoUses, limits=Limits(steps_per_root=40))
    assert [(stop.root, stop.reason) for stop in trace.stopped] == [("r", "step budget used up")]
    assert len(rewrite(model, FoldIntoUses).sites) == 1


def test_walking_to_another_root_uses_steps() -> None:
    class Apart(Joined):
        def pattern(self, op: Ops, x: Value, b: Value) -> tuple[Expr, Expr]:
            return op.Exp(x), op.Sin(op.Cos(x)) + b

    readers = " ".join(f"y{i} = Tanh(x)" for i in range(200))
    outputs = ", ".join(f"y{i}" for i in range(200))
    model = graph(f"(x: float32[4]) -> (e, {outputs}) {{ e = Exp(x) {readers} }}")
    trace = rewrite(model, Apart, limits=Limits(steps_per_root=100))
    assert [(stop.root, stop.reason) for stop in trace.stopped] == [("e", "step budget used up")]


def test_a_graph_output_keeps_its_declared_type() -> None:
    model = model_from_proto(model_to_proto(graph("(x: float32[N, 4]) -> (y: float32[M, 4]) { y = Sqrt(Mul(x, x)) }")))
    outputs, info = model_to_proto(model).graph.output, model.graph.names["y"].info
    assert info is not None
    assert len(rewrite(model, AbsOfRoot).sites) == 1
    assert model_to_proto(model).graph.output == outputs
    assert model.graph.names["y"].info is info


def test_a_new_constant_takes_no_name_that_is_there() -> None:
    model = graph("(x: float32[4]) -> (y, z) { h = [1.0, 2.0, 3.0, 4.0] z = Mul(x, h) y = Relu(x) }")
    trace = rewrite(model, replaced_by("op.Add(x, op.const(1.0, like=x, name='h'))"))
    assert len(trace.sites) == 1
    assert len(model.graph.sources("Constant")) == 2


def test_a_search_ends_at_its_budget() -> None:
    model = graph(f"m = Mul(x, x) y = {tree(['Mul(x, x)'] * 16)}")
    trace = rewrite(model, SixRelus, limits=Limits(steps_per_root=500))
    assert {stop.reason for stop in trace.stopped} == {"step budget used up"}
    assert trace.counts["SixRelus"].steps <= 501 * trace.counts["SixRelus"].tried


def test_a_rule_that_raises_at_one_root_is_not_tried_at_the_next() -> None:
    trace = rewrite(graph("a = Sqrt(x) y = Sqrt(a)"), RaisesInWhere)
    assert len(trace.failures) == trace.counts["RaisesInWhere"].tried == 1


def test_what_a_rule_does_to_a_list_changes_no_attribute() -> None:
    class Reverses(Rule):
        """Looks at a permutation from the end, in place."""

        stage = "clean"

        def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
            return op.Transpose(x, perm=perm)

        def rewrite(self, x: Value, perm: list[int]) -> None:
            perm.reverse()

    model = graph("y = Transpose(x, perm=[1, 0])")
    assert not rewrite(model, Reverses).sites
    assert next(model.graph.ops()).attrs["perm"] == [1, 0]


# ---- foreign code and malformed nodes --------------------------------------------------------------------------------


def test_a_rule_that_changes_the_list_of_an_attribute_does_not_change_the_node() -> None:
    class Sorts(Rule):
        """Sorts the permutation that it gets, and refuses."""

        stage = "clean"
        priority = 1

        def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
            return op.Transpose(x, perm=perm)

        def where(self, perm: list[int]) -> Reason:
            perm.sort()
            return "refused"

        def rewrite(self, x: Value) -> Value:
            return x

    class Moved(Rule):
        """relu of a transposition → the transposition of relu"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
            return op.Relu(op.Transpose(x, perm=perm))

        def rewrite(self, op: Builder, x: Value, perm: list[int]) -> Value:
            return op.Transpose(op.Relu(x), perm=perm)

    model = graph("(x: float32[4, 4]) -> (y) { y = Relu(Transpose(x, perm=[1, 0])) }")
    assert [site.rule for site in rewrite(model, Sorts, Moved).sites] == ["Moved"]
    assert model.graph.names["y"].node.attrs == {"perm": [1, 0]}


def test_a_rule_that_ends_the_program_is_set_aside() -> None:
    def leave(value: Value) -> Reason:
        raise SystemExit(3)

    class Leaves(Rule):
        """relu(x) of some x"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.Relu(op.check(x, leave))

        def rewrite(self, x: Value) -> Value:
            return x

    trace = rewrite(graph("y = Relu(Neg(Neg(x)))"), Leaves, NegOfNeg)
    assert [(failure.rule, failure.message) for failure in trace.failures] == [("Leaves", "SystemExit: 3 (at y)")]
    assert [site.rule for site in trace.sites] == ["NegOfNeg"]


class ScaledRelu(Rule):
    """k·relu(x)"""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.scaled(op.Relu(x), k)

    def rewrite(self, op: Builder, x: Value, k: float) -> Value:
        return op.LeakyRelu(x, alpha=k)


class ReluAndNumber(ScaledRelu):
    """relu(x) + k"""

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.sum(op.Relu(x), k)


@pytest.mark.parametrize(("rule", "call"), [(ScaledRelu, "Mul"), (ScaledRelu, "Div"), (ReluAndNumber, "Sub")])
def test_a_node_that_lacks_an_operand_matches_nothing_and_stops_nobody(rule: type[Rule], call: str) -> None:
    compiled = [CompiledRule(kind()) for kind in (rule, NegOfNeg)]
    for explain in (False, True):
        engine = Engine(compiled, explain=explain)
        engine.run(graph(f"y = {call}(Relu(Neg(Neg(x))))"))
        assert [site.rule for site in engine.trace.sites] == ["NegOfNeg"]
        assert not engine.trace.failures


def test_two_roots_may_not_change_places() -> None:
    class Swaps(Rule):
        """a = exp(x), b = relu(x) → b, a"""

        stage = "clean"

        def pattern(self, op: Ops, x: Value) -> tuple[Expr, Expr]:
            return op.Exp(x), op.Relu(x)

        def rewrite(self, x: Value, root: Value) -> tuple[Value, ...]:
            (other,) = (node.output for node in x.node.graph.successors(x.node) if node.op == "Relu")
            return other, root

    model = graph("(x: float32[4]) -> (y) { y = Sub(Exp(x), Relu(x)) }")
    before = data(model)
    (failure,) = rewrite(model, Swaps).failures
    assert "which it replaces by something else" in failure.message
    assert data(model) == before


# ---- roots -----------------------------------------------------------------------------------------------------------


class PartOrVariable(Rule):
    """A part of what is matched that may be a mere variable → another value"""

    stage = "clean"
    once = True

    def pattern(self, op: Ops, x: Value) -> Expr:
        part = op.Relu(x) | x
        return op.anchor(op.Exp(op.Neg(part)), part)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Max(x, x)


class RootOrVariable(Rule):
    """A second root that may be a mere variable → another value"""

    stage = "clean"
    once = True

    def pattern(self, op: Ops, x: Value) -> tuple[Expr, Expr]:
        return op.Exp(x), op.Relu(x) | x

    def rewrite(self, op: Builder, x: Value) -> tuple[Value, ...]:
        return op.Sin(x), op.Cos(x)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (PartOrVariable, "(x: float32[4]) -> (y, z) { y = Exp(Neg(x)) z = Sin(x) }"),
        (PartOrVariable, BODIES["If"].format(outer="n = Cos(x)", inner="h = Exp(Neg(n))")),
        (PartOrVariable, "(x: float32[4]) -> (y, z) { v = Cos(x) y = Exp(Neg(v)) z = Sin(v) }"),
        (RootOrVariable, "(x: float32[4]) -> (y, z) { y = Exp(x) z = Neg(x) }"),
    ],
    ids=["a part is an input", "a part is captured", "a part is in front of the match", "a root is an input"],
)
def test_what_is_no_part_of_the_match_is_not_replaced(rule: type[Rule], text: str) -> None:
    model = graph(text)
    before = data(model)
    trace = rewrite(model, rule)
    assert "what would be replaced is no part of the match" in reasons(trace)
    assert (trace.sites, trace.failures) == ([], [])
    assert data(model) == before


def test_a_rule_that_would_fire_on_its_own_part_is_once() -> None:
    class OfPart(Rule):
        """exp(−relu(x)) → exp(−relu(|x|))"""

        stage = "clean"
        once = True

        def pattern(self, op: Ops, x: Value) -> Expr:
            part = op.Relu(x)
            return op.anchor(op.Exp(op.Neg(part)), part)

        def rewrite(self, op: Builder, x: Value) -> Value:
            return op.Relu(op.Abs(x))

    model = graph("(x: float32[4]) -> (y, z) { y = Exp(Neg(Relu(x))) z = Exp(Neg(Relu(Sin(x)))) }")
    trace = rewrite(model, OfPart)
    assert len(trace.sites) == 2
    assert not trace.failures


def test_a_site_in_a_subgraph_that_reads_its_capture_no_more_frees_it() -> None:
    class ZeroOfSame(SubOfSame):
        def rewrite(self, op: Builder, x: Value) -> Value:
            return op.const([0.0] * 4, like=x)

    model = graph(BODIES["If"].format(outer="r = Neg(x)", inner="h = Neg(Sub(r, r))"))
    trace = rewrite(model, ZeroOfSame)
    assert [site.rule for site in trace.sites] == ["ZeroOfSame"]
    assert not trace.failures
    assert model.graph.names["r"].uses == 0
