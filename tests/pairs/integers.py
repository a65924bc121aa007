"""Integers, casts, quantized arithmetic, Booleans."""

from __future__ import annotations

import numpy as np

from pairs.base import Draw, Feeds, Make, given, pair_of, right, wrong


def ints(*values: int, dtype: str = "int64", name: str = "x") -> Draw:
    """One vector."""
    return given(**{name: np.array(values, dtype)})


def some(dtype: str, low: int, high: int) -> Draw:
    """A vector of integers of any length, from `low` to below `high`."""
    return lambda rng: {"x": rng.integers(low, high, int(rng.integers(1, 30))).astype(dtype)}


def _of(
    kind: str, reference: str, candidate: str, out: str = "", opset: int = 18, keep: bool = False
) -> tuple[Make, Make]:
    head = f"opset {opset} (x: {kind}[n]) -> (y: {out or kind}[n]) {{ "
    return pair_of(f"{head}{reference} }}", f"{head}{candidate} }}", keep=keep)


_QUANTIZED = (
    "opset 21 (x: float32[n, 8]) -> (y: float32[n, 8]) {{ w = int8[8, 8] random(5) "
    "q = QuantizeLinear(x, 0.05, uint8 {zero}) "
    "d = DequantizeLinear(q, 0.05, uint8 {back}) "
    "s = float32[8] {{ 0.01, 0.02, 0.03, 0.015, 0.012, 0.04, 0.022, 0.011 }} "
    "y = MatMul(d, DequantizeLinear(w, s, axis={axis})) }}"
)


def _quantized(zero: int = 120, back: int = 120, axis: int = 1) -> str:
    return _QUANTIZED.format(zero=zero, back=back, axis=axis)


def _small(rng: np.random.Generator) -> Feeds:
    return {"x": rng.standard_normal((int(rng.integers(1, 5)), 8)).astype(np.float32)}


_MATMUL_INTEGER = "opset 21 (x: uint8[n, 8]) -> (y: int32[n, 8]) {{ w = int8[8, 8] random(5) {body} }}"

