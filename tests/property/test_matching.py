"""Matching and rewriting on random graphs: complete against brute force, and no number changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.ir import Model, Node, Value, model_to_proto, validate
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.rewrite import Builder, CompiledRule, Engine, Expr, Number, Ops, Rule
from graphopt.rewrite.language import read_pattern
from graphopt.rewrite.matcher import Matcher

# ---- complete against brute force ------------------------------------------------------------------------------------
KINDS = ("Relu", "Exp", "Abs", "Neg")
LEAVES = st.tuples(st.sampled_from(KINDS), st.sampled_from("xy"))
TREES = st.recursive(LEAVES, lambda inner: st.tuples(inner, inner), max_leaves=6)


def written(tree: Any) -> str:
    left, right = tree
    if isinstance(left, str):
        return f"{left}({right})"
    return f"Add({written(left)}, {written(right)})"


def readings(tree: Any, count: int) -> Iterator[list[Any]]:
    """Every way to read a tree as a sum of `count` operands."""
    if count == 1:
        yield [tree]
    elif not isinstance(tree[0], str):
        for split in range(1, count):
            for left in readings(tree[0], split):
                for right in readings(tree[1], count - split):
                    yield [*left, *right]


def holds(operands: list[tuple[str, int]], reading: list[Any]) -> bool:
    """Whether an order of the reading gives each operand its operation, and each variable one value."""
    for order in itertools.permutations(reading):
        values: dict[int, str] = {}
        if all(
            isinstance(leaf[0], str) and leaf[0] == kind and values.setdefault(variable, leaf[1]) == leaf[1]
            for (kind, variable), leaf in zip(operands, order, strict=True)
        ):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(
    tree=st.tuples(TREES, TREES),
    wanted=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2)), min_size=2, max_size=5),
)
def test_a_sum_is_found_exactly_where_brute_force_finds_it(tree: Any, wanted: list[tuple[str, int]]) -> None:
    def pattern(op: Ops, a: Value, b: Value, c: Value) -> Expr:
        return op.sum(*(getattr(op, kind)((a, b, c)[variable]) for kind, variable in wanted))

    model = parse(f"(x: float32[4], y: float32[4]) -> (z) {{ z = {written(tree)} }}")
    infer(model)
    matcher = Matcher(read_pattern(pattern), budget=10_000_000)
    found = next(matcher.matches(model.graph.names["z"].node), None)
    assert (found is not None) == any(holds(wanted, reading) for reading in readings(tree, len(wanted)))


# ---- no number changes -----------------------------------------------------------------------------------------------
class Page(Rule):
    """Base of the rules below."""

    stage = "clean"


class NegOfNeg(Page):
    """−(−x) → x"""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.Neg(x))

    def rewrite(self, x: Value) -> Value:
        return x


class SumOfEqual(Page):
    """x + x + y → 2x + y"""

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.sum(x, x, y)

    def rewrite(self, op: Builder, x: Value, y: Value) -> Value:
        return op.Add(op.Mul(x, op.const(2.0, like=x)), y)


class Distribute(Page):
    """a·x + b·x → (a + b)·x"""

    def pattern(self, op: Ops, x: Value, a: Number, b: Number) -> Expr:
        return op.scaled(x, a) + op.scaled(x, b)

    def rewrite(self, op: Builder, x: Value, a: float, b: float) -> Value:
        return op.scaled(x, a + b)


class MergeScales(Page):
    """(a·x)·b → (ab)·x"""

    def pattern(self, op: Ops, x: Value, a: Number, b: Number) -> Expr:
        return op.prod(x, a, b)

    def rewrite(self, op: Builder, x: Value, a: float, b: float) -> Value:
        return op.Mul(x, op.const(a * b, like=x))


class TwoOfOne(Page):
    """|x| and −x, from one Concat: two roots"""

    once = True

    def pattern(self, op: Ops, x: Value) -> tuple[Expr, Expr]:
        return op.Abs(x), op.Neg(x)

    def rewrite(self, op: Builder, x: Value) -> tuple[Value, ...]:
        joined = op.Concat(op.Abs(x), op.Sub(op.const(0.0, like=x), x), axis=0)
        return op.split(joined, [4, 4], axis=0)


class EachNegated(Page):
    """−x read by sums only: each becomes a difference"""

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.each_use(op.Neg(x), lambda negated: op.sum(negated, y))

    def rewrite(self, op: Builder, x: Value, y: list[Value]) -> tuple[Value, ...]:
        return tuple(op.Sub(one, x) for one in y)


class Raises(Page):
    """Raises after it has made nodes, at every second place."""

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sin(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        made = op.Cos(op.Neg(x))
        if x.node.op in ("Add", "Neg", "Input"):
            return op.Reshape(made, op.ints(2, 2))  # another rank: taken back
        raise ArithmeticError


SAFE = (NegOfNeg, SumOfEqual, Distribute, MergeScales, TwoOfOne, EachNegated)
UNARY = ("Neg", "Abs", "Identity", "Sin", "Neg")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(UNARY), st.integers(0, 30)),
        st.tuples(st.sampled_from(("Add", "Mul", "Sub", "Add")), st.integers(0, 30), st.integers(0, 30)),
        st.tuples(st.sampled_from(("Mul", "Div")), st.integers(0, 30), st.sampled_from((2.0, 0.5, -4.0))),
    ),
    min_size=3,
    max_size=24,
)


def graph(steps: list[Any], outputs: list[int]) -> Model:
    """A graph whose steps read what is a few steps before; some are outputs, the last always."""
    names, body = ["x", "y"], ""
    for index, (op, first, *second) in enumerate(steps):
        operands = [names[-1 - first % min(len(names), 4)]]
        operands += [str(one) if isinstance(one, float) else names[-1 - one % min(len(names), 4)] for one in second]
        body += f"v{index} = {op}({', '.join(operands)})\n"
        names.append(f"v{index}")
    results = dict.fromkeys([names[2 + index % len(steps)] for index in outputs] + [names[-1]])
    model = parse(f"(x: float32[4], y: float32[4]) -> ({', '.join(results)}) {{\n{body}}}")
    infer(model)
    return model


COMPUTE: dict[str, Any] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Identity": np.asarray,
    "Sin": np.sin,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


def computed(model: Model) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs in float64, by name, for fixed inputs."""
    known: dict[Value, np.ndarray[Any, Any]] = {
        node.output: np.linspace(0.3 + index, 1.7, 4) for index, node in enumerate(model.graph.inputs)
    }

    def value(of: Value | None) -> np.ndarray[Any, Any]:
        assert of is not None
        return known[of] if of.tensor is None else of.tensor.numpy().astype(np.float64)

    for node in model.graph.ops():
        known.update(zip(node.outputs, _outputs(node, [value(one) for one in node.inputs]), strict=True))
    return {one.name: value(one) for one in model.graph.outputs}


