"""The products of a model whose weights are constants: what can be quantized, and which of them are alike."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphopt.errors import UsageError, near
from graphopt.ir import Graph, Model, Node, Tensor, Value, dtypes
from graphopt.quantize.transposed import no_integers
from graphopt.rewrite import constant_of

_WEIGHTS = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "LSTM": 1, "GRU": 1}
"""The slot in which each product reads its weights."""
_PLAIN = {
    *("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand"),
    *("Slice", "Split", "Dropout", "DequantizeLinear", "QuantizeLinear"),
}
"""Operators that move values, which say nothing of what a product is for."""
_FINISHES = ("Add", "Relu", "Clip")
"""Operators that rules may take in one with a product."""
_PART = 1 << 20
"""How many weights are looked at at once."""
_FEW = 6
"""How many such operators in a row are looked through."""


@dataclass(frozen=True, eq=False)
class Site:
    """One product of an activation with constant weights, in a model that is fused and not yet lowered.

    `name` is that of the value it makes, behind the names of what holds its scope; `ends` those of what is made of it
    by sums and cuts alone as well, of which one is in every model that computes it. `input` is the activation's.
    `weights` are summed over `axis`, and `channels` is the axis of output channels. `macs` are the multiplications of
    one row of the activation (of one place of an image). `group` names the sites of equal structure, of which the first
    gives the name. `refusal` says why the site stays as it is, whatever was asked for; empty where it need not.
    """

    name: str
    ends: tuple[str, ...]
    op: str
    root: Value
    input: str
    activation: Value
    weights: Tensor
    weights_name: str
    axis: int
    channels: int
    group: str
    refusal: str = ""

    @property
    def nested(self) -> bool:
        """Whether it stands in a subgraph, whose values no calibration sees."""
        return self.root.node.graph.holder is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weights.shape

    @property
    def macs(self) -> int:
        return math.prod(self.weights.shape)

    @property
    def is_finite(self) -> bool:
        """Whether all weights are numbers; it reads them, a part at a time."""
        flat = self.weights.numpy().reshape(-1)
        return all(np.isfinite(flat[start : start + _PART]).all() for start in range(0, flat.size, _PART))


def find_sites(model: Model, *, embed: bool = False) -> list[Site]:
    """All products with constant weights of `model`, in the order of the graph; with `embed`, tables as well."""
    found = [site for graph in model.scopes() for node in graph.ops() for site in _site(node, embed)]
    groups: dict[object, str] = {}
    return [replace(site, group=groups.setdefault(_form(site), site.name)) for site in found]


def key(value: Value) -> str:
    """The name of a value, behind those of the nodes that hold its scope: one for one value of the model."""
    names = [value.name]
    graph = value.node.graph
    while graph.holder is not None:
        holder = graph.holder
        which = next(index for index, one in enumerate(holder.subgraphs) if one is graph)
        names.append(f"{holder.output.name}:{which}")
        graph = holder.graph
    return "/".join(reversed(names))


def matching(sites: Sequence[Site], patterns: Iterable[str]) -> set[str]:
    """The names of the sites that one of `patterns` (`*` and `?` stand for anything) matches: by the name of the value
    or one of its `ends`, of its node, or of the weights.

    Raises: UsageError GO141 for a pattern that matches none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        hit = {site.name for site in sites if any(fnmatch.fnmatchcase(name, pattern) for name in _names(site))}
        if not hit:
            known = near(pattern, [name for site in sites for name in _names(site)])
            raise UsageError("GO141", f"no product with constant weights matches '{pattern}'", "", known)
        chosen |= hit
    return chosen


def _names(site: Site) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (site.name, *site.ends, site.root.node.name, site.weights_name))))


