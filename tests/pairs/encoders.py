"""Whole encoders in which one thing is another: attention, masks, normalization, activations, weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pairs.base import Array, Draw, Pair, right, wrong
from pairs.blocks import HIDDEN, SIZE, changed, encoder, encoder_feeds, padded

_SCALE = 1 / np.sqrt(SIZE)
_ALL = "Mul(Cast(Unsqueeze(Sub(mask, mask), [1, 2]), to=float32), 1.0)"
_INVERTED = "Mul(Cast(Unsqueeze(mask, [1, 2]), to=float32), -1e9)"
_PLACES = "Range(0, Squeeze(Shape(ids, start=1), [0]), 1)"
_RIGHT_PADDED = (
    f"Mul(Cast(GreaterOrEqual({_PLACES}, Unsqueeze(ReduceSum(mask, [1], keepdims=1), [1, 2])), to=float32), -1e9)"
)
_CAUSAL = (
    "Add(Mul(Sub(1.0, Cast(Unsqueeze(mask, [1, 2]), to=float32)), -1e9), "
    f"Mul(Cast(Greater(Unsqueeze({_PLACES}, [0]), Unsqueeze(Add({_PLACES}, OFFSET), [1])), to=float32), -1e9))"
)
_LOWEST = "Where(Unsqueeze(Cast(mask, to=bool), [1, 2]), 0.0, FILL)"
_FIRST_ROW = (
    "Mul(Sub(1.0, Cast(Unsqueeze(Gather(mask, Mul(Range(0, Squeeze(Shape(mask, end=1), [0]), 1), 0)), [1, 2]), "
    "to=float32)), -1e9)"
)


def _edit(name: str, change: Callable[[Array], Array]) -> Callable[[dict[str, Array]], None]:
    def edit(weights: dict[str, Array]) -> None:
        weights[name] = np.ascontiguousarray(change(weights[name]))

    return edit


def _element(array: Array) -> Array:
    array = array.copy()
    array[np.unravel_index(np.abs(array).argmax(), array.shape)] *= np.float32(1.01)
    return array


def _heads_swapped(array: Array) -> Array:
    order = np.r_[SIZE : 2 * SIZE, 0:SIZE, 2 * SIZE : HIDDEN]
    return array[..., order]


def _off(name: str, feeds: Draw | None = None, reference: dict[str, Any] | None = None, **change: Any) -> Pair:
    """An encoder, and the same with `change`: under other names, unless one layer was changed."""
    base = reference or {}
    options = {"rename": "at" not in change} | base | change
    return wrong(name, changed(encoder, **base), changed(encoder, **options), feeds or padded())


def _same(name: str, reason: str, reference: dict[str, Any] | None = None, **change: Any) -> Pair:
    base = reference or {}
    options = {"rename": True} | base | change
    feeds = padded() if "batch" in base else encoder_feeds
    return right(name, changed(encoder, **base), changed(encoder, **options), feeds, reason)


WRONG = [
    *(_off(f"attention scale off by {part:g}", scale=_SCALE * (1 + part)) for part in (1e-3, 1e-2)),
    _off("attention scale off by 1e-3 in one layer of six", reference={"layers": 6}, at=2, scale=_SCALE * 1.001),
    _off("attention scale lost", scale=1.0),
    _off("attention scale of the whole width", scale=1 / np.sqrt(HIDDEN)),
    _off("mask ignored", mask=_ALL),
    _off("mask inverted", mask=_INVERTED),
    _off("right padding assumed", mask=_RIGHT_PADDED),
    _off("mask of the first row used for all", mask=_FIRST_ROW),
    _off("causality assumed", mask=_CAUSAL.replace("OFFSET", "0")),
    _off(
        "causal mask off by one",
        reference={"mask": _CAUSAL.replace("OFFSET", "0")},
        mask=_CAUSAL.replace("OFFSET", "1"),
    ),
    _off("fill of -1 where it is -1e9", mask="Mul(Sub(1.0, Cast(Unsqueeze(mask, [1, 2]), to=float32)), -1.0)"),
    _off("softmax over queries", softmax="Softmax({s}, axis=-2)"),
    _off("softmax over heads in one layer", at=1, softmax="Softmax({s}, axis=1)"),
    _off("keys not transposed to heads alike", scores="Mul(MatMul({k}, {q}), {scale})", feeds=padded(seq=SIZE)),
    _off(
        "lowest fill becomes -1e4 in a row that is masked throughout",
        padded("empty"),
        {"mask": _LOWEST.replace("FILL", "-3.4028235e38")},
        mask=_LOWEST.replace("FILL", "-10000.0"),
    ),
    _off(
        "lowest fill becomes minus infinity in a row that is masked throughout",
        padded("empty"),
        {"mask": _LOWEST.replace("FILL", "-3.4028235e38")},
        mask=_LOWEST.replace("FILL", "-inf"),
    ),
    _off(
        "lowest fill added becomes -1e4 in a row that is masked throughout beside a causal mask",
        padded("empty"),
        {"mask": _CAUSAL.replace("OFFSET", "0")},
        mask=_CAUSAL.replace("OFFSET", "0").replace("-1e9", "-1e4", 1),
    ),
    _off("layer normalization over the tokens", axis=1, norm="products", at=0),
    _off("layer normalization with epsilon times ten", eps=1e-4),
    _off("layer normalization without bias", norm="no bias"),
    _off("layer normalization without gain", norm="no gain"),
    _off("layer normalization with the cube of differences", norm="cubed"),
    _off("layer normalization with epsilon outside the root", reference={"eps": 1e-3}, norm="outside"),
    _off("root mean square for layer normalization", norm="rms"),
    _off("layer normalization for root mean square", reference={"norm": "rms"}, norm="parts"),
    _off("erf for tanh", reference={"gelu": "tanh"}, gelu="erf"),
    _off("tanh for erf", gelu="tanh"),
    _off("erf becomes tanh in one layer of twelve", reference={"layers": 12}, gelu="tanh", at=9),
    _off("quick GELU for erf", gelu="quick"),
    _off("ReLU for GELU", gelu="relu"),
    _off("the bias of a product lost", edit=_edit("l0_bo", np.zeros_like)),
    _off("the bias of the values lost", edit=_edit("l1_bv", np.zeros_like)),
    _off("square weights transposed", edit=_edit("l1_wo", np.transpose)),
    _off(
        "query and key weights exchanged with a causal mask",
        reference={"mask": _CAUSAL.replace("OFFSET", "0")},
        edit=lambda w: w.update(l0_wq=w["l0_wk"], l0_wk=w["l0_wq"]),
    ),
    _off("two heads of the values exchanged", edit=_edit("l0_wv", _heads_swapped)),
    _off("one element of a weight off by 1 %", edit=_edit("l0_w1", _element)),
    _off("one layer has another layer's weights", edit=lambda w: w.update(l1_w2=w["l0_w2"])),
    _off("weights in float16", edit=_edit("l0_w1", lambda a: a.astype(np.float16).astype(np.float32))),
    _off("positions begin at one", edit=_edit("positions", lambda a: np.roll(a, -1, 0))),
]


def _fold_scale(weights: dict[str, Array]) -> None:
    for layer in (0, 1):
        for name in (f"l{layer}_wq", f"l{layer}_bq"):
            weights[name] = (weights[name].astype(np.float64) * _SCALE).astype(np.float32)


_MODERN = {"attention": "op", "norm": "op", "gelu": "op", "opset": 23}
_ALGEBRA = "real arithmetic gives the same value: only the order of roundings is another"

RIGHT = [
    _same(
        "queries, keys and values in one product",
        "columns of a product are independent of each other",
        packed=True,
        rename=False,
    ),
    _same("linear layers as Gemm", "Gemm is MatMul and Add on the rows of all batches", linear="gemm"),
    _same("sums and products in another order", _ALGEBRA, linear="bias first", norm="products", gelu="erf half first"),
    _same("layer normalization as an op", "the op is defined by these parts", norm="op", rename=False),
    _same("GELU as an op", "the op is defined by these parts", {"opset": 20, "norm": "op"}, gelu="op"),
    _same("tanh GELU as an op", "as defined", {"opset": 20, "norm": "op", "gelu": "tanh"}, gelu="tanh op"),
    _same("tanh GELU from other products", "x + a x³ = x (1 + a x²)", {"gelu": "tanh"}, gelu="tanh products"),
    _same(
        "attention as the standard op",
        "the op adds its mask before the softmax",
        {"opset": 23, "norm": "op", "batch": 2},
        attention="op",
    ),
    _same("attention as a contrib op", "attention_bias is added before the softmax", attention="mha"),
    _same("the attention scale folded into queries", "(s x W) y = s (x W y)", edit=_fold_scale, scale=1.0),
    _same(
        "the attention scale split in two roots",
        "(√s q)(√s k) = s q k",
        scores=f"MatMul(Mul({{q}}, {float(np.sqrt(_SCALE))!r}), Mul({{k}}, {float(np.sqrt(_SCALE))!r}))",
    ),
    _same(
        "division for the attention scale", "s = 1 / √d", scores=f"Div(MatMul({{q}}, {{k}}), {float(np.sqrt(SIZE))!r})"
    ),
    _same(
        "six layers rewritten throughout",
        _ALGEBRA,
        {"layers": 6, "opset": 23, "norm": "op", "batch": 2},
        **_MODERN,
        packed=True,
    ),
    _same(
        "mask made by Where",
        "a Boolean times a number is that number or 0; −0 and 0 add alike",
        {"mask": "Mul(Cast(Equal(Unsqueeze(mask, [1, 2]), 0), to=float32), -1e9)"},
        mask="Where(Equal(Unsqueeze(mask, [1, 2]), 0), -1e9, 0.0)",
    ),
    _same("opset raised", "no op of the model changed its meaning", {"norm": "op"}, opset=21),
    _same(
        "softmax from its parts",
        "exp(s − max) / Σ exp(s − max)",
        softmax="Div(Exp(Sub({s}, ReduceMax({s}, axes=[-1], keepdims=1))), "
        "ReduceSum(Exp(Sub({s}, ReduceMax({s}, axes=[-1], keepdims=1))), [-1], keepdims=1))",
    ),
    _same("variance from moments of normalized data", "E[d²] = E[x²] − E[x]², here of values near 1", norm="moments"),
]
