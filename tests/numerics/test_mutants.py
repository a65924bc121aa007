"""A formula that differs in one place keeps its numbers, and is fused if it is still the formula.

A mutant is still the formula when it says so, or when its numbers are those of the formula: then every rule together
must fuse it. Whatever was fused, the outputs are those of the model as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from graphopt.pipeline.meanings import count_ops

LOWEST = "-3.4028234663852886e38"


@dataclass(frozen=True)
class Mutant:
    """A graph; `base` is the formula it came from, if its inputs are the same.

    `still`: it must be fused; `seen`: it must not, because somebody sees an inner value.
    """

    text: str
    base: str = ""
    still: bool = False
    seen: bool = False


Swaps = list[tuple[str, ...]]


def swapped(signature: str, body: str, swaps: Swaps, still: bool = False) -> Iterator[Mutant]:
    base = f"{signature} -> (y) {{ {body} }}"
    for old, *new in swaps:
        assert old in body, old
        for one in new:
            yield Mutant(f"{signature} -> (y) {{ {body.replace(old, one, 1)} }}", base, still)


def seen_from_outside(signature: str, body: str, inner: list[str]) -> Iterator[Mutant]:
    """A formula with each inner value an output, read again, captured by branches, and captured by a loop."""
    branches = "If(c, then_branch=() -> (this) {{ this = Neg({0}) }}, else_branch=() -> (that) {{ that = Abs({0}) }})"
    turn = "(i0: int64[], on: bool[], a0: float32) -> (go, a1) {{ go = Identity(on) a1 = Add(a0, {0}) }}"
    for name in inner:
        yield Mutant(f"{signature} -> (y, {name}) {{ {body} }}", seen=True)
        for reader in ("Neg({0})", branches, f"Loop(2, c, {{0}}, body={turn})"):
            yield Mutant(f"{signature} -> (y, again) {{ {body} again = {reader.format(name)} }}", seen=True)


def given_by_the_caller(signature: str, body: str, constants: dict[str, str]) -> Iterator[Mutant]:
    """A formula with each constant an input, with the constant as its default or without one."""
    for old, kind in constants.items():
        for parameter in (f"given = {old}", f"given: {kind}"):
            text = body.replace(old, "given", 1)
            yield Mutant(f"{signature.removesuffix(')')}, {parameter}) -> (y) {{ {text} }}")


def across_scopes(signature: str, parts: list[str]) -> Iterator[Mutant]:
    """The statements of a formula, the last one `y = ...`, cut in two: the first part outside of a branch."""
    for cut in range(len(parts)):
        outside, inside = " ".join(parts[:cut]), " ".join(parts[cut:])
        branch = f"() -> (y1) {{ {inside.replace('y =', 'y1 =')} }}"
        other = "() -> (y2) { y2 = Neg(x) }"
        text = f"{signature} -> (y) {{ {outside} y = If(c, then_branch={branch}, else_branch={other}) }}"
        yield Mutant(text, still=cut == 0, seen=cut > 0)


# ---- GELU ------------------------------------------------------------------------------------------------------------

ERF = "y = Mul(Mul(h, 0.5), Add(Erf(Div(h, 1.4142135)), 1.0))"
LINEAR = "m = MatMul(x, float32[16, 8] random(1)) h = Add(m, float32[8] random(2)) "
LINEAR_INPUTS = "(x: float32[B, S, 16], z: float32[B, S, 8], c: bool[])"


def gelu_mutants() -> Iterator[Mutant]:
    body = LINEAR + ERF
    yield from swapped(
        LINEAR_INPUTS,
        body,
        [
            ("h, 0.5", *(f"h, {number}" for number in ("0.501", "0.49", "0.500002", "1.0", "-0.5", "0.0", "nan"))),
            ("1.0)", *(f"{number})" for number in ("1.001", "-1.0", "0.0", "1.00001", "nan", "inf"))),
            ("1.4142135", "1.414", "1.5", "2.0", "-1.4142135", "0.0", "1.4143", "z"),
            ("Div(h, 1.4142135)", "Div(1.4142135, h)", "Mul(h, 1.4142135)", "h", "Div(z, 1.4142135)"),
            ("Div(h, 1.4142135)", "Pow(h, 0.70710677)", "Div(m, 1.4142135)"),
            ("Erf(Div(h, 1.4142135))", "Div(Erf(h), 1.4142135)", "Erf(Erf(Div(h, 1.4142135)))"),
            ("Erf(", "Tanh(", "Sigmoid("),
            ("Add(Erf", "Sub(Erf"),
            ("Add(Erf(Div(h, 1.4142135)), 1.0)", "Sub(1.0, Erf(Div(h, 1.4142135)))"),
            ("Mul(h, 0.5)", "Mul(z, 0.5)", "Mul(m, 0.5)", "Div(0.5, h)", "Mul(h, h)", "Sub(h, 0.5)"),
            ("Mul(h, 0.5)", "Mul(h, float32[1, 1, 1, 1] 0.5)", "Mul(h, float32[8] random(3))"),
            ("Mul(h, 0.5)", "Mul(h, Mul(0.5, 0.5))"),
            (", 1.0)", ", float32[1, 1, 1, 1] 1.0)", ", float32[3, 1] random(3))", ", float32[8] random(3))"),
            ("1.4142135)", "float32[1, 1, 1, 1] 1.4142135)", "float32[8] random(3))"),
            ("y =", "w = Neg(h) y ="),
        ],
    )
    yield from swapped(
        LINEAR_INPUTS,
        body,
        [
            ("h, 0.5", "h, 0.5000001", "h, [0.5]", "h, float32[1, 1] 0.5", "h, Mul(0.25, 2.0)"),
            ("1.0)", "[1.0])", "float32[1, 1, 1] 1.0)", "Identity(1.0))"),
            ("Div(h, 1.4142135)", "Mul(h, 0.70710677)", "Div(h, 1.41421)", "Div(h, [1.4142135])", "Div(h, Sqrt(2.0))"),
            ("Mul(h, 0.5)", "Div(h, 2.0)", "Mul(Identity(h), 0.5)", "Mul(Cast(h, to=float32), 0.5)"),
            ("Mul(h, 0.5)", "Mul(Dropout(h), 0.5)"),
            ("float32[8] random(2)", "0.3", "[0.3]", "float32[1, 8] random(2)", "float32[3, 1] random(2)", "z"),
            ("float32[8] random(2)", "float32[1, 1, 8] random(2)", "float32[4, 1, 1, 8] random(2)", "m"),
            ("Add(m, float32[8] random(2))", "Sub(m, float32[8] random(2))", "Sub(float32[8] random(2), m)"),
            ("Add(m, float32[8] random(2))", "Add(Add(m, float32[8] random(2)), float32[8] random(3))"),
            ("Add(m, float32[8] random(2))", "Add(float32[8] random(2), m)", "Mul(m, float32[8] random(2))"),
            ("MatMul(x, float32[16, 8] random(1))", "MatMul(float32[3, 3] random(1), MatMul(x, float32[16, 8] 0.1))"),
            ("MatMul(x, float32[16, 8] random(1))", "MatMul(x, float32[1, 16, 8] random(1))", "Identity(z)"),
            ("MatMul(x, float32[16, 8] random(1))", "MatMul(x, Transpose(float32[8, 16] random(1), perm=[1, 0]))"),
        ],
        still=True,
    )
    parts = ["h = Mul(x, 0.5)", "d = Div(x, 1.4142135)", "e = Erf(d)", "a = Add(e, 1.0)", "y = Mul(h, a)"]
    yield from seen_from_outside(X, " ".join(parts), ["h", "d", "e", "a"])
    yield from across_scopes(X, parts)
    numbers = {"0.5": "float32[]", "1.4142135": "float32[]", "1.0": "float32[]"}
    yield from given_by_the_caller("(x: float32[B, S, 16])", LINEAR + ERF, numbers)
    weights = {"float32[16, 8] random(1)": "float32[16, 8]", "float32[8] random(2)": "float32[8]"}
    for mutant in given_by_the_caller("(x: float32[B, S, 16])", LINEAR + ERF, weights):
        yield Mutant(mutant.text, still=True)
    for name in ("m", "h"):  # Not inside the GELU.
        for mutant in seen_from_outside(LINEAR_INPUTS, LINEAR + ERF, [name]):
            yield Mutant(mutant.text, still=True)
    half = "Mul(Mul(x, float16 0.5), Add(Erf(Div(x, float16 {})), float16 1.0))"
    for divisor, still in (("1.4142135", True), ("1.40625", False)):
        yield Mutant(f"(x: float16[B, 16]) -> (y) {{ y = {half.format(divisor)} }}", still=still)
    yield Mutant("(x: float32[16]) -> (y) { y = Mul(Mul(x, float32[1, 1] 0.5), Add(Erf(Div(x, 1.4142135)), 1.0)) }")


# ---- normalizations --------------------------------------------------------------------------------------------------

X = "(x: float32[B, S, 16], z: float32[B, S, 16], c: bool[])"
GAIN, BIAS = "float32[16] random(1)", "float32[16] random(2)"
AXES = ("[1]", "[0]", "[1, 2]", "[0, 1, 2]")
CENTRED = ["m = ReduceMean(x, [-1])", "d = Sub(x, m)"]
AFFINE = [f"g = Mul(n, {GAIN})", f"y = Add(g, {BIAS})"]
LAYER_NORM = [
    *CENTRED,
    "s = Mul(d, d)",
    "v = ReduceMean(s, [-1])",
    "e = Add(v, 1e-5)",
    "r = Sqrt(e)",
    "n = Div(d, r)",
    *AFFINE,
]
RMS_NORM = ["s = Mul(x, x)", "v = ReduceMean(s, [-1])", "e = Add(v, 1e-5)", "r = Sqrt(e)", "n = Div(x, r)", *AFFINE]


def norm_mutants(parts: list[str], d: str) -> Iterator[Mutant]:
    """What both normalizations have in common; `d` is what is divided."""
    body = " ".join(parts)
    yield from swapped(
        X,
        body,
        [
            ("ReduceMean(s, [-1])", *(f"ReduceMean(s, {axes})" for axes in AXES)),
            ("ReduceMean(s, [-1])", "ReduceMean(s)", "ReduceSum(s, [-1])", "ReduceMax(s, [-1])"),
            ("1e-5", "0.0", "-1e-5", "nan", "inf", "float32[16] random(1)", "float32[3, 1] random(1)"),
            ("1e-5", "float32[1, 1, 1, 1] 1e-5"),
            (f"Mul({d}, {d})", f"Mul({d}, z)", f"Abs({d})", "Mul(z, z)"),
            (f"Mul({d}, {d})", *(f"Pow({d}, {power})" for power in ("3.0", "2.001", "1.0", "4.0"))),
            ("Sqrt(e)", "Sqrt(v)", "Pow(e, 0.499)", "Pow(e, -0.5)", "Pow(e, 1.0)", "Add(Sqrt(v), 1e-5)"),
            ("Sqrt(e)", "Reciprocal(Sqrt(e))", "Sqrt(Sqrt(e))", "Max(Sqrt(v), 1e-5)"),
            (f"Div({d}, r)", f"Div(r, {d})", "Div(z, r)", f"Mul({d}, r)", f"Mul({d}, Reciprocal(e))"),
            (f"Div({d}, r)", f"Mul({d}, Div(2.0, r))", f"Mul({d}, Pow(r, -2.0))", f"Div(Neg({d}), r)"),
            (f"Div({d}, r)", f"Mul({d}, Div(float32[1, 1, 1, 1] 1.0, r))"),
        ],
    )
    yield from swapped(
        X,
        body,
        [
            ("ReduceMean(s, [-1])", "ReduceMean(s, [2])", "ReduceMean(s, [-1], keepdims=1)"),
            ("1e-5", "1.0", "1e-12", "[1e-5]", "float32[1, 1] 1e-5", "Mul(1e-3, 1e-2)"),
            (f"Mul({d}, {d})", f"Pow({d}, 2.0)", f"Pow({d}, [2.0])", f"Pow({d}, 2)"),
            ("Sqrt(e)", "Pow(e, 0.5)"),
            (f"Div({d}, r)", f"Mul({d}, Reciprocal(r))", f"Mul(Pow(e, -0.5), {d})", f"Div({d}, Identity(r))"),
            (f"Div({d}, r)", f"Div({d}, Div(r, 1.0))", f"Div({d}, Mul(r, 1.0))"),
            (GAIN, "[0.5]", *(f"float32{shape} random(1)" for shape in ("[3, 1]", "[3, 16]", "[4, 1, 1, 16]"))),
            (BIAS, "[0.5]", *(f"float32{shape} random(2)" for shape in ("[3, 1]", "[3, 16]", "[4, 1, 1, 16]"))),
            (GAIN, "float32[1, 16] random(1)", "z", "n"),
            (BIAS, "float32[1, 1, 16] random(2)", "z", "n"),
            (f"Mul(n, {GAIN})", f"Mul(Mul(n, {GAIN}), float32[16] random(3))", f"Div(n, {GAIN})", "Neg(n)"),
            (f"Mul(n, {GAIN})", f"Mul(Add(n, float32[16] random(3)), {GAIN})", f"Sub({GAIN}, n)"),
            (f"Add(g, {BIAS})", f"Sub(g, {BIAS})", "Add(n, g)", "Add(g, x)"),
        ],
        still=True,
    )
    inner = [part.partition(" ")[0] for part in parts]
    yield from seen_from_outside(X, body, [name for name in inner if name not in ("n", "g", "y")])
    for mutant in seen_from_outside(X, body, ["n", "g"]):
        yield Mutant(mutant.text, still=True)
    yield from across_scopes(X, [*parts[: inner.index("n")], parts[inner.index("n")].replace("n =", "y =")])
    yield from given_by_the_caller("(x: float32[B, S, 16])", body, {"1e-5": "float32[]"})
    for mutant in given_by_the_caller("(x: float32[B, S, 16])", body, {GAIN: "float32[16]", BIAS: "float32[16]"}):
        yield Mutant(mutant.text, still=True)
    computed = body.replace("[-1]", "Mul(axes, 0)")
    yield Mutant(f"(x: float32[B, S, 16], axes: int64[1]) -> (y) {{ {computed} }}")
    lost = body.replace("ReduceMean(s, [-1])", "ReduceMean(s, [-1], keepdims=0)")
    yield Mutant(f"(x: float32[16, 16]) -> (y) {{ {lost} }}")
    yield Mutant(f"(x: float32[B, 16, S]) -> (y) {{ {' '.join(parts[:-2])} y = Identity(n) }}")
    yield Mutant(f"(x: float32[16]) -> (y) {{ {body} }}", still=True)
    residual = " ".join([*parts[:-2], "y = Add(n, x)"]).replace("1e-5", "[1e-5]")
    yield Mutant(f"(x: float32[B, S, 16]) -> (y) {{ {residual} }}", still=True)


def layer_norm_mutants() -> Iterator[Mutant]:
    body = " ".join(LAYER_NORM)
    yield from norm_mutants(LAYER_NORM, "d")
    yield from swapped(
        X,
        body,
        [
            ("ReduceMean(x, [-1])", *(f"ReduceMean(x, {axes})" for axes in AXES)),
            ("ReduceMean(x, [-1])", "ReduceMean(x)", "ReduceMax(x, [-1])"),
            ("ReduceMean(x, [-1])", "ReduceMean(x, noop_with_empty_axes=1)", "ReduceMean(z, [-1])"),
            ("Mul(d, d)", "Mul(x, x)", "Mul(d, m)"),
            ("Sub(x, m)", "Add(x, m)", "Sub(z, m)", "Sub(x, Mul(m, 0.999))"),
            ("Div(d, r)", "Div(x, r)"),
        ],
    )
    # (m − x) / √v is minus the norm: it is not fused, or with a sign.
    yield from swapped(X, body, [("Sub(x, m)", "Sub(m, x)")])
    yield from swapped(X, body, [("Sub(x, m)", "Add(x, Neg(m))", "Add(Mul(m, -1.0), x)", "Sub(Identity(x), m)")], True)
    # Equal on paper, but these cancel: they are left alone.
    for variance in ("Sub(ReduceMean(Mul(x, x), [-1]), Mul(m, m))", "ReduceMean(Mul(d, x), [-1])"):
        yield Mutant(f"{X} -> (y) {{ {body.replace('ReduceMean(s, [-1])', variance)} }}")
    for axes in ("[1]", "[1, 2]", "[0, 1]"):
        yield Mutant(f"{X} -> (y) {{ {body.replace('[-1]', axes)} }}")


def rms_norm_mutants() -> Iterator[Mutant]:
    yield from norm_mutants(RMS_NORM, "x")
    half = (
        "w = Cast(x, to=float32) s = Mul(w, w) r = Sqrt(Add(ReduceMean(s, [-1]), 1e-6)) n = Div(w, r) "
        "l = Cast(n, to=float16) y = Mul(l, float16[16] random(1))"
    )
    signature = "(x: float16[B, S, 16], z: float16[B, S, 16], c: bool[])"
    yield from swapped(
        signature,
        half,
        [
            ("Mul(w, w)", "Cast(Mul(x, x), to=float32)", "Cast(Cast(Mul(w, w), to=float16), to=float32)"),
            ("Div(w, r)", "Cast(Div(x, Cast(r, to=float16)), to=float32)", "Div(Cast(z, to=float32), r)"),
        ],
    )
    yield from swapped(
        signature,
        half,
        [
            ("y = Mul(l, float16[16] random(1))", "y = Identity(l)", "y = Mul(l, float16 0.5)", "y = Mul(l, z)"),
            ("Cast(n, to=float16)", "Cast(Mul(n, float32[16] random(2)), to=float16)"),
            ("l = Cast(n, to=float16) y = Mul(l, float16[16] random(1))", "y = Mul(n, float32[16] random(1))"),
        ],
        still=True,
    )


# ---- attention -------------------------------------------------------------------------------------------------------

HEADS = (
    "q: float32[B, 2, S, 8], kt: float32[B, 2, 8, T], v: float32[B, 2, T, 4], "
    "m: float32[B, 1, 1, T], n: float32[1, 2, S, T]"
)


def attention_mutants() -> Iterator[Mutant]:
    inputs = f"({HEADS}, c: bool[], allowed: bool[B, 1, S, T], w: float32[B, 2, S, T])"
    base = "s = MatMul(q, kt) f = Mul(s, 0.25) b = Add(f, m) p = Softmax(b, axis=-1) y = MatMul(p, v)"
    yield from swapped(
        inputs,
        base,
        [
            ("axis=-1", *(f"axis={axis}" for axis in (0, 1, 2, -2))),
            ("Softmax(b, axis=-1)", "LogSoftmax(b, axis=-1)", "Softmax(Softmax(b, axis=-1), axis=-1)"),
            ("0.25", "0.0", "-0.25", "nan", "inf", "float32[1, 1, 1, 1, 1] 0.25"),
            ("Mul(s, 0.25)", "Div(0.25, s)", "Div(s, 0.0)", "Mul(s, s)", "Sub(s, 0.25)", "Mul(Tanh(s), 0.25)"),
            ("Add(f, m)", "Add(f, float32[1, 2, 1, 1, 1] random(1))", "Add(f, float32[3, 1, 1, 1, 1] random(1))"),
            ("Add(f, m)", "Sub(m, f)", "Mul(f, m)", "Max(f, m)", "Add(f, s)", "Add(f, f)", "Mul(Add(s, m), 0.25)"),
            ("Add(f, m)", "Add(Add(f, m), Add(n, w))", "Where(allowed, f, -1e4)", "Where(allowed, -inf, f)"),
            ("Add(f, m)", "Add(f, Where(allowed, 0.0, nan))", "Add(f, Where(allowed, 0.0, inf))"),
            ("MatMul(p, v)", "MatMul(Mul(p, 0.5), v)", "MatMul(Add(p, w), v)", "MatMul(Where(IsNaN(p), p, 0.0), v)"),
            ("MatMul(p, v)", "MatMul(Where(IsNaN(p), float32[1, 1, 1, 1, 1] 0.0, p), v)"),
            ("MatMul(p, v)", "MatMul(Cast(Cast(p, to=float16), to=float32), v)"),
            ("MatMul(p, v)", "MatMul(Transpose(v, perm=[0, 1, 3, 2]), Transpose(p, perm=[0, 1, 3, 2]))"),
            ("MatMul(q, kt)", "Add(MatMul(q, kt), MatMul(q, kt))"),
        ],
    )
    fills = ("-inf", LOWEST, "-1e9", "-1e4")
    yield from swapped(
        inputs,
        base,
        [
            ("axis=-1", "axis=3"),
            ("0.25", "1e-30", "1.0", "100.0", "[0.25]", "float32[1, 1, 1, 1] 0.25", "Mul(0.5, 0.5)"),
            ("Mul(s, 0.25)", "Div(s, 4.0)", "Identity(s)", "Mul(Mul(s, 0.5), 0.5)"),
            ("Add(f, m)", "Sub(f, m)", "Add(f, w)", "Add(m, f)", "Identity(f)", "Add(f, float32[1] random(1))"),
            ("Add(f, m)", "Add(Add(f, m), n)", "Where(allowed, f, -inf)", f"Where(allowed, f, {LOWEST})"),
            ("Add(f, m)", *(f"Add(f, Where(allowed, 0.0, {fill}))" for fill in fills)),
            *(
                ("Add(f, m)", f"Add(Add(f, Where(allowed, 0.0, {LOWEST})), Where(allowed, 0.0, {fill}))")
                for fill in (LOWEST, "-inf")
            ),
            ("MatMul(p, v)", "MatMul(Where(IsNaN(p), 0.0, p), v)", "MatMul(Dropout(p, 0.5, false), v)"),
            ("MatMul(q, kt)", "MatMul(Relu(q), Mul(kt, float32[8, 1] random(1)))", "MatMul(Mul(q, 0.3), kt)"),
        ],
        still=True,
    )
    # Guards that do something else where a row is NaN.
    for guard in ("Where(IsInf(p), 0.0, p)", "Where(IsNaN(p), 1.0, p)", "Where(IsNaN(b), 0.0, p)"):
        for bias in ("m", "Where(allowed, 0.0, -inf)"):
            body = base.replace("MatMul(p, v)", f"MatMul({guard}, v)").replace("Add(f, m)", f"Add(f, {bias})")
            yield Mutant(f"{inputs} -> (y) {{ {body} }}")
    for fill in fills:
        guarded = base.replace("MatMul(p, v)", "MatMul(Where(IsNaN(p), 0.0, p), v)")
        body = guarded.replace("Add(f, m)", f"Add(f, Where(allowed, 0.0, {fill}))")
        yield Mutant(f"{inputs} -> (y) {{ {body} }}", still=True)
    yield from seen_from_outside(inputs, base, ["s", "f", "b", "p"])
    yield from given_by_the_caller(f"({HEADS})", base, {"0.25": "float32[]"})
    # The key transposed in another way, of a shape that both ways fit; batches and heads that broadcast.
    square = "(q: float32[B, 4, 4, 8], k: float32[B, 4, 4, 8], v: float32[B, 4, 4, 8])"
    for order in ([0, 1, 3, 2], [0, 2, 3, 1]):
        body = f"y = MatMul(Softmax(MatMul(q, Transpose(k, perm={order}))), v)"
        yield Mutant(f"{square} -> (y) {{ {body} }}", still=True)
    equal = "(q: float32[4, 4, 4, 4], k: float32[4, 4, 4, 4], v: float32[4, 4, 4, 4])"
    for perm in itertools.permutations(range(4)):
        body = f"y = MatMul(Softmax(MatMul(q, Transpose(k, perm={list(perm)}))), v)"
        yield Mutant(f"{equal} -> (y) {{ {body} }}", still=True)
    for q, kt, v, m, still in (
        ("1, 2, S, 8", "B, 2, 8, T", "B, 2, T, 4", "1, 1, 1, 1", False),
        ("B, 2, S, 8", "1, 2, 8, T", "B, 2, T, 4", "B, 1, 1, T", False),
        ("B, 2, S, 8", "B, 1, 8, T", "B, 1, T, 4", "B, 2, S, T", False),
        ("B, 2, S, 8", "B, 2, 8, T", "B, 1, T, 4", "S, T", False),
        ("1, 2, S, 8", "1, 2, 8, T", "1, 2, T, 4", "B, 1, S, T", False),
        ("B, 1, S, 8", "B, 1, 8, T", "B, 1, T, 4", "1, 2, S, T", False),
        ("B, 2, 1, 8", "B, 2, 8, T", "B, 2, T, 4", "B, 2, S, T", False),
        ("B, 2, S, 8", "B, 2, 8, 1", "B, 2, T, 4", "B, 2, S, T", False),
        ("S, 8", "8, T", "T, 4", "S, T", False),
        ("2, S, 8", "2, 8, T", "2, T, 4", "T", True),
        ("2, S, 8", "2, 8, T", "2, T, 4", "B, 2, S, T", False),
        ("2, S, 8", "8, T", "T, 4", "2, S, T", False),
        ("B, 2, S, 8", "B, 2, 8, T", "2, T, 4", "T", False),
        ("1, B, 2, S, 8", "1, B, 2, 8, T", "1, B, 2, T, 4", "T", False),
    ):
        types = f"q: float32[{q}], kt: float32[{kt}], v: float32[{v}], m: float32[{m}]"
        body = "y = MatMul(Softmax(Add(Mul(MatMul(q, kt), 0.25), m)), v)"
        yield Mutant(f"({types}) -> (y) {{ {body} }}", still=still)


# ---- all of them -----------------------------------------------------------------------------------------------------

KINDS = {
    "MatMul, Add, GELU": (gelu_mutants, "Erf"),
    "LayerNorm": (layer_norm_mutants, "ReduceMean"),
    "RMSNorm": (rms_norm_mutants, "ReduceMean"),
    "attention": (attention_mutants, "Softmax"),
}
"""Mutants, and the op that is in the formula but not in the result."""


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda"])
@pytest.mark.parametrize("kind", KINDS)
def test_mutants(kind: str, target: str, laboratory: Any) -> None:
    make, part = KINDS[kind]
    mutants = {mutant.text: mutant for mutant in make()}.values()
    wrong, missed, cut = [], [], []
    same = 0
    results_of = cache(laboratory.results_of)
    for mutant in mutants:
        model, _ = laboratory.optimized(mutant.text, target=target)
        wanted = results_of(mutant.text)
        difference = laboratory.difference(wanted, laboratory.results(model))
        if difference:
            wrong.append(f"{mutant.text}\n  {difference}")
        still = mutant.still or (mutant.base and laboratory.are_equal(wanted, results_of(mutant.base)))
        same += bool(still)
        is_fused = not count_ops(model)[part]
        missed += [mutant.text] if still and not is_fused else []
        cut += [mutant.text] if mutant.seen and is_fused else []
    print(f"{kind}, {target}: {len(mutants)} mutants, {len(wrong)} wrong", end="; ")
    print(f"{same} still the formula, {len(missed)} missed; {sum(m.seen for m in mutants)} seen, {len(cut)} fused")
    assert not wrong, "\n".join(wrong)
    assert not missed, "\n".join(missed)
    assert not cut, "\n".join(cut)
    assert len(mutants) >= 60
