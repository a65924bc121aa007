"""NaN, infinities and zeros of both signs; what overflows, what vanishes; what holds for positive numbers only."""

from __future__ import annotations

import numpy as np

from pairs.base import Draw, Feeds, Make, f32, given, pair_of, right, wrong

_NAN, _INF = float("nan"), float("inf")


def of(
    reference: str,
    candidate: str,
    out: str = "float32[n]",
    opset: int = 18,
    kind: str = "float32[n]",
    keep: bool = False,
) -> tuple[Make, Make]:
    """Two bodies on x [n] that give y."""
    head = f"opset {opset} (x: {kind}) -> (y: {out}) {{ "
    return pair_of(f"{head}{reference} }}", f"{head}{candidate} }}", keep=keep)


def xs(*values: float) -> Draw:
    """One vector."""
    return given(x=f32(*values))


def rows(rng: np.random.Generator) -> Feeds:
    """Normal rows of any number and width."""
    return {"x": rng.standard_normal((int(rng.integers(1, 5)), int(rng.integers(1, 9)))).astype(np.float32)}


def vector(rng: np.random.Generator) -> Feeds:
    """A normal vector with a zero of each sign, infinities and NaN."""
    plain = rng.standard_normal(int(rng.integers(1, 40)))
    return {"x": np.r_[plain, 0.0, -0.0, _INF, -_INF, _NAN, 1e30, -1e-30].astype(np.float32)}


def calm(rng: np.random.Generator) -> Feeds:
    """A normal vector."""
    return {"x": rng.standard_normal(int(rng.integers(1, 40))).astype(np.float32)}


_ROWS = "float32[m, n]"
_UNSAFE = "e = Exp({x}) y = Div(e, ReduceSum(e, [1]))"

