"""What the matcher remembers of the attempt that came furthest, and what it looks past."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Annotated

import pytest

from graphopt.ir.infer import infer
from graphopt.ir.text import parse, to_text
from graphopt.pipeline.observation import Observer
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import (
    Builder,
    CompiledRule,
    Engine,
    Expr,
    Limits,
    Number,
    Ops,
    Refusal,
    Rule,
    Value,
    built_in_rules,
    const,
    matcher,
    search,
)
from graphopt.rewrite.explain import _OTHER_OP, _TELLING, _UNSAID
from graphopt.rewrite.trace import Part
from graphopt.targets import target_named
from graphopt.testing.run import prepare, refused


class Scores(Rule):
    """softmax(q·kᵀ/8)·v, the key transposed from (B, T, N, D) or (B, N, T, D)."""

    stage = "recover"

    def pattern(self, op: Ops, q: Value, k: Value, v: Value) -> Expr:
        turned = op.Transpose(k, perm=[0, 1, 3, 2])
        weights = op.Softmax(op.MatMul(q, turned) * 0.125, axis=-1)
        return op.MatMul(op.Where(op.IsNaN(weights), 0.0, weights) | weights, v)

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value) -> Value:
        return op.ir.Attention(q, k, v, scale=0.125)


class Pair(Rule):
    """Two roots: exp(x) and exp(-x)."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value) -> tuple[Expr, Expr]:
        return op.Exp(x), op.Exp(op.Neg(x))

    def rewrite(self, op: Builder, x: Value) -> None:
        return None


class Bias(Rule):
    """x·W + b with constants."""

    stage = "fuse"

    def pattern(
        self, op: Ops, x: Value, w: Annotated[Value, const(rank=2)], b: Annotated[Value, const(rank=1)], k: Number
    ) -> Expr:
        return op.Relu(op.MatMul(x, w) + b) * k

    def rewrite(self, op: Builder) -> None:
        return None


HEAD = "(q: float32[B, 4, S, 64], k: float32[B, 4, S, 64], v: float32[B, 4, S, 64], w: float32[4, 4])"
SCORES = f"""{HEAD} -> (y) {{
  turned = Transpose(k, perm=[0, 1, 3, 2])
  scores = Mul(MatMul(q, turned), 0.125)
  p = Softmax(scores, axis=-1)
  y = MatMul(p, v)
}}"""
BIAS = """(x: float32[N, 4], w: float32[4, 6]) -> (y) {
  h = Add(MatMul(x, float32[4, 6] random(1)), float32[6] random(2))
  y = Mul(Relu(h), 3.0)
}"""


def nearest(text: str, rule: type[Rule]) -> Refusal:
    model = prepare(parse(text))
    compiled = CompiledRule(rule())
    engine = Engine([compiled], explain=True)
    before = to_text(model)
    assert engine.run(model) == 0
    assert to_text(model) == before
    return next(refusal for refusal in refused(engine.trace, [compiled]) if refusal.root == "y")


def parts(found: tuple[Part, ...]) -> Iterator[Part]:
    for part in found:
        yield part
        yield from parts(part.parts)


@pytest.mark.parametrize(
    ("old", "new", "node", "reason", "matched", "size"),
    [
        ("0.125", "0.12", "scores", "0.12, wanted 0.125", 5, 5),
        ("perm=[0, 1, 3, 2]", "perm=[0, 1, 2, 3]", "turned", "perm [0, 1, 2, 3], wanted [0, 1, 3, 2]", 4, 5),
        ("axis=-1", "axis=1", "p", "axis 1, wanted -1", 4, 5),
        ("MatMul(p, v)", "MatMul(Abs(p), v)", "abs", "Abs in between", 4, 5),
        ("Softmax(scores", "Softmax(Clip(scores)", "clip", "Clip in between", 4, 5),
        ("Softmax(scores, axis=-1)", "Sigmoid(scores)", "p", "Sigmoid, wanted Softmax or Where", 1, 7),
        ("-> (y)", "-> (y, p)", "p", "p inside the match is a graph output", 5, 5),
        ("y = ", "z = Relu(scores) y = ", "scores", "scores inside the match is also used by z", 5, 5),
    ],
)
def test_the_nearest_miss_names_the_node_and_the_reason(
    old: str, new: str, node: str, reason: str, matched: int, size: int
) -> None:
    text = SCORES.replace(old, new)
    found = nearest(text.replace("-> (y)", "-> (y, z)") if "z =" in new else text, Scores)
    assert (found.root, found.node, found.reason) == ("y", node, reason)
    assert (found.matched, found.size) == (matched, size)
    blocked = [part for part in parts(found.parts) if part.state == "blocked"]
    assert len(blocked) == 1
    assert blocked[0].at == node


