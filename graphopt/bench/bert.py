"""A BERT without torch: seeded weights, spelled in parts as a TorchScript exporter writes it.

LayerNormalization, GELU and attention stand decomposed, shapes are computed at run time, constants are nodes and the
mask adds the lowest number where nothing may be seen. Weights have the standard deviation 1/√fan-in and biases and
gains are perturbed: at a training initialisation every softmax is flat and hardly a mistake would show in the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 14

MakeWeight = Callable[[str, tuple[int, ...]], onnx.TensorProto]
"""What makes a weight of a name and a shape."""


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder; the defaults are those of BERT-base (110 million parameters).

    `mask` is how padding is spelled: `where(mask, 0, lowest)`, or `(1 - mask) * lowest` as older exports do.
    """

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    vocabulary: int = 30_522
    positions: int = 512
    seed: int = 0
    mask: Literal["where", "product"] = "where"


def bert(config: BertConfig, weight: MakeWeight | None = None) -> onnx.ModelProto:
    """The model: `input_ids`, `attention_mask`, `token_type_ids` (batch, sequence) int64 → `last_hidden_state`
    (batch, sequence, hidden) and `pooler_output` (batch, hidden) float32.

    `weight` makes the weights, of float32; without it they are drawn.
    """
    writer = _Writer(np.random.default_rng(config.seed), weight)
    hidden = _embeddings(writer, config)
    mask = _mask(writer, config)
    for index in range(config.layers):
        last = index == config.layers - 1
        hidden = _layer(writer, f"encoder/layer.{index}", hidden, mask, config, "last_hidden_state" if last else "")
    _pooler(writer, hidden, config.hidden)
    graph = helper.make_graph(
        writer.nodes,
        "bert",
        [_info(name, TensorProto.INT64) for name in ("input_ids", "attention_mask", "token_type_ids")],
        [
            _info("last_hidden_state", TensorProto.FLOAT, "batch", "sequence", config.hidden),
            _info("pooler_output", TensorProto.FLOAT, "batch", config.hidden),
        ],
        writer.weights,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="graphopt-demo"
    )


def _info(name: str, dtype: int, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape or ("batch", "sequence"))


