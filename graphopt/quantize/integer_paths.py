"""Which activations stay integer between operators, so that a convolutional network is integer from end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphopt.ir import Model, Node, Value, dtypes
from graphopt.quantize.sites import Site, key
from graphopt.quantize.transposed import no_integers
from graphopt.rewrite import constant_of
from graphopt.rewrite.facts import attribute

_MOVES = frozenset(
    {
        *("MaxPool", "ReduceMax", "DepthToSpace", "SpaceToDepth", "Pad", "Identity"),
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Expand", "Tile", "Split"),
    }
)
"""Operators that only move or choose numbers: what they make lies on the grid of what they read."""
_SUMS = frozenset({"Add", "Mul"})
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
_FUNCTIONS = frozenset(
    {"LeakyRelu", "Sigmoid", "Swish", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Gelu", "Mish", "Softplus", "Resize"}
)
_BETWEEN = _SUMS | _MEANS | _FUNCTIONS | {"Concat", "BatchNormalization"}
"""Operators that read grids and write another."""
_IMAGES = frozenset({"Conv", "ConvTranspose"})
"""Products that have kernels which write integers, and no others."""
_CUTS = frozenset({"Relu", "Clip"})


def integer_paths(model: Model, sites: Iterable[Site]) -> set[str]:
    """The keys (`sites.key`) of the activations that get a grid, where `sites` are computed with static grids.

    A convolution writes integers, since its kernel does nothing else; a Relu or Clip behind it, which alone reads it,
    is part of it, and the value that gets the grid is what that makes. Of what is between convolutions, a sum, product,
    Concat, mean, norm or activation function stays integer iff

    - all it reads is on a grid already: made by a convolution, or by another operator that stays integer, or constant,
    - somebody who computes with integers, directly or behind what only moves numbers, reads what it makes.

    So no quantization is added for the sake of an operator that is none of the products: each saves a way to floats
    and back. What only moves numbers, or cuts them, has the grid of what it reads, and gets none of its own. MatMul
    and Gemm write floats: rounding what they make costs more than it saves.
    """
    sites = list(sites)
    products = {id(site.root.node) for site in sites}
    images = {id(site.root.node) for site in sites if writes_integers(site.root.node)}
    nodes = {id(node): node for node in model.graph.ops() if _can(node, images)}
    while True:
        written = {id(_end(node)) for node in nodes.values()}
        lost = [
            which
            for which, node in nodes.items()
            if which not in images and not (_reads(node, written) and _is_read(node, products | nodes.keys()))
        ]
        if not lost:
            return {key(_end(node)) for node in nodes.values()}
        for which in lost:
            del nodes[which]


def writes_integers(node: Node) -> bool:
    """Whether a product has a kernel that writes integers: a convolution, or a transposed one that is one in parts."""
    return node.is_op("Conv") or (node.is_op("ConvTranspose") and not no_integers(node))


def _can(node: Node, images: set[int]) -> bool:
    """Whether a node is one of the products, or an operator that may stay between them."""
    if id(node) in images:
        return True
    return not node.domain and node.op in _BETWEEN and node.output.dtype == dtypes.FLOAT


def _end(node: Node) -> Value:
    """What gets the grid: what a node makes, or the Relu or Clip makes that alone reads it."""
    value = node.output
    if node.op not in _SUMS | _IMAGES | {"BatchNormalization"}:
        return value
    readers = node.graph.consumers(value)
    if len(readers) != 1 or value.uses != 1:
        return value
    reader = readers[0][0]
    return reader.output if _cuts_around_zero(reader) else value


def _cuts_around_zero(node: Node) -> bool:
    """Whether a node is a Relu, or a Clip between constants with zero between them, so that a grid can end there."""
    if not node.is_op("Clip"):
        return node.is_op("Relu")
    low, high = attribute(node, "min"), attribute(node, "max")
    known = all(bound is None or isinstance(bound, float) for bound in (low, high))
    return known and (low or 0.0) <= 0.0 <= (high or 0.0)


def _reads(node: Node, written: set[int]) -> bool:
    """Whether all that a node reads is on a grid, or may be a constant."""
    operands = node.inputs if node.op in _SUMS or node.op == "Concat" else node.inputs[:1]
    grids = [x for x in operands if x is not None and (node.op == "Concat" or constant_of(x) is None)]
    return bool(grids) and all(id(_source(x)) in written for x in grids)


def _source(value: Value) -> Value:
    """What has the grid on which a value lies."""
    while _moves(value.node) and not _is_end(value):
        inner = value.node.inputs[0]
        assert inner is not None
        value = inner
    return value


def _is_end(value: Value) -> bool:
    """Whether a Relu or Clip is part of the operator before it."""
    inner = value.node.inputs[0]
    return value.node.op in _CUTS and inner is not None and not inner.node.is_source and _end(inner.node) is value


def _moves(node: Node) -> bool:
    if node.domain or node.is_source or node.input(0) is None or node.output.dtype != dtypes.FLOAT:
        return False
    nearest = node.op == "Resize" and node.attr("mode") == "nearest"
    return nearest or node.op in _MOVES or _cuts_around_zero(node)


def _is_read(node: Node, integer: Iterable[int]) -> bool:
    """Whether somebody who computes with integers reads what a node makes."""
    known = frozenset(integer)
    return any(id(reader) in known for reader in _readers(_end(node)))


def _readers(value: Value) -> Iterator[Node]:
    """Who reads a value, directly or behind what only moves numbers."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        for reader, slot in one.node.graph.consumers(one):
            yield reader
            if slot == 0 and _moves(reader):
                waiting += reader.outputs
