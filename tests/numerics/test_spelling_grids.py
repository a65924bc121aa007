"""One formula in all its spellings: every rule together fuses every one of them, and the numbers stay.

The spellings are products of choices: the order of operands, the bracketing, division or multiplication, attribute or
input. Braces hold the constants, which are written in three ways; a grid that would be long with all of them takes
them in turn.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from graphopt.pipeline.meanings import count_meanings, count_ops

_BATCH = 180
_CONSTANTS = {"scalar": "{}", "vector of one": "[{}]", "Constant node": "Constant(value_float={})"}
_IN_TURN = "all in turn"


@dataclass(frozen=True)
class Grid:
    """Spellings of one formula of `inputs`, the meaning that each becomes, and ops that none may leave behind."""

    spellings: Callable[[], Iterator[str]]
    inputs: str
    meaning: str
    gone: tuple[str, ...]
    opset: int = 20
    constants: tuple[str, ...] = tuple(_CONSTANTS)


# ---- choices ---------------------------------------------------------------------------------------------------------


def both(op: str, a: str, b: str) -> list[str]:
    return [f"{op}({a}, {b})", f"{op}({b}, {a})"]


def bracketed(op: str, a: str, b: str, c: str) -> Iterator[str]:
    """Three operands in three bracketings and all orders: twelve."""
    for x, y, z in ((a, b, c), (a, c, b), (b, c, a)):
        for inner in both(op, x, y):
            yield from both(op, inner, z)


def one_over(x: str) -> list[str]:
    return [f"Reciprocal({x})", f"Div({{1.0}}, {x})", f"Pow({x}, {{-1.0}})"]


def inverse_roots(x: str) -> list[str]:
    roots = [f"Sqrt({x})", f"Pow({x}, {{0.5}})"]
    turned = [one for root in roots for one in one_over(root)]
    return [*turned, f"Pow({x}, {{-0.5}})", *(f"Sqrt({one})" for one in one_over(x))]


def over_root(d: str, square: str) -> list[str]:
    """d / √s: 22."""
    divided = [f"Div({d}, Sqrt({square}))", f"Div({d}, Pow({square}, {{0.5}}))"]
    return divided + [one for inverse in inverse_roots(square) for one in both("Mul", d, inverse)]


def scaled(x: str, k: float) -> list[str]:
    return [*both("Mul", x, f"{{{k}}}"), f"Div({x}, {{{1 / k}}})"]


# ---- activations -----------------------------------------------------------------------------------------------------


def gelu_erf() -> Iterator[str]:
    for argument in ("Div(x, {1.4142135})", *both("Mul", "x", "{0.70710677}")):
        for one_more in both("Add", f"Erf({argument})", "{1.0}"):
            yield from bracketed("Mul", "x", "{0.5}", one_more)


def gelu_tanh() -> Iterator[str]:
    cubes = ("Pow(x, {3.0})", "Mul(Mul(x, x), x)", "Mul(x, Mul(x, x))")
    cubics = [total for cube in cubes for c in both("Mul", cube, "{0.044715}") for total in both("Add", "x", c)]
    inner = [one for cubic in cubics for one in both("Mul", cubic, "{0.7978845608}")]
    for square in ("Mul(x, x)", "Pow(x, {2.0})"):
        for term in both("Mul", square, "{0.044715}"):
            inner.extend(bracketed("Mul", "x", "{0.7978845608}", f"Add({term}, {{1.0}})"))
    for one in inner:
        yield f"Mul(Mul(x, {{0.5}}), Add(Tanh({one}), {{1.0}}))"
        yield f"Mul({{0.5}}, Mul(x, Add({{1.0}}, Tanh({one}))))"
        yield f"Mul(Mul(Add(Tanh({one}), {{1.0}}), {{0.5}}), x)"


def swish() -> Iterator[str]:
    for argument in ("x", *scaled("x", 1.702), *scaled("x", 0.5)):
        yield from both("Mul", "x", f"Sigmoid({argument})")
        for minus in (f"Neg({argument})", *both("Mul", argument, "{-1.0}")):
            for one_more in both("Add", f"Exp({minus})", "{1.0}"):
                yield f"Div(x, {one_more})"
                for inverse in one_over(one_more):
                    yield from both("Mul", "x", inverse)


def hard_swish() -> Iterator[str]:
    for shifted in (*both("Add", "x", "{3.0}"), "Sub(x, {-3.0})"):
        for relu6 in (f"Clip({shifted}, 0.0, 6.0)", *both("Min", f"Relu({shifted})", "{6.0}")):
            yield from bracketed("Mul", "x", relu6, "{0.16666667}")
            yield from both("Mul", "x", f"Div({relu6}, {{6.0}})")
            yield from (f"Div({product}, {{6.0}})" for product in both("Mul", "x", relu6))
    for sigmoid in ("HardSigmoid(x, alpha=0.16666667)", "Clip(Add(Mul(x, {0.16666667}), {0.5}), 0.0, 1.0)"):
        yield from both("Mul", "x", sigmoid)


def softmax() -> Iterator[str]:
    for axes in ("[-1]", "[2]", "[1]"):
        maximum = f"ReduceMax(x, AXES{axes})"
        for d in ("x", f"Sub(x, {maximum})", *both("Add", "x", f"Neg({maximum})"), f"Add(x, Mul({maximum}, {{-1.0}}))"):
            total = f"ReduceSum(Exp({d}), AXES_SUM{axes})"
            yield f"Div(Exp({d}), {total})"
            for inverse in one_over(total):
                yield from both("Mul", f"Exp({d})", inverse)


# ---- normalizations --------------------------------------------------------------------------------------------------

_MEAN = "ReduceMean({}, AXES)"
_WIDTHS = ("float32", "float16")
_GAIN, _BIAS = "float32[16] random(1)", "float32[16] random(2)"


def squares(d: str) -> list[str]:
    means = [_MEAN.format(square) for square in (f"Mul({d}, {d})", f"Pow({d}, {{2.0}})")]
    return [total for mean in means for total in both("Add", mean, "{1e-5}")]


def centred() -> list[str]:
    mean = _MEAN.format("x")
    negative = [f"Neg({mean})", *both("Mul", mean, "{-1.0}"), f"Div({mean}, {{-1.0}})"]
    return [f"Sub(x, {mean})", *(one for other in negative for one in both("Add", "x", other))]


def layer_norm() -> Iterator[str]:
    for d in centred():
        for square in squares(d):
            yield from over_root(d, square)


def rms_norm() -> Iterator[str]:
    for square in squares("x"):
        yield from over_root("x", square)


def with_gain(d: str, square: str) -> Iterator[str]:
    """A gain in every place."""
    for root in (f"Sqrt({square})", f"Pow({square}, {{0.5}})"):
        for one in both("Mul", d, _GAIN):
            yield f"Div({one}, {root})"
        yield from both("Mul", d, f"Div({_GAIN}, {root})")
        yield from both("Mul", _GAIN, f"Div({d}, {root})")
    for inverse in inverse_roots(square):
        yield from bracketed("Mul", d, _GAIN, inverse)


def layer_norm_affine() -> Iterator[str]:
    d = f"Sub(x, {_MEAN.format('x')})"
    for gained in with_gain(d, squares(d)[0]):
        yield from (gained, *both("Add", gained, _BIAS))


def layer_norm_shifted() -> Iterator[str]:
    """TensorFlow's batch_normalization: x·s + (b − mean·s)."""
    mean = _MEAN.format("x")
    for inverse in inverse_roots(squares(f"Sub(x, {mean})")[0]):
        for scale in both("Mul", inverse, _GAIN):
            for scaled_x, scaled_mean in itertools.product(both("Mul", "x", scale), both("Mul", mean, scale)):
                yield from both("Add", scaled_x, f"Sub({_BIAS}, {scaled_mean})")