WRONG = [
    wrong(
        "product of int64 in int32",
        *_of("int64", "y = Mul(x, 1000)", "y = Cast(Mul(Cast(x, to=int32), int32 1000), to=int64)"),
        ints(5, 3_000_000),
    ),
    wrong(
        "int64 ids cast to int32",
        *_of("int64", "y = Mod(x, 997)", "y = Cast(Mod(Cast(x, to=int32), int32 997), to=int64)"),
        ints(5, 2**33 + 17),
    ),
    wrong(
        "sum of int32 in float32",
        *_of("int32", "y = Add(x, int32 1)", "y = Cast(Add(Cast(x, to=float32), 1.0), to=int32)"),
        ints(5, 2**24 + 2, 16777217, dtype="int32"),
    ),
    wrong(
        "truncation to integers lost",
        *_of("float32", "y = Cast(Cast(x, to=int64), to=float32)", "y = Identity(x)"),
        given(x=np.array([1.5, -2.75], np.float32)),
    ),
    wrong(
        "truncation as Floor",
        *_of("float32", "y = Cast(Cast(x, to=int32), to=float32)", "y = Floor(x)"),
        given(x=np.array([1.5, -2.75], np.float32)),
    ),
    wrong(
        "rounding half away from zero",
        *_of("float32", "y = Cast(Round(x), to=int64)", "y = Cast(Floor(Add(x, 0.5)), to=int64)", "int64"),
        given(x=np.array([0.5, 1.5, 2.5, -1.5], np.float32)),
    ),
    wrong(
        "double computed as float",
        *_of(
            "float64",
            "y = Sub(Mul(x, x), float64 1)",
            "y = Cast(Sub(Mul(Cast(x, to=float32), Cast(x, to=float32)), 1.0), to=float64)",
        ),
        given(x=np.array([1.1, 3.3])),
    ),
    wrong(
        "float computed as half",
        *pair_of(
            "opset 18 (x: float32[n, 8]) -> (y: float32[n, 8]) { y = LayerNormalization(x, float32[8] random(1)) }",
            "opset 18 (x: float32[n, 8]) -> (y: float32[n, 8]) { "
            "y = Cast(LayerNormalization(Cast(x, to=float16), float16[8] random(1)), to=float32) }",
        ),
        lambda rng: {"x": rng.standard_normal((2, 8)).astype(np.float32)},
    ),
    wrong(
        "output of another integer type",
        *pair_of(
            "opset 18 (x: float32[n, 9]) -> (y: int64[n, 1]) { y = ArgMax(x, axis=1) }",
            "opset 18 (x: float32[n, 9]) -> (y: int32[n, 1]) { y = Cast(ArgMax(x, axis=1), to=int32) }",
        ),
        lambda rng: {"x": rng.standard_normal((2, 9)).astype(np.float32)},
    ),
    wrong(
        "unsigned difference below zero",
        *_of("uint8", "y = Greater(Sub(x, uint8 10), uint8 0)", "y = Greater(x, uint8 10)", "bool"),
        ints(3, 10, 200, dtype="uint8"),
    ),
    wrong(
        "unsigned sum widened",
        *_of("uint8", "y = Cast(Add(x, uint8 100), to=int32)", "y = Add(Cast(x, to=int32), int32 100)", "int32"),
        ints(3, 200, dtype="uint8"),
    ),
    wrong(
        "int8 product saturated",
        *_of(
            "int8",
            "y = Cast(Cast(Mul(Cast(x, to=int32), int32 3), to=int8), to=int32)",
            "y = Clip(Mul(Cast(x, to=int32), int32 3), int32 -128, int32 127)",
            "int32",
        ),
        ints(3, 100, dtype="int8"),
    ),
    wrong(
        "integer division rounds down",
        *_of("int64", "y = Div(x, 4)", "y = Cast(Floor(Div(Cast(x, to=float64), float64 4)), to=int64)"),
        ints(7, -7),
    ),
    wrong(
        "a quotient and product cancelled",
        *_of("int64", "y = Mul(Div(x, 4), 4)", "y = Identity(x)", keep=True),
        ints(8, 7),
    ),
    wrong(
        "division before multiplication",
        *_of("int32", "y = Div(Mul(x, int32 3), int32 2)", "y = Mul(Div(x, int32 2), int32 3)"),
        ints(8, 7, dtype="int32"),
    ),
    wrong("Mod with the sign of the dividend", *_of("int64", "y = Mod(x, 5)", "y = Mod(x, 5, fmod=1)"), ints(7, -7)),
    wrong(
        "Mod of a power of two from bits of the wrong width",
        *_of("int32", "y = Mod(x, int32 8)", "y = BitwiseAnd(x, int32 3)"),
        ints(7, 12, dtype="int32"),
    ),
    wrong(
        "shift the other way",
        *_of("uint32", 'y = BitShift(x, uint32 2, direction="LEFT")', "y = Div(x, uint32 4)"),
        ints(7, 12, dtype="uint32"),
    ),
    wrong(
        "And for Or",
        *_of("int64", "y = Or(Greater(x, 3), Less(x, -3))", "y = And(Greater(x, 3), Less(x, -3))", "bool"),
        ints(7, 0),
    ),
    wrong("strict comparison", *_of("int64", "y = LessOrEqual(x, 3)", "y = Less(x, 3)", "bool"), ints(2, 3)),
    wrong(
        "negative indices are not wrapped",
        *pair_of(
            "opset 18 (x: int64[n]) -> (y: float32[n, 4]) { t = float32[10, 4] random(1) y = Gather(t, x) }",
            "opset 18 (x: int64[n]) -> (y: float32[n, 4]) { t = float32[10, 4] random(1) y = Gather(t, Max(x, 0)) }",
        ),
        ints(7, -2),
    ),
    wrong(
        "largest for smallest",
        *pair_of(
            "opset 18 (x: float32[n, 9]) -> (v: float32[n, 3], y: int64[n, 3]) { v, y = TopK(x, [3], largest=0) }",
            "opset 18 (x: float32[n, 9]) -> (v: float32[n, 3], y: int64[n, 3]) { v, y = TopK(x, [3], largest=1) }",
        ),
        lambda rng: {"x": rng.standard_normal((2, 9)).astype(np.float32)},
    ),
    wrong(
        "last index of ties",
        *pair_of(
            "opset 18 (x: float32[n, 9]) -> (y: int64[n, 1]) { y = ArgMax(x, axis=1) }",
            "opset 18 (x: float32[n, 9]) -> (y: int64[n, 1]) { y = ArgMax(x, axis=1, select_last_index=1) }",
        ),
        given(x=np.array([[1, 2, 2, 0, 1, 1, 0, 0, 0]], np.float32)),
    ),
    wrong(
        "cumulative sum without its own element",
        *_of("int64", "y = CumSum(x, 0)", "y = CumSum(x, 0, exclusive=1)"),
        ints(1, 2, 3),
    ),
    wrong(
        "cumulative sum from the end",
        *_of("int32", "y = CumSum(x, 0)", "y = CumSum(x, 0, reverse=1)"),
        ints(1, 2, 3, dtype="int32"),
    ),
    wrong(
        "scattered values replaced, not added",
        *pair_of(
            "opset 18 (x: int64[n, 1], u: float32[n]) -> (y: float32[6]) { y = ScatterND(float32[6] 1, x, "
            'u, reduction="add") }',
            "opset 18 (x: int64[n, 1], u: float32[n]) -> (y: float32[6]) { y = ScatterND(float32[6] 1, x, u) }",
        ),
        given(x=np.array([[1], [3]]), u=np.array([2, 3], np.float32)),
    ),
    wrong(
        "one-hot values exchanged",
        *pair_of(
            "opset 18 (x: int64[n]) -> (y: float32[n, 6]) { y = OneHot(x, 6, [0.0, 1.0]) }",
            "opset 18 (x: int64[n]) -> (y: float32[n, 6]) { y = OneHot(x, 6, [1.0, 0.0]) }",
        ),
        ints(1, 5),
    ),
    wrong(
        "diagonal off by one",
        *pair_of(
            "opset 18 (x: float32[n, n]) -> (y: float32[n, n]) { y = Trilu(x, upper=0) }",
            "opset 18 (x: float32[n, n]) -> (y: float32[n, n]) { y = Trilu(x, 1, upper=0) }",
        ),
        lambda rng: {"x": rng.standard_normal((4, 4)).astype(np.float32)},
    ),
    wrong("zero point off by one", *pair_of(_quantized(), _quantized(zero=121)), _small),
    wrong("zero point of the way back off by one", *pair_of(_quantized(), _quantized(back=119)), _small),
    wrong("scales of the other axis", *pair_of(_quantized(), _quantized(axis=0)), _small),
    wrong(
        "a zero point lost",
        *pair_of(
            _MATMUL_INTEGER.format(body="y = MatMulInteger(x, w, uint8 3)"),
            _MATMUL_INTEGER.format(body="y = MatMulInteger(x, w)"),
        ),
        lambda rng: {"x": rng.integers(0, 256, (2, 8)).astype(np.uint8)},
    ),
]

