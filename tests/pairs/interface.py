"""Inputs and outputs, random ops, overridable initializers, branches, loops, sequences, strings."""

from __future__ import annotations

import numpy as np
import onnx

from pairs.base import Draw, Feeds, Make, f32, given, model, normal, pair_of, right, wrong

_TWO = (
    "opset 18 (x: float32[n, 4], m: int64[n]) -> (RESULTS) { "
    "w = float32[4, 4] random(1) a = MatMul(x, w) b = Tanh(a) c = Cast(m, to=float32) }"
)


def _two(results: str, cut: str = "") -> str:
    return _TWO.replace("RESULTS", results).replace(cut, "") if cut else _TWO.replace("RESULTS", results)


_A, _B, _C = "a: float32[n, 4]", "b: float32[n, 4]", "c: float32[n]"
_BODY = "opset 18 ({inputs}) -> (y: float32[n, 4]) {{ {body} }}"


def _io(rng: np.random.Generator) -> Feeds:
    n = int(rng.integers(1, 6))
    return {"x": rng.standard_normal((n, 4)).astype(np.float32), "m": rng.integers(0, 2, n)}


def _body(reference: str, candidate: str, inputs: str = "x: float32[n, 4]", other: str = "") -> tuple[Make, Make]:
    return pair_of(_BODY.format(inputs=inputs, body=reference), _BODY.format(inputs=other or inputs, body=candidate))


def _if(then: str, other: str, condition: str = "Greater(ReduceSum(x, keepdims=0), 0.0)") -> str:
    return (
        f"y = If({condition}, then_branch=() -> (p: float32[n, 4]) {{ p = {then} }}, "
        f"else_branch=() -> (q: float32[n, 4]) {{ q = {other} }})"
    )


def _loop(trips: str, step: str = "Add(Mul(h, 0.5), Cast(i, to=float32))", go: str = "true") -> str:
    return (
        f"last = Loop({trips}, {go}, x, body=(i: int64[], c: bool[], h: float32[n, 4]) -> (c2: bool[], "
        f"h2: float32[n, 4]) "
        f"{{ c2 = Identity(c) h2 = {step} }}) y = Neg(last)"
    )


def _strings(body: str) -> str:
    return f"opset 20 (x: string[n]) -> (y: string[k]) {{ {body} }}"


_WORDS: Draw = given(x=np.array(["Zebra", "apple", "the", "Apple", "zebra", "the"], object))


def _uniform(**change: float) -> str:
    how = ", ".join(f"{name}={value}" for name, value in {"low": 0.0, "high": 1.0, **change}.items())
    return (
        "opset 18 (x: float32[n, 4]) -> (y: float32[n, 4]) { "
        f"r = RandomUniformLike(x, {how}) s = RandomUniformLike(x, {how}) y = Sub(Add(x, r), s) }}"
    )


def _overridable(body: str, scale: bool = True) -> str:
    inputs = "x: float32[n, 4], scale = float32[1] 2.0" if scale else "x: float32[n, 4]"
    return _BODY.format(inputs=inputs, body=body)


def _reordered(text: str) -> onnx.ModelProto:
    """The model of `text` with independent nodes in another order, initializers reversed, and other names."""
    proto = model(text, rename=True)
    initializers = list(reversed(proto.graph.initializer))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
    nodes, known, done = list(proto.graph.node), {v.name for v in (*proto.graph.input, *initializers)} | {""}, []
    while nodes:
        ready = next(node for node in reversed(nodes) if set(node.input) <= known)
        nodes.remove(ready)
        done.append(ready)
        known.update(ready.output)
    del proto.graph.node[:]
    proto.graph.node.extend(done)
    return proto


_WIDE = (
    "opset 18 (x: float32[n, 4], m: int64[n]) -> (y: float32[n, 4], z: float32[n, 4]) { "
    "w = float32[4, 4] random(1) v = float32[4, 4] random(2) a = MatMul(x, w) b = MatMul(x, v) "
    "c = Mul(Unsqueeze(Cast(m, to=float32), [1]), a) y = Add(c, b) z = Tanh(Sub(a, b)) }"
)
_RANDOM = (
    "opset 18 (x: float32[n, 4]) -> (y: float32[n, 4]) { w = float32[4, 4] random(1) "
    "h = MatMul(x, w) e = RandomNormalLike(h, mean=0.0, scale=0.1) y = Tanh(Add(h, e)) }"
)
_SEQUENCE = "s = SequenceConstruct({items}) y = ConcatFromSequence(s, axis={axis})"
_X4 = normal(3, 4)