def rms_norm_gain() -> Iterator[str]:
    for square in squares("x"):
        yield from with_gain("x", square)


def plain_norm(centre: bool) -> Iterator[str]:
    d = f"Sub(x, {_MEAN.format('x')})" if centre else "x"
    for square in squares(d):
        yield from (f"Div({d}, Sqrt({square}))", *both("Mul", d, f"Reciprocal(Sqrt({square}))"))


def over_axes(axes: str) -> Iterator[str]:
    """A norm over axes that are written in several ways, each mean in its own."""
    ways = {"one": ("[-1]", "[2]"), "two": ("[-2, -1]", "[-1, -2]", "[1, 2]", "[2, 1]", "[1, -1]", "[-1, 1]")}[axes]
    for text in plain_norm(centre=True):
        for first, second in itertools.product(ways, repeat=2):
            halves = text.split("ReduceMean(x, AXES)")
            yield f"ReduceMean(x, AXES{first})".join(half.replace("AXES)", f"AXES{second})") for half in halves)


def rms_norm_half() -> Iterator[str]:
    """LLaMA in float16: up, normalize, down, and the gain."""
    up = "Cast(x, to=float32)"
    for square in squares(up):
        for inner in over_root(up, square):
            yield from both("Mul", f"Cast({inner}, to=float16)", "float16[16] random(1)")