RIGHT = [
    right(
        "ids offset twice",
        *_of("int64", "y = Sub(Add(x, 5), 3)", "y = Add(x, 2)", keep=True),
        some("int64", -1000, 1000),
        "sums of integers are exact, also where they wrap",
    ),
    right(
        "product of int32 by shifts",
        *_of("int32", "y = Mul(x, int32 4)", "y = Add(Add(x, x), Add(x, x))"),
        some("int32", -(2**31), 2**31 - 1),
        "multiplication modulo 2³² is repeated addition",
    ),
    right(
        "uint8 sums in another order",
        *_of("uint8", "y = Sub(Add(x, uint8 200), uint8 100)", "y = Add(x, uint8 100)"),
        some("uint8", 0, 256),
        "sums modulo 256",
    ),
    right(
        "uint32 shifted for a quotient",
        *_of("uint32", "y = Div(x, uint32 8)", 'y = BitShift(x, uint32 3, direction="RIGHT")'),
        some("uint32", 0, 2**32),
        "quotients of unsigned integers round down, as shifts do",
    ),
    right(
        "Mod of a power of two from its bits",
        *_of("int32", "y = Mod(x, int32 8)", "y = BitwiseAnd(x, int32 7)"),
        some("int32", -1000, 1000),
        "Mod has the divisor's sign, as the low bits in two's complement",
    ),
    right(
        "negation moved through And",
        *_of(
            "int64",
            "y = Not(And(Greater(x, 3), Less(x, 9)))",
            "y = Or(LessOrEqual(x, 3), GreaterOrEqual(x, 9))",
            "bool",
        ),
        some("int64", -20, 20),
        "De Morgan, integers are ordered",
    ),
    right(
        "a cast there and back dropped",
        *_of("int32", "y = Neg(Cast(Cast(x, to=int64), to=int32))", "y = Neg(x)"),
        some("int32", -(2**31), 2**31 - 1),
        "int64 has every int32",
    ),
    right(
        "int8 compared as int32",
        *_of("int8", "y = Greater(x, int8 5)", "y = Greater(Cast(x, to=int32), int32 5)", "bool"),
        some("int8", -128, 128),
        "the order of integers does not depend on width",
    ),
    right(
        "quantized product in integers",
        *pair_of(
            "opset 21 (x: uint8[n, 8]) -> (y: float32[n, 8]) { w = int8[8, 8] random(5) "
            "y = MatMul(DequantizeLinear(x, 0.05, uint8 3), DequantizeLinear(w, 0.01)) }",
            "opset 21 (x: uint8[n, 8]) -> (y: float32[n, 8]) { w = int8[8, 8] random(5) "
            "y = Mul(Cast(MatMulInteger(x, w, uint8 3), to=float32), 5e-4) }",
        ),
        lambda rng: {"x": rng.integers(0, 256, (int(rng.integers(1, 5)), 8)).astype(np.uint8)},
        "the sum of products of scaled integers is the scaled sum",
    ),
    right(
        "rows gathered one by one",
        *pair_of(
            "opset 18 (x: int64[n]) -> (y: float32[n, 4]) { t = float32[10, 4] random(1) y = Gather(t, x) }",
            "opset 18 (x: int64[n]) -> (y: float32[n, 4]) { t = float32[10, 4] random(1) y = GatherND(t, "
            "Unsqueeze(x, [1])) }",
        ),
        some("int64", 0, 10),
        "moves bits",
    ),
    right(
        "one-hot as a comparison",
        *pair_of(
            "opset 18 (x: int64[n]) -> (y: float32[n, 6]) { y = OneHot(x, 6, [0.0, 1.0]) }",
            "opset 18 (x: int64[n]) -> (y: float32[n, 6]) { "
            "y = Cast(Or(Equal(Unsqueeze(x, [1]), Range(0, 6, 1)), Equal(Unsqueeze(x, [1]), Range(-6, 0, "
            "1))), to=float32) }",
        ),
        some("int64", -6, 6),
        "an index from the end is 6 less",
    ),
]