def _site(node: Node, embed: bool) -> Iterator[Site]:
    if node.domain:
        return
    table = embed and node.op == "Gather" and node.attr("axis", 0) == 0
    slot = 0 if table else _WEIGHTS.get(node.op)
    if slot is None:
        return
    weights, activation = node.input(slot), node.input(1 - slot)
    tensor = constant_of(weights) if weights is not None else None
    if weights is None or activation is None or tensor is None or tensor.dtype not in dtypes.FLOATS:
        return
    if constant_of(activation) is not None or (node.op in ("MatMul", "Gemm") and len(tensor.shape) < 2):
        return
    axis, channels = _axes(node, tensor)
    yield Site(
        key(node.output),
        _ends(node.output),
        node.op,
        node.output,
        key(_resolved(activation)),
        _resolved(activation),
        tensor,
        weights.resolved.name,
        axis,
        channels,
        "",
        _refusal(node, tensor),
    )


def _ends(value: Value) -> tuple[str, ...]:
    prefix = key(value).removesuffix(value.name)
    names = [value.name]
    for _ in range(_FEW):
        readers = value.node.graph.consumers(value)
        if len(readers) != 1 or readers[0][0].op not in _FINISHES or readers[0][0].domain:
            break
        value = readers[0][0].output
        names.append(value.name)
    return tuple(prefix + name for name in names)


def _resolved(value: Value) -> Value:
    return value.resolved if value.node.slot >= 0 else value


def _axes(node: Node, weights: Tensor) -> tuple[int, int]:
    """The axis that is summed over, and that of output channels."""
    rank = len(weights.shape)
    match node.op:
        case "Gemm":
            return (1, 0) if node.attr("transB", 0) else (0, 1)
        case "Conv":
            return 1, 0
        case "ConvTranspose":
            return 0, 1
        case "Gather":
            return 1, 0
        case "LSTM" | "GRU":
            return 2, 1
    return rank - 2, rank - 1


def _refusal(node: Node, weights: Tensor) -> str:
    if weights.dtype != dtypes.FLOAT:
        return f"its weights are {dtypes.NAMES[weights.dtype]}, not float32"
    if not math.prod(weights.shape):
        return "its weights are empty"
    match node.op:
        case "MatMul" if len(weights.shape) > 2:
            return "its weights are a batch of matrices"
        case "Gemm" if node.attr("transA", 0):
            return "its activation is transposed"
        case "Gemm" if node.attr("alpha", 1.0) != 1.0 or node.attr("beta", 1.0) != 1.0:
            return "its alpha or beta is not 1"
        case "Conv" | "ConvTranspose" if (bias := node.input(2)) is not None and constant_of(bias) is None:
            return "its bias is not a constant"
        case "ConvTranspose":
            return no_integers(node)
        case "GRU":
            return "onnxruntime has no integer kernel for GRU"
    return ""


def _form(site: Site) -> object:
    """What sites of equal structure have in common: operator, shape of weights, what is before and behind."""
    return (site.op, site.shape, _before(site.activation), tuple(sorted(_behind(site.root))), bool(site.refusal))


def _before(value: Value) -> str:
    for _ in range(_FEW):
        node = value.node
        if node.op not in _PLAIN or node.domain or node.input(0) is None:
            break
        value = node.inputs[0] or value
    return "" if value.node.is_source else value.node.op


def _behind(value: Value) -> Iterator[str]:
    """The operators that read a product, behind what moves values or adds a bias, with the slot."""
    graph: Graph = value.node.graph
    waiting = [(value, _FEW)]
    while waiting:
        one, left = waiting.pop()
        for reader, slot in graph.consumers(one):
            plain = reader.op in _PLAIN or (reader.op in ("Add", "Mul") and _with_constant(reader, slot))
            if plain and not reader.domain and left:
                waiting += [(out, left - 1) for out in reader.outputs]
            else:
                # Operands of a sum may stand either way round.
                yield reader.op if reader.op in ("Add", "Mul") else f"{reader.op} {slot}"


def _with_constant(node: Node, slot: int) -> bool:
    other = node.input(1 - slot) if slot < 2 else None
    return other is not None and constant_of(other) is not None