def layer_norm_half() -> Iterator[str]:
    """Up to float32, normalize, down to float16: gain and bias above or below."""
    up = "Cast(x, to=float32)"
    d = f"Sub({up}, {_MEAN.format(up)})"
    gain, bias, half_gain, half_bias = (f"{dtype}[16] {number}" for dtype in _WIDTHS for number in (0.5, 0.25))
    for square in squares(d):
        for inner in (f"Div({d}, Sqrt({square}))", *both("Mul", d, f"Reciprocal(Sqrt({square}))")):
            narrow = f"Cast({inner}, to=float16)"
            yield from (narrow, *both("Mul", narrow, half_gain), f"Add(Mul({narrow}, {half_gain}), {half_bias})")
            for gained in both("Mul", inner, gain):
                yield f"Cast({gained}, to=float16)"
                yield from (f"Cast({one}, to=float16)" for one in both("Add", gained, bias))
                yield from both("Add", f"Cast({gained}, to=float16)", half_bias)


def layer_norm_wide_variance() -> Iterator[str]:
    """The mean in float16, the variance in float32: what TorchScript makes of a half precision norm."""
    d = f"Cast(Sub(x, {_MEAN.format('x')}), to=float32)"
    for square in squares(d):
        yield from (f"Cast({one}, to=float16)" for one in over_root(d, square))


def l2_norm() -> Iterator[str]:
    sums = [f"ReduceSum({square}, AXES_SUM)" for square in ("Mul(x, x)", "Pow(x, {2.0})")]
    sums.append("ReduceSumSquare(x, AXES)")
    for total in (*sums, *(one for each in sums for one in both("Add", each, "{1e-5}"))):
        yield from over_root("x", total)
    for inverse in one_over("ReduceL2(x, AXES)"):
        yield from both("Mul", "x", inverse)
    yield "Div(x, ReduceL2(x, AXES))"


# ---- attention -------------------------------------------------------------------------------------------------------

_HEADS = (
    "q: float32[B, 2, S, 8], kt: float32[B, 2, 8, T], v: float32[B, 2, T, 4], "
    "m: float32[B, 1, 1, T], n: float32[1, 2, S, T], c: bool[B, 1, S, T]"
)


def scores() -> Iterator[str]:
    """q·kᵀ with a scale on either side, on the product, on several of them (two square roots) or nowhere."""
    for q, kt in itertools.product(["q", *scaled("q", 0.5)], ["kt", *scaled("kt", 0.5)]):
        product = f"MatMul({q}, {kt})"
        yield from (product, *scaled(product, 0.5))


def masked(s: str) -> Iterator[str]:
    """Scores with a mask that is added or filled in; each form is exact for rows with nothing allowed as well."""
    yield s
    yield from both("Add", s, "m")
    yield from bracketed("Add", s, "m", "n")
    yield f"Sub({s}, m)"
    for low in ("-inf", "-3.4028234663852886e38"):
        yield from (f"Where(c, {s}, {{{low}}})", f"Where(Not(c), {{{low}}}, {s})")
        yield f"Where(c, Add({s}, n), {{{low}}})"
    for low in ("-inf", "-3.4028234663852886e38", "-1e9", "-1e4"):
        for mask in (f"Where(c, {{0.0}}, {{{low}}})", f"Where(Not(c), {{{low}}}, {{0.0}})"):
            yield from both("Add", s, mask)
    allowed = "Cast(c, to=float32)"
    for denied in (f"Sub({{1.0}}, {allowed})", "Cast(Not(c), to=float32)"):
        for product in both("Mul", denied, "{-10000.0}"):
            yield from both("Add", s, product)
        yield f"Sub({s}, Mul({denied}, {{10000.0}}))"
    yield from both("Add", s, f"Mul(Sub({allowed}, {{1.0}}), {{10000.0}})")