def _any4(rng: np.random.Generator) -> Feeds:
    return {"x": rng.standard_normal((int(rng.integers(1, 6)), 4)).astype(np.float32)}


_TRIPS: Draw = lambda rng: {**_any4(rng), "k": np.array(int(rng.integers(1, 5)))}  # noqa: E731
_CHOICE = "x: float32[n, 4], flag: bool[]"

WRONG = [
    wrong(
        "outputs in another order",
        *pair_of(_two(f"{_A}, {_B}"), _two(f"{_B}, {_A}")),
        reason="the order of outputs is part of a model",
    ),
    wrong(
        "output renamed",
        *pair_of(
            _two(_A),
            _two("a2: float32[n, 4]").replace("a = MatMul(x, w) b = Tanh(a)", "a2 = MatMul(x, w) b = Tanh(a2)"),
        ),
        reason="an output is asked for by name",
    ),
    wrong("output lost", *pair_of(_two(f"{_A}, {_C}"), _two(_A)), _io),
    wrong(
        "unused input dropped",
        *pair_of(_two(_B), _two(_B).replace(", m: int64[n]", "").replace(" c = Cast(m, to=float32)", "")),
        reason="who feeds the input gets an error",
    ),
    wrong(
        "input renamed",
        *_body("y = Neg(x)", "y = Neg(x1)", other="x1: float32[n, 4]"),
        reason="an input is fed by name",
    ),
    wrong(
        "input of another type",
        *_body("y = Cast(m, to=float32)", "y = Cast(m, to=float32)", "m: int64[n, 4]", "m: int32[n, 4]"),
        reason="int64 is refused where int32 is asked for",
    ),
    wrong(
        "input narrowed to a fixed batch",
        *_body("y = Neg(x)", "y = Neg(x)", "x: float32[n, 4]", "x: float32[1, 4]"),
        reason="a batch of two is refused",
    ),
    wrong(
        "two outputs with each other's values",
        *pair_of(
            _two(f"{_A}, {_B}"),
            _two(f"{_A}, {_B}").replace("a = MatMul(x, w) b = Tanh(a)", "b = MatMul(x, w) a = Tanh(b)"),
        ),
        _io,
    ),
    wrong(
        "overridable initializer folded",
        *pair_of(_overridable("y = Mul(x, scale)"), _overridable("y = Mul(x, 2.0)")),
        given(x=np.ones((2, 4), np.float32), scale=f32(3.0)),
    ),
    wrong(
        "overridable initializer folded and dropped",
        *pair_of(_overridable("y = Mul(x, scale)"), _overridable("y = Mul(x, 2.0)", False)),
        reason="who feeds the initializer gets an error",
    ),
    wrong(
        "default of an overridable initializer changed",
        *pair_of(_overridable("y = Mul(x, scale)"), _overridable("y = Mul(x, scale)").replace("2.0", "2.5")),
        _X4,
    ),
    wrong(
        "random nodes merged",
        *pair_of(_uniform(), _uniform().replace("Sub(Add(x, r), s)", "Sub(Add(x, r), r)")),
        reason="two draws are independent, one draw less itself is 0",
    ),
    wrong("random range doubled", *pair_of(_uniform(), _uniform(high=2.0)), reason="the distribution is another"),
    wrong(
        "seed of a random node changed",
        *_body("y = Add(x, RandomUniformLike(x, seed=1.0))", "y = Add(x, RandomUniformLike(x, seed=2.0))"),
        _X4,
    ),
    wrong(
        "random node folded to what it once gave",
        *pair_of(_RANDOM, _RANDOM.replace("RandomNormalLike(h, mean=0.0, scale=0.1)", "Mul(h, 0.0)")),
        reason="the output does not depend on chance any more",
    ),
    wrong("branches exchanged", *_body(_if("Neg(x)", "Abs(x)"), _if("Abs(x)", "Neg(x)")), _X4),
    wrong(
        "one branch off by a sign",
        *_body(_if("Sub(x, 1.0)", "Exp(x)", "flag"), _if("Sub(1.0, x)", "Exp(x)", "flag"), _CHOICE),
        given(x=np.ones((2, 4), np.float32) * 3, flag=np.array(True)),
    ),
    wrong("loop runs once more", *_body(_loop("k"), _loop("Add(k, 1)"), "x: float32[n, 4], k: int64[]"), _TRIPS),
    wrong(
        "loop counts from one",
        *_body(_loop("k"), _loop("k", "Add(Mul(h, 0.5), Cast(Add(i, 1), to=float32))"), "x: float32[n, 4], k: int64[]"),
        _TRIPS,
    ),
    wrong(
        "loop condition dropped",
        *_body(_loop("k", go="flag"), _loop("k"), "x: float32[n, 4], k: int64[], flag: bool[]"),
        given(x=np.ones((2, 4), np.float32), k=np.array(3), flag=np.array(False)),
    ),
    wrong(
        "sequence in another order",
        *_body(_SEQUENCE.format(items="x, Neg(x)", axis=0), _SEQUENCE.format(items="Neg(x), x", axis=0)),
        _X4,
    ),
    wrong(
        "another element of a sequence",
        *_body(
            "y = SequenceAt(SplitToSequence(Concat(x, Exp(x), axis=0), Squeeze(Shape(x, end=1)), axis=0), 0)",
            "y = SequenceAt(SplitToSequence(Concat(x, Exp(x), axis=0), Squeeze(Shape(x, end=1)), axis=0), -1)",
        ),
        _X4,
    ),
    wrong(
        "an optional that is there taken for empty",
        *_body(
            _if("Neg(x)", "Abs(x)", "OptionalHasElement(Optional(x))"),
            _if("Neg(x)", "Abs(x)", "Not(OptionalHasElement(Optional(x)))"),
        ),
        _X4,
    ),
    wrong(
        "upper for lower case",
        *pair_of(
            _strings('y = StringNormalizer(x, locale="C", case_change_action="LOWER")'),
            _strings('y = StringNormalizer(x, locale="C", case_change_action="UPPER")'),
        ),
        _WORDS,
    ),
    wrong(
        "stop words without regard to case",
        *pair_of(
            _strings(
                'y = StringNormalizer(x, locale="C", case_change_action="NONE", is_case_sensitive=1, '
                'stopwords=["apple"])'
            ),
            _strings(
                'y = StringNormalizer(x, locale="C", case_change_action="NONE", is_case_sensitive=0, '
                'stopwords=["apple"])'
            ),
        ),
        _WORDS,
    ),
    wrong(
        "strings joined in the other order",
        *pair_of(_strings('y = StringConcat(x, ["!"])'), _strings('y = StringConcat(["!"], x)')),
        _WORDS,
    ),
    wrong(
        "string read as a float without its fraction",
        *pair_of(
            'opset 20 (x: string[n]) -> (y: float32[n]) { y = Cast(StringConcat(x, [".5"]), to=float32) }',
            "opset 20 (x: string[n]) -> (y: float32[n]) { y = Cast(x, to=float32) }",
        ),
        given(x=np.array(["1", "22"], object)),
    ),
]