@pytest.mark.parametrize(
    ("old", "new", "node", "reason"),
    [
        ("float32[4, 6] random(1)", "w", "w", "'w' is not a constant"),
        ("float32[6] random(2)", "float32[1, 6] random(2)", "h", "'b' has rank 2, wanted 1"),
    ],
)
def test_a_variable_that_does_not_fit_does_not_hide_the_rest(old: str, new: str, node: str, reason: str) -> None:
    found = nearest(BIAS.replace(old, new), Bias)
    assert (found.node, found.reason) == (node, reason)
    assert (found.matched, found.size) == (4, 4)
    assert {part.text: part.state for part in parts(found.parts)}["k = 3"] == "matched"


def test_two_parts_that_do_not_match_are_not_looked_past() -> None:
    found = nearest(SCORES.replace("0.125", "0.12").replace("axis=-1", "axis=1"), Scores)
    assert (found.node, found.reason) == ("p", "axis 1, wanted -1")
    assert {part.state for part in parts(found.parts)} == {"open", "blocked", "not reached"}


def test_another_root_that_is_missing_is_said() -> None:
    found = nearest("(x: float32[N]) -> (y, z) { y = Exp(x) z = Exp(Abs(x)) }", Pair)
    assert found.reason == "Abs, wanted Neg" or found.reason.startswith("beside it there is no Exp")


def test_a_part_that_stands_twice_is_drawn_once_in_full() -> None:
    found = nearest(SCORES.replace("p, v)", "Where(IsNaN(p), 0.0, p), v)").replace("-> (y)", "-> (y, scores)"), Scores)
    assert [len(part.parts) for part in parts(found.parts) if part.text.startswith("Softmax")] == [1, 0]
    assert (found.matched, found.size) == (7, 7)


def test_without_explain_nothing_is_recorded() -> None:
    engine = Engine([CompiledRule(Scores())])
    engine.run(prepare(parse(SCORES.replace("0.125", "0.12"))))
    assert not engine.trace.refusals


def test_to_be_watched_changes_nothing() -> None:
    text = SCORES.replace("-> (y)", "-> (y, p)")
    options = {"target": target_named("ort-cpu"), "rules": built_in_rules()}
    plain, watched = parse(text), parse(text)
    optimize(plain, **options)  # type: ignore[arg-type]
    observer = Observer()
    optimize(watched, observer=observer, **options)  # type: ignore[arg-type]
    assert to_text(plain) == to_text(watched)
    assert observer.seen


class FoldScale(Rule):
    """(k·x)·W for all W that read k·x."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, k: Number, w: Annotated[Value, const(rank=2)]) -> Expr:
        return op.each_use(op.scaled(x, k), lambda y: op.MatMul(y, w))

    def rewrite(self, op: Builder) -> None:
        return None


@pytest.mark.parametrize(
    ("results", "more", "node", "reason"),
    [
        ("z", "z = Relu(y)", "z", "Relu uses the value in another way"),
        ("z", "z = Add(MatMul(y, float32[8, 8] random(1)), y)", "z", "Add uses the value in another way"),
        ("z, y", "z = MatMul(y, float32[8, 4] random(1))", "Output", "a graph output uses the value in another way"),
        ("z", "z = MatMul(y, w)", "w", "'w' is not a constant"),
    ],
)
def test_the_use_that_is_another_is_named(results: str, more: str, node: str, reason: str) -> None:
    found = nearest(f"(x: float32[N, 8], w: float32[8, 4]) -> ({results}) {{ y = Mul(x, 0.5) {more} }}", FoldScale)
    assert (found.node, found.reason) == (node, reason)
    assert [part.state for part in parts(found.parts)][:2] == ["open", "matched"]


def test_explaining_uses_up_no_budget() -> None:
    class Never(Rule):
        """A sum that no order fits, and a product that is there."""

        stage = "clean"

        def pattern(self, op: Ops, a: Value, b: Value, c: Value) -> Expr:
            return op.sum(a, b, op.Sin(c)) | op.Mul(a, a)

        def rewrite(self, op: Builder, a: Value) -> Value:
            return op.Pow(a, op.const(2.0, like=a))

    sums = " ".join(f"s{i + 1} = Add(s{i}, Exp(s{i}))" for i in range(20))
    for explain in (False, True):
        model = parse(f"(s0: float32[4]) -> (y) {{ {sums} y = Mul(s20, s20) }}")
        infer(model)
        engine = Engine([CompiledRule(Never())], limits=Limits(steps_per_node=1, spare=40), explain=explain)
        assert engine.run(model) == 1
        assert not engine.trace.stopped


def test_only_reasons_that_a_matcher_gives_are_weighed() -> None:
    given = {*_UNSAID.values()}
    for module in (search, matcher):
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            match call:
                case ast.Call(func=ast.Attribute(attr="_fail"), args=[_, ast.Constant(value=str() as reason), *_]):
                    given.add(reason)
    assert given >= {*_TELLING, _OTHER_OP}