def attended(biased: str, guard: bool, axis: int) -> str:
    weights = f"Softmax({biased}, axis={axis})"
    return f"MatMul({f'Where(IsNaN({weights}), {{0.0}}, {weights})' if guard else weights}, v)"


def attention_scales() -> Iterator[str]:
    for s, mask, guard in itertools.product(scores(), (False, True), (False, True)):
        yield attended(f"Add({s}, m)" if mask else s, guard, 3 if guard else -1)


def attention_masks() -> Iterator[str]:
    for s in ("MatMul(q, kt)", "Div(MatMul(q, kt), {2.0})", "MatMul(Mul(q, {0.5}), Div(kt, {2.0}))"):
        for biased, guard in itertools.product(masked(s), (False, True)):
            yield attended(biased, guard, -1 if guard else 3)


# ---- the grids -------------------------------------------------------------------------------------------------------

_X = "x: float32[B, S, 16]"
_H = "x: float16[B, S, 16]"
_TURN = (_IN_TURN,)
_NORM_GONE = ("ReduceMean", "Sqrt", "Pow", "Reciprocal", "Div", "Mul", "Sub", "Add", "Neg")
_L2_GONE = ("ReduceSum", "ReduceSumSquare", "ReduceL2", "Sqrt", "Pow", "Reciprocal", "Div", "Mul", "Add")
_ATTENTION_GONE = ("Softmax", "MatMul", "Div")
GRIDS = {
    "erf-GELU": Grid(gelu_erf, _X, "Gelu", ("Erf", "Mul", "Div", "Add")),
    "tanh-GELU": Grid(gelu_tanh, _X, "Gelu", ("Tanh", "Mul", "Pow", "Add")),
    "Swish": Grid(swish, _X, "Swish", ("Sigmoid", "Exp", "Mul", "Div", "Reciprocal")),
    "HardSwish": Grid(hard_swish, _X, "HardSwish", ("Clip", "Min", "Relu", "Mul", "Div", "Add")),
    **{
        f"softmax, opset {opset}": Grid(softmax, _X, "Softmax", ("Exp", "ReduceSum", "ReduceMax", "Sub", "Div"), opset)
        for opset in (13, 20)
    },
    "LayerNorm": Grid(layer_norm, _X, "LayerNormalization", _NORM_GONE, constants=_TURN),
    "LayerNorm, gain and bias": Grid(layer_norm_affine, _X, "LayerNormalization", _NORM_GONE, constants=_TURN),
    "LayerNorm, shifted": Grid(layer_norm_shifted, _X, "LayerNormalization", _NORM_GONE, constants=_TURN),
    **{
        f"LayerNorm, {axes} axes, opset {opset}": Grid(
            lambda axes=axes: over_axes(axes), "x: float32[B, 4, 16]", "LayerNormalization", _NORM_GONE, opset, _TURN
        )
        for axes, opset in (("one", 11), ("one", 18), ("two", 13), ("two", 20))
    },
    "LayerNorm, float16": Grid(layer_norm_half, _H, "LayerNormalization", (*_NORM_GONE, "Cast"), constants=_TURN),
    "LayerNorm, wide variance": Grid(
        layer_norm_wide_variance, _H, "LayerNormalization", (*_NORM_GONE, "Cast"), constants=_TURN
    ),
    **{f"L2 norm, opset {opset}": Grid(l2_norm, _X, "RMSNormalization", _L2_GONE, opset, _TURN) for opset in (11, 20)},
    "RMSNorm": Grid(rms_norm, _X, "RMSNormalization", _NORM_GONE),
    "RMSNorm, gain": Grid(rms_norm_gain, _X, "RMSNormalization", _NORM_GONE, constants=_TURN),
    "RMSNorm, float16": Grid(rms_norm_half, _H, "RMSNormalization", (*_NORM_GONE, "Cast"), constants=_TURN),
    **{
        f"RMSNorm, opset {opset}": Grid(lambda: plain_norm(centre=False), _X, "RMSNormalization", _NORM_GONE, opset)
        for opset in (11, 17, 18, 23)
    },
    "attention, scales": Grid(attention_scales, _HEADS, "Attention", (*_ATTENTION_GONE, "Mul"), constants=_TURN),
    "attention, masks": Grid(attention_masks, _HEADS, "Attention", _ATTENTION_GONE, constants=_TURN),
}