RIGHT = [
    right(
        "everything renamed",
        lambda: model(_WIDE),
        lambda: model(_WIDE, rename=True),
        _io,
        "the same nodes under other names",
    ),
    right(
        "nodes and initializers reordered",
        lambda: model(_WIDE),
        lambda: _reordered(_WIDE),
        _io,
        "both orders are topological",
    ),
    right(
        "dead nodes removed",
        *pair_of(_two(_A), _two(_A, " b = Tanh(a) c = Cast(m, to=float32)")),
        _io,
        "no output needs them",
    ),
    right(
        "equal subexpressions merged",
        *_body("y = Add(Exp(Neg(x)), Tanh(Neg(x)))", "a = Neg(x) y = Add(Exp(a), Tanh(a))"),
        _any4,
        "a pure op twice",
    ),
    right(
        "equal initializers merged",
        *_body(
            "a = float32[4, 4] random(1) b = float32[4, 4] random(1) y = Sub(MatMul(x, a), MatMul(Neg(x), b))",
            "a = float32[4, 4] random(1) y = Sub(MatMul(x, a), MatMul(Neg(x), a))",
        ),
        _any4,
        "the same bytes",
    ),
    right(
        "initializers as constants",
        *_body(
            "w = float32[4] {1.0, 2.0, 3.0, 4.0} y = Mul(x, w)",
            "y = Mul(x, Constant(value_floats=[1.0, 2.0, 3.0, 4.0]))",
        ),
        _any4,
        "the same numbers",
    ),
    right(
        "an overridable initializer kept",
        *pair_of(_overridable("y = Neg(Mul(x, scale))"), _overridable("y = Mul(Neg(x), scale)")),
        lambda rng: {**_any4(rng), "scale": rng.standard_normal(1).astype(np.float32)},
        "(−x)s = −(xs), the sign is exact",
    ),
    right("a branch rewritten", *_body(_if("Mul(x, 2.0)", "Exp(x)"), _if("Add(x, x)", "Exp(x)")), _any4, "2x = x + x"),
    right(
        "a negated condition",
        *_body(_if("Neg(x)", "Exp(x)", "flag"), _if("Exp(x)", "Neg(x)", "Not(flag)"), _CHOICE),
        lambda rng: {**_any4(rng), "flag": np.array(bool(rng.integers(0, 2)))},
        "Not exchanges the branches",
    ),
    right(
        "a constant condition folded",
        *_body(_if("Neg(x)", "Exp(x)", "true"), "y = Neg(x)"),
        _any4,
        "the other branch never runs",
    ),
    right(
        "a loop body rewritten",
        *_body(_loop("k"), _loop("k", "Add(Cast(i, to=float32), Div(h, 2.0))"), "x: float32[n, 4], k: int64[]"),
        _TRIPS,
        "h·0.5 = h/2",
    ),
    right(
        "an optional unpacked",
        *_body("y = Neg(OptionalGetElement(Optional(x)))", "y = Neg(x)"),
        _any4,
        "an optional gives what was put in",
    ),
    right(
        "a short loop unrolled",
        *_body(_loop("2"), "y = Neg(Add(Mul(Add(Mul(x, 0.5), 0.0), 0.5), 1.0))"),
        _any4,
        "the body twice, for 0 and 1",
    ),
    right(
        "a sequence as a concatenation",
        *_body(_SEQUENCE.format(items="x, Neg(x)", axis=0), "y = Concat(x, Neg(x), axis=0)"),
        _any4,
        "as defined",
    ),
    right(
        "strings lowered twice",
        *pair_of(
            _strings(
                'y = StringNormalizer(StringNormalizer(x, locale="C", case_change_action="LOWER"), locale="C", '
                'case_change_action="LOWER")'
            ),
            _strings('y = StringNormalizer(x, locale="C", case_change_action="LOWER")'),
        ),
        _WORDS,
        "lower case is lower case",
    ),
    right(
        "strings joined with another bracketing",
        *pair_of(
            _strings('y = StringConcat(StringConcat(["<"], x), [">"])'),
            _strings('y = StringConcat(["<"], StringConcat(x, [">"]))'),
        ),
        _WORDS,
        "joining is associative",
    ),
]
RANDOM = [
    right(
        "a random model renamed",
        lambda: model(_RANDOM),
        lambda: model(_RANDOM, rename=True),
        _X4,
        "the same draws of the same distribution",
    ),
    right(
        "a random model whose other nodes are rewritten",
        *pair_of(_RANDOM, _RANDOM.replace("Add(h, e)", "Add(e, h)")),
        _X4,
        "sums are commutative",
    ),
    right(
        "an unseeded node given no seed but another place",
        *pair_of(_uniform(), _uniform().replace("Add(x, r)", "Add(r, x)")),
        _X4,
        "sums are commutative",
    ),
]
"""Right pairs that no run can show right: their outputs are drawn."""