WRONG = [
    wrong(
        "x times 0 is 0",
        *of("y = Add(Mul(x, 0.0), 1.0)", "y = Add(Mul(Max(Min(x, 1.0), -1.0), 0.0), 1.0)"),
        xs(1, _INF),
    ),
    wrong("x less x is 0", *of("y = Sub(x, x)", "y = Cast(Less(x, x), to=float32)"), xs(1, _INF, _NAN)),
    wrong("x through x is 1", *of("y = Div(x, x)", "y = Expand(1.0, Shape(x))"), xs(1, 0)),
    wrong(
        "a mask multiplied, not chosen",
        *pair_of(
            "opset 18 (x: float32[n], m: bool[n]) -> (y: float32[n]) { y = Where(m, x, 0.0) }",
            "opset 18 (x: float32[n], m: bool[n]) -> (y: float32[n]) { y = Mul(x, Cast(m, to=float32)) }",
        ),
        given(x=f32(1, _INF, 2), m=np.array([True, False, False])),
    ),
    wrong("ReLU by a choice", *of("y = Relu(x)", "y = Where(Greater(x, 0.0), x, 0.0)"), xs(1, -1, _NAN)),
    wrong("maximum with NaN is the other", *of("y = Max(x, nan)", "y = Identity(x)"), xs(1, -1)),
    wrong("negation as a difference from 0", *of("y = Reciprocal(Neg(x))", "y = Reciprocal(Sub(0.0, x))"), xs(1, 0)),
    wrong("adding 0 dropped", *of("y = Div(1.0, Add(x, 0.0))", "y = Div(1.0, x)"), xs(1, -0.0)),
    wrong(
        "greater for not less or equal",
        *of("y = Not(LessOrEqual(x, 0.5))", "y = Greater(x, 0.5)", "bool[n]"),
        xs(1, _NAN),
    ),
    wrong("x equals itself", *of("y = Equal(x, x)", "y = Expand(true, Shape(x))", "bool[n]"), xs(1, _NAN)),
    wrong(
        "a guard against NaN dropped", *of("l = Log(x) y = Where(IsNaN(l), 0.0, l)", "y = Log(x)", keep=True), xs(1, -1)
    ),
    wrong(
        "infinity taken for both signs",
        *of("y = IsInf(x, detect_negative=0)", "y = IsInf(x)", "bool[n]"),
        xs(1, -_INF, _INF),
    ),
    wrong("clips in the other order", *of("y = Min(Max(x, 3.0), 1.0)", "y = Max(Min(x, 1.0), 3.0)"), xs(0, 2)),
    wrong("clip bounds exchanged in part", *of("y = Clip(x, -1.0, 2.0)", "y = Clip(x, -2.0, 1.0)"), xs(1.5, -1.5)),
    wrong("absolute value dropped", *of("y = Sqrt(Abs(x))", "y = Sqrt(x)", keep=True), xs(1, -4)),
    wrong("root of a square is x", *of("y = Sqrt(Mul(x, x))", "y = Identity(x)"), xs(1, -4)),
    wrong("log of a square is twice the log", *of("y = Log(Mul(x, x))", "y = Mul(2.0, Log(x))"), xs(1, -4)),
    wrong(
        "product of roots",
        *pair_of(
            "opset 18 (x: float32[n], z: float32[n]) -> (y: float32[n]) { y = Sqrt(Mul(x, z)) }",
            "opset 18 (x: float32[n], z: float32[n]) -> (y: float32[n]) { y = Mul(Sqrt(x), Sqrt(z)) }",
        ),
        given(x=f32(1, -4), z=f32(2, -9)),
    ),
    wrong(
        "softmax without its maximum",
        *of("y = Softmax(x, axis=1)", _UNSAFE.format(x="x"), _ROWS, kind=_ROWS),
        given(x=f32(1, 100, 2, 3).reshape(2, 2)),
    ),
    wrong(
        "log of a sum of exponentials unshifted",
        *of("y = ReduceLogSumExp(x, [1])", "y = Log(ReduceSum(Exp(x), [1]))", "float32[m, 1]", kind=_ROWS),
        given(x=f32(1, 100, -200, -201).reshape(2, 2)),
    ),
    wrong("softplus unguarded", *of("y = Softplus(x)", "y = Log(Add(1.0, Exp(x)))"), xs(1, 100)),
    wrong("sigmoid by its exponential", *of("y = Sigmoid(x)", "e = Exp(x) y = Div(e, Add(e, 1.0))"), xs(1, 100)),
    wrong(
        "tanh by exponentials", *of("y = Tanh(x)", "e = Exp(Mul(x, 2.0)) y = Div(Sub(e, 1.0), Add(e, 1.0))"), xs(1, 60)
    ),
    wrong(
        "norm whose squares overflow",
        *of(
            "m = ReduceMax(Abs(x)) y = Mul(m, Sqrt(ReduceSumSquare(Div(x, m))))",
            "y = Sqrt(ReduceSumSquare(x))",
            "float32[1]",
        ),
        xs(1e25, 1e25),
    ),
    wrong(
        "epsilon of a quotient dropped",
        *of("y = Div(x, Sqrt(Add(ReduceMean(Mul(x, x)), 1e-6)))", "y = Div(x, Sqrt(ReduceMean(Mul(x, x))))"),
        xs(1e-3, -2e-3),
    ),
    wrong(
        "L2 normalization of nothing", *of("y = Div(x, Max(ReduceL2(x), 1e-12))", "y = Div(x, ReduceL2(x))"), xs(0, 0)
    ),
    wrong("power as a product, one factor short", *of("y = Pow(x, 3.0)", "y = Mul(x, Abs(x))"), xs(1, -2)),
    wrong(
        "variance with another divisor",
        *of(
            "m = ReduceMean(x, [1]) y = ReduceMean(Mul(Sub(x, m), Sub(x, m)), [1])",
            "m = ReduceMean(x, [1]) y = Div(ReduceSum(Mul(Sub(x, m), Sub(x, m)), [1]), "
            "Cast(Sub(Shape(x, start=1), 1), to=float32))",
            "float32[m, 1]",
            kind=_ROWS,
        ),
        given(x=f32(1, 2, 3, 5).reshape(1, 4)),
    ),
    wrong(
        "hard sigmoid with other constants",
        *of("y = HardSigmoid(x)", "y = HardSigmoid(x, alpha=0.16666667)"),
        xs(1, -1),
    ),
    wrong("ELU as SELU", *of("y = Elu(x)", "y = Selu(x)"), xs(1, -1)),
    wrong(
        "moments of data far from zero",
        *of(
            "m = ReduceMean(x, [1]) d = Sub(x, m) y = Sqrt(ReduceMean(Mul(d, d), [1]))",
            "m = ReduceMean(x, [1]) y = Sqrt(Max(Sub(ReduceMean(Mul(x, x), [1]), Mul(m, m)), 0.0))",
            "float32[m, 1]",
            kind=_ROWS,
        ),
        lambda rng: {"x": (1e4 + rng.standard_normal((2, 8))).astype(np.float32)},
    ),
]

_BOUNDED = "b = Clip(x, -10.0, 10.0) "