@pytest.mark.parametrize("name", GRIDS)
def test_every_spelling_is_fused(name: str, laboratory: Any) -> None:
    grid = GRIDS[name]
    fused = dict.fromkeys(grid.constants, 0)
    texts = list(dict.fromkeys(grid.spellings()))
    missed: list[str] = []
    for constant in grid.constants:
        written = [_written(text, constant, number, grid.opset) for number, text in enumerate(texts)]
        for start in range(0, len(written), _BATCH):
            batch = written[start : start + _BATCH]
            whole = _side_by_side(batch, grid.inputs)
            model, _ = laboratory.optimized(whole, grid.opset)
            ops = count_ops(model)
            found = count_meanings(ops).get(grid.meaning, 0)
            fused[constant] += found
            if found < len(batch) or any(ops[op] for op in grid.gone):
                missed.extend(_missed(batch, grid, laboratory))
            laboratory.assert_same_numbers(whole, model, grid.opset)
    print(f"{name}: " + ", ".join(f"{count}/{len(texts)} {constant}" for constant, count in fused.items()))
    assert not missed, f"{len(missed)} spellings are not fused:\n" + "\n".join(missed[:20])
    assert set(fused.values()) == {len(texts)}


def _missed(batch: list[str], grid: Grid, laboratory: Any) -> Iterator[str]:
    """The spellings of a batch that, alone, are not fused to one op."""
    for text in batch:
        model, _ = laboratory.optimized(f"({grid.inputs}) -> (y) {{ y = {text} }}", grid.opset)
        ops = count_ops(model)
        if count_meanings(ops) != {grid.meaning: 1} or any(ops[op] for op in grid.gone):
            left = Counter({op: count for op, count in ops.items() if op in grid.gone})
            yield f"{text}: {dict(left)}"


def _written(text: str, constant: str, number: int, opset: int) -> str:
    """A spelling with its constants, each in braces, and its axes as its opset has them."""
    forms = list(_CONSTANTS.values())
    form = forms[number % len(forms)] if constant == _IN_TURN else _CONSTANTS[constant]
    text = text.replace("AXES)", "AXES[-1])").replace("AXES_SUM)", "AXES_SUM[-1])")
    text = text.replace("AXES_SUM", "" if opset >= 13 else "axes=").replace("AXES", "" if opset >= 18 else "axes=")
    head, *rest = text.split("{")
    return head + "".join(form.format(*part.split("}")[:1]) + part.split("}")[1] for part in rest)


def _side_by_side(texts: list[str], inputs: str) -> str:
    """One graph of all of them. Each has inputs of its own: a part that two share is not fused."""
    names = [name.partition(":")[0].strip() for name in inputs.split(", ") if ":" in name]
    body = "".join(f"y{number} = {_numbered(text, names, number)}\n" for number, text in enumerate(texts))
    parameters = ", ".join(_numbered(inputs, names, number) for number in range(len(texts)))
    outputs = ", ".join(f"y{number}" for number in range(len(texts)))
    return f"({parameters}) -> ({outputs}) {{\n{body}}}"


def _numbered(text: str, names: list[str], number: int) -> str:
    for name in names:
        for before, after in itertools.product("( ", ",):"):
            text = text.replace(f"{before}{name}{after}", f"{before}{name}_{number}{after}")
        if text.startswith(f"{name}:"):
            text = f"{name}_{number}{text[len(name) :]}"
    return text
