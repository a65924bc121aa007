"""What a pair is, and how models are made from text and arrays.

Models are made on demand: `model(text, weights)` reads the text form of graphopt.ir.text and puts the arrays of
`weights` in the place of the initializers of those names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
Weights = Mapping[str, Array]
Make = Callable[[], onnx.ModelProto]
Draw = Callable[[np.random.Generator], Feeds]


@dataclass(frozen=True)
class Pair:
    """A model and what a tool made of it; `right` says whether the two compute the same for every legal input.

    `feeds` draws legal inputs. Of a wrong pair they are the witness: the runtime, with its optimizations off, gives
    another result on them. Without `feeds` a wrong pair differs in what no run can show, and `reason` says in what. Of
    a right pair `reason` is the algebra.
    """

    name: str
    right: bool
    reference: Make
    candidate: Make
    reason: str
    feeds: Draw | None = None

    def __str__(self) -> str:
        return f"{'right' if self.right else 'wrong'}: {self.name}"


def wrong(name: str, reference: Make, candidate: Make, feeds: Draw | None = None, reason: str = "") -> Pair:
    """A pair that differs on `feeds`, or, without them, for `reason`."""
    return Pair(name, False, reference, candidate, reason, feeds)


def right(name: str, reference: Make, candidate: Make, feeds: Draw, reason: str) -> Pair:
    """A pair that is equal because of `reason`; `feeds` draws any legal inputs."""
    return Pair(name, True, reference, candidate, reason, feeds)


def model(text: str, weights: Weights | None = None, rename: bool = False) -> onnx.ModelProto:
    """The model of `text` with `weights` put in; `rename` gives its inner values other names, as other tools do."""
    proto = model_to_proto(parse(text))
    for tensor in proto.graph.initializer:
        if weights and tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    if rename:
        rename_values(proto)
    return proto


def pair_of(reference: str, candidate: str, weights: Weights | None = None, keep: bool = False) -> tuple[Make, Make]:
    """Two models of two texts that share `weights`; the second is renamed throughout unless `keep`."""
    return lambda: model(reference, weights), lambda: model(candidate, weights, rename=not keep)


def rename_values(proto: onnx.ModelProto, stem: str = "t") -> None:
    """Renames every value and node of `proto` in place, but for the graph's inputs and outputs."""
    kept = {value.name for value in (*proto.graph.input, *proto.graph.output)} | {""}
    _rename(proto.graph, {name: name for name in kept}, stem)


def _rename(graph: onnx.GraphProto, names: dict[str, str], stem: str) -> None:
    def new(name: str) -> str:
        return names.setdefault(name, f"{stem}_{len(names)}")

    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = new(value.name)
    for index, node in enumerate(graph.node):
        node.name = f"{stem}/node_{index}"
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names, stem)


def normal(*shape: int, dtype: str = "float32", name: str = "x") -> Draw:
    """One normal input called `name`."""
    return lambda rng: {name: rng.standard_normal(shape).astype(dtype)}


def given(**arrays: Array) -> Draw:
    """Just these inputs."""
    return lambda rng: arrays


def f32(*values: float) -> Array:
    """A vector of float32."""
    return np.array(values, np.float32)
