"""Cross-layer equalisation: channels of wildly different ranges between two convolutions, made alike.

For a convolution y = W₁∗x + b and one behind it, with a function f(s·y) = s·f(y) for s > 0 between them,
W₂ ∗ f(W₁∗x + b) = (W₂·diag(s)) ∗ f(diag(1/s)·W₁∗x + b/s): the channels of f(...) may have any scale (Nagel et al.,
2019, Data-free quantization through weight equalization and bias correction). One grid for the whole image serves them
best where they all reach equally far, the weights W₂ where s does not spread their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from graphopt.ir import Model, Node, Tensor, Value
from graphopt.ir.tensor import Array
from graphopt.quantize.sites import key
from graphopt.rewrite import constant_of

_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Identity", "Dropout"}
)
"""Functions of one image with f(s·y) = s·f(y) for each channel and s > 0."""
_WIDEST = 1e4
"""How far from the others a channel is scaled: what is further away is noise."""


@dataclass(frozen=True)
class Pair:
    """A convolution and the product that alone reads what it makes, which is `image` by then, as `slots` a channel."""

    first: Node
    second: Node
    image: Value
    slots: int


def equalize(model: Model, reach: Mapping[str, Array] = MappingProxyType({})) -> list[str]:
    """Rescales the channels between convolutions of `model`, in place; returns the keys of the images rescaled.

    `reach` has max |x| (C,) of each channel of an image, by its key (`sites.key`); where it has none, the largest
    weight of the channel stands for it. The channels get s = √(a / r), up to a common factor, for the reach a of a
    channel and the largest share r that it has of a row of W₂; where each channel is read alone (depthwise), s = a.
    The function that the model computes stays the same, up to the rounding of float32. What was calibrated before is
    not valid afterwards.
    """
    pairs = list(_pairs(model))
    for pair in pairs:
        _rescale(pair, reach.get(key(pair.image)))
    return [key(pair.image) for pair in pairs]


def _pairs(model: Model) -> Iterator[Pair]:
    for graph in model.scopes():
        for node in list(graph.ops()):
            if node.is_op("Conv") and _weights(node) is not None and _bias_is_known(node):
                pair = _pair(node)
                if pair is not None:
                    yield pair


def _pair(first: Node) -> Pair | None:
    value = first.output
    while value.uses == 1 and value.node.graph.consumers(value):
        reader, slot = value.node.graph.consumers(value)[0]
        if slot or reader.domain:
            return None
        if reader.op in ("Conv", "Gemm", "MatMul"):
            return _between(first, reader, value)
        if reader.op not in _HOMOGENEOUS or sum(out.uses > 0 for out in reader.outputs) != 1 or not reader.output.uses:
            return None
        value = reader.output
    return None


def _between(first: Node, second: Node, image: Value) -> Pair | None:
    weights, made = _weights(second), _weights(first)
    if weights is None or made is None or second.attr("transA", 0):
        return None
    if second.op == "Conv":
        inputs = weights.shape[1] * second.attr("group", 1)
    elif len(weights.shape) != 2 or image.rank != 2:
        return None
    else:
        inputs = weights.shape[_summed(second)]
    channels = made.shape[0]
    return Pair(first, second, image, inputs // channels) if inputs % channels == 0 else None


def _rescale(pair: Pair, reach: Array | None) -> None:
    first, second = _numbers(pair.first, 1), _numbers(pair.second, 1)
    assert first is not None
    assert second is not None
    channels = len(first)
    if reach is None:
        reach = np.abs(first).reshape(channels, -1).max(axis=1)
    s = _scales(
        reach.astype(np.float64).reshape(channels, -1).max(axis=1), _share(pair, second, channels), _alone(pair)
    )
    _set(pair.first, 1, first / s.reshape(-1, *(1,) * (first.ndim - 1)))
    bias = _numbers(pair.first, 2)
    if bias is not None:
        _set(pair.first, 2, bias / s)
    _set(pair.second, 1, second * _spread(pair, np.repeat(s, pair.slots), second))


def _scales(reach: Array, share: Array, alone: bool) -> Array:
    """s of each channel; of one that was always zero, or that nobody reads, so that it is like the others where it is
    read, or made."""
    s = np.ones(len(reach))
    made, read = (reach > 0) & np.isfinite(reach), share > 0
    known = made & read
    if not known.any():
        return s
    wanted = np.log(reach[known]) if alone else np.log(reach[known] / share[known]) / 2
    limit = np.log(_WIDEST)
    s[known] = np.exp(np.clip(wanted - np.median(wanted), -limit, limit))
    s[read & ~made] = np.median(s[known] * share[known]) / share[read & ~made]
    s[made & ~read] = reach[made & ~read] / np.median(reach[known] / s[known])
    return s


def _alone(pair: Pair) -> bool:
    """Whether each output of the second reads one channel only, so that its own scale takes up any s."""
    weights = _weights(pair.second)
    return pair.second.op == "Conv" and weights is not None and weights.shape[1] == 1


def _share(pair: Pair, weights: Array, channels: int) -> Array:
    """The largest |weight| that reads each channel, as a share of the largest of its output."""
    outputs = 0 if pair.second.op == "Conv" else 1 - _summed(pair.second)
    rows = np.abs(np.moveaxis(weights, outputs, 0)).reshape(weights.shape[outputs], -1)
    largest = rows.max(axis=1)
    shares = rows / np.where(largest > 0, largest, 1)[:, None]
    if pair.second.op != "Conv":
        return np.asarray(shares.max(axis=0).reshape(channels, -1).max(axis=1))
    group = pair.second.attr("group", 1)
    each = shares.reshape(group, len(shares) // group, weights.shape[1], -1).max(axis=(1, 3))
    return np.asarray(each.reshape(-1))


def _spread(pair: Pair, s: Array, weights: Array) -> Array:
    """s of the inputs in a shape that broadcasts over the weights of the second."""
    if pair.second.op != "Conv":
        return s.reshape(-1, 1) if _summed(pair.second) == 0 else s.reshape(1, -1)
    group = pair.second.attr("group", 1)
    rows = np.repeat(s.reshape(group, weights.shape[1]), len(weights) // group, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (weights.ndim - 2))


def _summed(node: Node) -> int:
    return 1 if node.op == "Gemm" and node.attr("transB", 0) else 0


def _weights(node: Node) -> Tensor | None:
    value = node.input(1)
    tensor = constant_of(value) if value is not None else None
    return tensor if tensor is not None and tensor.numpy().dtype == np.float32 else None


def _bias_is_known(node: Node) -> bool:
    bias = node.input(2)
    return bias is None or constant_of(bias) is not None


def _numbers(node: Node, slot: int) -> Array | None:
    value = node.input(slot)
    tensor = constant_of(value) if value is not None else None
    return None if tensor is None else tensor.numpy().astype(np.float64)


def _set(node: Node, slot: int, numbers: Array) -> None:
    """Weights of this node alone: others may read the old ones."""
    old = node.input(slot)
    stem = f"{old.resolved.name}_equalized" if old is not None else "equalized"
    node.graph.set_input(node, slot, node.graph.add_constant(Tensor.of(numbers.astype(np.float32)), stem))