RIGHT = [
    right(
        "square as a power",
        *of("y = Mul(x, x)", "y = Pow(x, 2.0)", keep=True),
        vector,
        "x·x = x², of every sign, infinity and NaN",
    ),
    right(
        "quotient by a power of two",
        *of("y = Div(x, 8.0)", "y = Mul(x, 0.125)", keep=True),
        vector,
        "powers of two have exact reciprocals",
    ),
    right(
        "negation twice", *of("y = Add(Neg(Neg(x)), 1.0)", "y = Add(x, 1.0)"), vector, "the sign bit is flipped twice"
    ),
    right(
        "addition of −0 dropped",
        *of("y = Reciprocal(Add(x, -0.0))", "y = Reciprocal(x)"),
        vector,
        "x + −0 = x for either zero",
    ),
    right("product with one dropped", *of("y = Exp(Mul(x, 1.0))", "y = Exp(x)"), vector, "x·1 = x"),
    right(
        "difference as the sum with the negative",
        *of("y = Sub(2.0, x)", "y = Add(Neg(x), 2.0)"),
        vector,
        "IEEE: a − b = a + (−b)",
    ),
    right(
        "softmax without its maximum on bounded data",
        *of(_BOUNDED + "y = Softmax(b, axis=1)", _BOUNDED + _UNSAFE.format(x="b"), _ROWS, kind=_ROWS),
        rows,
        "e^10 times any width stays far below the largest float",
    ),
    right(
        "log softmax as log of softmax on bounded data",
        *of(_BOUNDED + "y = LogSoftmax(b, axis=1)", _BOUNDED + "y = Log(Softmax(b, axis=1))", _ROWS, kind=_ROWS),
        rows,
        "no probability is below e^-20 / width",
    ),
    right(
        "variance of bounded data from moments",
        *of(
            "b = Tanh(x) m = ReduceMean(b, [1]) d = Sub(b, m) y = Add(ReduceMean(Mul(d, d), [1]), 1.0)",
            "b = Tanh(x) m = ReduceMean(b, [1]) y = Add(Sub(ReduceMean(Mul(b, b), [1]), Mul(m, m)), 1.0)",
            "float32[m, 1]",
            kind=_ROWS,
        ),
        rows,
        "E[d²] = E[b²] − E[b]²; b is at most 1, so what cancellation leaves is a rounding of 1, beside "
        "the 1 that is added",
    ),
    right(
        "sigmoid as tanh",
        *of("b = Tanh(x) y = Sigmoid(b)", "b = Tanh(x) y = Add(Mul(Tanh(Mul(b, 0.5)), 0.5), 0.5)", keep=True),
        calm,
        "σ(x) = (1 + tanh(x/2)) / 2, here where neither half is small",
    ),
    right(
        "exponentials of a sum multiplied on bounded data",
        *pair_of(
            "opset 18 (x: float32[n], z: float32[n]) -> (y: float32[n]) { a = Tanh(x) b = Tanh(z) y = Exp(Add(a, b)) }",
            "opset 18 (x: float32[n], z: float32[n]) -> (y: float32[n]) { a = Tanh(x) b = Tanh(z) y = "
            "Mul(Exp(a), Exp(b)) }",
        ),
        lambda rng: {"x": rng.standard_normal(5).astype("f4"), "z": rng.standard_normal(5).astype("f4")},
        "e^(a+b) = e^a e^b",
    ),
    right(
        "half sums in another order",
        *pair_of(
            "opset 18 (x: float16[n, 32]) -> (y: float16[n, 32]) { w = float16[32, 32] random(1) v = "
            "float16[32] random(2) "
            "y = Add(MatMul(x, w), v) }",
            "opset 18 (x: float16[n, 32]) -> (y: float16[n, 32]) { w = float16[32, 32] random(1) v = "
            "float16[32] random(2) "
            "a, b = Split(x, axis=1, num_outputs=2) y = Add(MatMul(a, Slice(w, [0], [16], [0])), "
            "Add(v, MatMul(b, Slice(w, [16], [32], [0])))) }",
        ),
        lambda rng: {"x": rng.standard_normal((3, 32)).astype(np.float16)},
        "a sum in two parts",
    ),
    right(
        "half through float",
        *of("y = Tanh(x)", "y = Cast(Tanh(Cast(x, to=float32)), to=float16)", "float16[n]", kind="float16[n]"),
        lambda rng: {"x": rng.standard_normal(7).astype(np.float16)},
        "a finer step in between",
    ),
    right(
        "doubles in another order",
        *of(
            "y = Add(Mul(x, float64 0.1), Mul(x, float64 0.2))",
            "y = Mul(x, float64 0.30000000000000004)",
            "float64[n]",
            kind="float64[n]",
        ),
        lambda rng: {"x": rng.standard_normal(7)},
        "a factor taken out",
    ),
    right(
        "clip as minimum and maximum", *of("y = Clip(x, -1.0, 2.0)", "y = Min(Max(x, -1.0), 2.0)"), calm, "as defined"
    ),
    right(
        "layer of a constant folded",
        *of(
            "c = float32[4] random(3) y = Add(x, ReduceSum(Mul(c, Exp(c))))",
            "c = float32[4] random(3) y = Add(ReduceSum(Mul(Exp(c), c)), x)",
        ),
        calm,
        "both sums are commutative",
    ),
]