def _outputs(node: Node, inputs: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    match node.op:
        case "Concat":
            return [np.concatenate(inputs)]
        case "Split":
            return list(np.split(inputs[0], np.cumsum(inputs[1].astype(int))[:-1]))
    return [COMPUTE[node.op](*inputs)]


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, outputs=st.lists(st.integers(0, 30), max_size=3), rules=st.sets(st.sampled_from(SAFE), min_size=1))
def test_rules_that_are_right_change_no_number(steps: list[Any], outputs: list[int], rules: set[type[Rule]]) -> None:
    before, after = graph(steps, outputs), graph(steps, outputs)
    engine = Engine([CompiledRule(rule()) for rule in sorted([*rules, Raises], key=lambda rule: rule.__name__)])
    engine.run(after)
    validate(after)
    assert {failure.rule for failure in engine.trace.failures} <= {"Raises"}
    wanted, found = computed(before), computed(after)
    assert list(wanted) == list(found)
    for name, numbers in wanted.items():
        np.testing.assert_allclose(found[name], numbers, rtol=1e-9, atol=1e-9)
    explained = Engine(engine.rules, explain=True)
    explained.run(graph(steps, outputs))
    assert explained.trace.sites == engine.trace.sites, "what the index leaves out would have matched"
    again = Engine(engine.rules, exclude=frozenset(), trace=engine.trace)
    assert again.run(after) == 0, "the engine had not come to its end"


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, outputs=st.lists(st.integers(0, 30), max_size=3))
def test_what_is_taken_back_leaves_no_trace(steps: list[Any], outputs: list[int]) -> None:
    model = graph([*steps, ("Sin", 30)], outputs)
    before = model_to_proto(model).SerializeToString(deterministic=True)
    Engine([CompiledRule(Raises())]).run(model)
    validate(model)
    assert model_to_proto(model).SerializeToString(deterministic=True) == before