class _Writer:
    """Collects nodes and weights; names follow the scope of the module that wrote them."""

    def __init__(self, rng: np.random.Generator, make: MakeWeight | None) -> None:
        self.rng = rng
        self.make = make
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, scope: str, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"/{scope}/{op}_{len(self.nodes)}"
        result = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op, list(inputs), [result], name, **attributes))
        return result

    def constant(self, scope: str, value: Any, dtype: type[np.generic] = np.float32) -> str:
        return self.op(scope, "Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def weight(self, name: str, *shape: int, std: float, mean: float = 0.0) -> str:
        self.weights.append(self.make(name, shape) if self.make is not None else self.drawn(name, shape, std, mean))
        return name

    def drawn(self, name: str, shape: tuple[int, ...], std: float, mean: float) -> onnx.TensorProto:
        values = self.rng.standard_normal(shape, np.float32)
        values *= std
        values += mean
        return numpy_helper.from_array(values, name)

    def size(self, scope: str, value: str, axis: int) -> str:
        """One dimension of `value` as a tensor of shape (1,), as exporters compute it."""
        index = self.constant(scope, axis, np.int64)
        size = self.op(scope, "Gather", self.op(scope, "Shape", value), index, axis=0)
        return self.op(scope, "Unsqueeze", size, self.constant(scope, [0], np.int64))

    def reshape(self, scope: str, value: str, *tail: int) -> str:
        """`value` (batch, sequence, ...) as (batch, sequence, *tail), the first two sizes taken at run time."""
        sizes = [self.size(scope, value, axis) for axis in (0, 1)]
        sizes += [self.constant(scope, [size], np.int64) for size in tail]
        return self.op(scope, "Reshape", value, self.op(scope, "Concat", *sizes, axis=0))


def _embeddings(w: _Writer, config: BertConfig) -> str:
    scope = "embeddings"
    buffer = np.arange(config.positions, dtype=np.int64)[None]
    w.weights.append(numpy_helper.from_array(buffer, "embeddings.position_ids"))
    zero, one = (w.constant(scope, [value], np.int64) for value in (0, 1))
    length = w.size(scope, "input_ids", 1)
    positions = w.op(scope, "Slice", "embeddings.position_ids", zero, length, one, one)
    words = w.weight("embeddings.word_embeddings.weight", config.vocabulary, config.hidden, std=1.0)
    types = w.weight("embeddings.token_type_embeddings.weight", 2, config.hidden, std=0.5)
    places = w.weight("embeddings.position_embeddings.weight", config.positions, config.hidden, std=0.5)
    total = w.op(
        scope, "Add", w.op(scope, "Gather", words, "input_ids"), w.op(scope, "Gather", types, "token_type_ids")
    )
    total = w.op(scope, "Add", total, w.op(scope, "Gather", places, positions))
    return _layer_norm(w, f"{scope}/LayerNorm", total, config.hidden)


def _mask(w: _Writer, config: BertConfig) -> str:
    """(batch, sequence) of 0 and 1 → (batch, 1, 1, sequence) of the lowest float and 0."""
    scope, mask = "mask", "attention_mask"
    for axis in (1, 2):
        mask = w.op(scope, "Unsqueeze", mask, w.constant(scope, [axis], np.int64))
    lowest = w.constant(scope, np.finfo(np.float32).min)
    if config.mask == "where":
        allowed = w.op(scope, "Cast", mask, to=TensorProto.BOOL)
        return w.op(scope, "Where", allowed, w.constant(scope, 0.0), lowest)
    kept = w.op(scope, "Cast", mask, to=TensorProto.FLOAT)
    return w.op(scope, "Mul", w.op(scope, "Sub", w.constant(scope, 1.0), kept), lowest)


def _layer(w: _Writer, scope: str, x: str, mask: str, config: BertConfig, output: str) -> str:
    context = _attention(w, f"{scope}/attention/self", x, mask, config)
    y = _linear(w, f"{scope}/attention/output/dense", context, config.hidden, config.hidden)
    x = _layer_norm(w, f"{scope}/attention/output/LayerNorm", w.op(scope, "Add", y, x), config.hidden)
    y = _linear(w, f"{scope}/intermediate/dense", x, config.hidden, config.intermediate)
    y = _gelu(w, f"{scope}/intermediate", y)
    y = _linear(w, f"{scope}/output/dense", y, config.intermediate, config.hidden)
    return _layer_norm(w, f"{scope}/output/LayerNorm", w.op(scope, "Add", y, x), config.hidden, output)


def _attention(w: _Writer, scope: str, x: str, mask: str, config: BertConfig) -> str:
    """softmax(q·kᵀ/√d + mask)·v on heads; k is transposed in one step, (batch, heads, d, sequence)."""
    width = config.hidden // config.heads
    heads = []
    for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        y = _linear(w, f"{scope}/{name}", x, config.hidden, config.hidden)
        heads.append(w.op(scope, "Transpose", w.reshape(scope, y, config.heads, width), perm=order))
    q, k, v = heads
    scores = w.op(scope, "Div", w.op(scope, "MatMul", q, k), w.constant(scope, np.sqrt(width)))
    weights = w.op(scope, "Softmax", w.op(scope, "Add", scores, mask), axis=-1)
    context = w.op(scope, "Transpose", w.op(scope, "MatMul", weights, v), perm=[0, 2, 1, 3])
    return w.reshape(scope, context, config.hidden)


def _linear(w: _Writer, scope: str, x: str, inputs: int, outputs: int) -> str:
    name = scope.replace("/", ".")
    weight = w.weight(f"{name}.weight", inputs, outputs, std=inputs**-0.5)
    bias = w.weight(f"{name}.bias", outputs, std=0.1)
    return w.op(scope, "Add", bias, w.op(scope, "MatMul", x, weight))


def _layer_norm(w: _Writer, scope: str, x: str, size: int, output: str = "") -> str:
    """(x − μ)/√(σ² + ε)·γ + β over the last axis."""
    name = scope.replace("/", ".")
    centred = w.op(scope, "Sub", x, w.op(scope, "ReduceMean", x, axes=[-1]))
    squared = w.op(scope, "Pow", centred, w.constant(scope, 2.0))
    variance = w.op(scope, "Add", w.op(scope, "ReduceMean", squared, axes=[-1]), w.constant(scope, 1e-12))
    normal = w.op(scope, "Div", centred, w.op(scope, "Sqrt", variance))
    scaled = w.op(scope, "Mul", normal, w.weight(f"{name}.weight", size, std=0.2, mean=1.0))
    return w.op(scope, "Add", scaled, w.weight(f"{name}.bias", size, std=0.1), output=output)


def _gelu(w: _Writer, scope: str, x: str) -> str:
    """x · (1 + erf(x/√2)) · ½"""
    erf = w.op(scope, "Erf", w.op(scope, "Div", x, w.constant(scope, np.sqrt(2.0))))
    product = w.op(scope, "Mul", x, w.op(scope, "Add", erf, w.constant(scope, 1.0)))
    return w.op(scope, "Mul", product, w.constant(scope, 0.5))


def _pooler(w: _Writer, hidden: str, size: int) -> None:
    first = w.op("pooler", "Gather", hidden, w.constant("pooler", 0, np.int64), axis=1)
    weight = w.weight("pooler.dense.weight", size, size, std=size**-0.5)
    dense = w.op("pooler", "Gemm", first, weight, w.weight("pooler.dense.bias", size, std=0.1), transB=1)
    w.op("pooler", "Tanh", dense, output="pooler_output")
