"""Decoder steps with a cache and convolutional nets in which one thing is another."""

from __future__ import annotations

from typing import Any

import numpy as np

from pairs.base import Array, Draw, Pair, right, wrong
from pairs.blocks import SIZE, any_image, changed, cnn, decoder, decoder_feeds, image

_SCALE = 1 / np.sqrt(SIZE)


def _step(name: str, reference: dict[str, Any] | None = None, **change: Any) -> Pair:
    base = reference or {}
    return wrong(name, changed(decoder, **base), changed(decoder, rename=True, **base | change), decoder_feeds)


def _same_step(name: str, reason: str, **change: Any) -> Pair:
    return right(name, changed(decoder), changed(decoder, rename=True, **change), decoder_feeds, reason)


def _net(name: str, feeds: Draw | None = None, reference: dict[str, Any] | None = None, **change: Any) -> Pair:
    base = reference or {}
    return wrong(name, changed(cnn, **base), changed(cnn, rename=True, **base | change), feeds or image())


def _same_net(name: str, reason: str, **change: Any) -> Pair:
    return right(name, changed(cnn), changed(cnn, rename=True, **change), any_image, reason)


def _folded(weights: dict[str, Array]) -> None:
    """w·s and (b − mean)·s + bias for s = gain / √(var + ε)."""
    s = weights["gain"].astype(np.float64) / np.sqrt(weights["var"].astype(np.float64) + 1e-3)
    bias = (weights["b1"] - weights["mean"].astype(np.float64)) * s + weights["bias"]
    weights["w1"] = (weights["w1"] * s[:, None, None, None]).astype(np.float32)
    weights["b1"] = bias.astype(np.float32)


def _folded_without_epsilon(weights: dict[str, Array]) -> None:
    weights["var"] = weights["var"] - np.float32(1e-3)
    _folded(weights)


WRONG = [
    _step("rotary positions interleaved", rotary="interleaved"),
    _step("rotary positions turned the other way, for keys and queries of one step", rotary="negative"),
    _step(
        "rotary positions begin anew after the past",
        angles="Mul(Cast(Unsqueeze(Range(0, Squeeze(now, [0]), 1), [1]), to=float32), frequencies)",
    ),
    _step("cache after the new tokens", cache="past last"),
    _step("key heads tiled", repeat="tile"),
    _step("causal mask one step late in a decoder", causal=1),
    _step("decoder scale off by 1e-3", scale=_SCALE * 1.001),
    _step("layer normalization for root mean square in a decoder", norm="layer"),
    _step("root mean square with epsilon times a thousand", eps=1e-3),
    _step("GELU for SiLU", gate="gelu"),
    _step("future masked with 0", fill=0.0),
    _net("batch normalization folded without epsilon", bn="Identity(c1)", edit=_folded_without_epsilon),
    _net("batch normalization with another epsilon", bn="BatchNormalization(c1, gain, bias, mean, var, epsilon=1e-5)"),
    _net("mean and variance exchanged", bn="BatchNormalization(c1, gain, bias, Sqrt(Abs(mean)), var, epsilon=1e-3)"),
    _net("pads on the other side", stem="Conv(x, w1, b1, pads=[0, 0, 2, 2], strides=[2, 2])"),
    _net("dilated convolution", depthwise="Conv(p1, w2, b2, pads=[2, 2, 2, 2], dilations=[2, 2], group=8)"),
    _net("convolution without bias", depthwise="Conv(p1, w2, pads=[1, 1, 1, 1], group=8)"),
    _net(
        "activation before normalization",
        bn="BatchNormalization(Relu(c1), gain, bias, mean, var, epsilon=1e-3)",
        act="Identity(n1)",
    ),
    _net("average for maximum", pool="AveragePool(a1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])"),
    _net(
        "average counts the pads",
        image(13, 13),
        {"pool": "AveragePool(a1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])"},
        pool="AveragePool(a1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)",
    ),
    _net(
        "pooling of odd sizes rounds up",
        image(14, 14),
        {"pool": "MaxPool(a1, kernel_shape=[2, 2], strides=[2, 2])"},
        pool="MaxPool(a1, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)",
    ),
    _net(
        "Pad and MaxPool merged on negative data",
        image(),
        {
            "act": "Identity(n1)",
            "pool": "MaxPool(Pad(n1, [0, 0, 1, 1, 0, 0, 1, 1]), kernel_shape=[3, 3], strides=[2, 2])",
        },
        pool="MaxPool(n1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])",
    ),
    _net("classes transposed", edit=lambda w: w.update(w3=np.ascontiguousarray(w["w3"][::-1]))),
    _net("leaky ReLU as ReLU", reference={"act": "LeakyRelu(n1, alpha=0.01)"}, act="Relu(n1)"),
    _net(
        "ReLU6 as ReLU",
        lambda rng: {"x": 20 * rng.standard_normal((1, 3, 9, 9)).astype(np.float32)},
        {"act": "Clip(n1, 0.0, 6.0)"},
        act="Relu(n1)",
    ),
]

RIGHT = [
    _same_step("rotary positions by concatenation", "x·cos + turn(x)·sin, the same products", rotary="concat"),
    _same_step("key heads repeated by Gather", "moves bits", repeat="gather"),
    _same_step("root mean square with a reciprocal", "1/√v = reciprocal(√v), x·x = x²", norm="power"),
    _same_step("root mean square as an op", "the op is defined by these parts", norm="op", opset=23),
    _same_step("SiLU as a division", "x·σ(x) = x / (1 + e^-x), both 0 or x where e^-x leaves the range", gate="div"),
    _same_step("a decoder of a newer opset", "no op of the model changed its meaning", opset=22),
    _same_net(
        "batch normalization folded into a convolution",
        "(w·x + b − m)·s + β = (s·w)·x + (b − m)·s + β",
        bn="Identity(c1)",
        edit=_folded,
    ),
    _same_net(
        "pad taken into a convolution",
        "a convolution pads with zeros too",
        stem="Conv(Pad(x, [0, 0, 1, 1, 0, 0, 1, 1]), w1, b1, strides=[2, 2])",
    ),
    _same_net(
        "global pooling as a mean",
        "GlobalAveragePool is the mean over both axes",
        head="ReduceMean(Relu(s1), [2, 3], keepdims=0)",
    ),
    _same_net("ReLU as a maximum", "as defined, NaN goes through both", act="Max(n1, 0.0)"),
    _same_net("Gemm as a product", "Gemm is MatMul and Add", result="Add(MatMul(f1, Transpose(w3, perm=[1, 0])), b3)"),
    _same_net(
        "maximum pool of a ReLU padded with zeros",
        "no element is below 0",
        pool="MaxPool(Pad(a1, [0, 0, 1, 1, 0, 0, 1, 1]), kernel_shape=[3, 3], strides=[2, 2])",
    ),
]
