"""What an exotic model is, and how models are made from text, arrays and raw fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """A model with the files that its weights live in, by location, and what it is fed (None: drawn by its types)."""

    proto: onnx.ModelProto
    files: Mapping[str, bytes] = field(default_factory=dict)
    feeds: Feeds | None = None


@dataclass(frozen=True)
class Exotic:
    """A valid model that says something few models say.

    `checked` tells whether onnx.checker takes it, `loads` whether onnxruntime does, `runs` whether it then runs on
    `feeds`: every model has one of the first two. `random` ones give other numbers in each run. `why` says what is
    exotic.
    """

    name: str
    why: str
    make: Callable[[], Made]
    checked: bool
    loads: bool
    runs: bool
    random: bool

    def __str__(self) -> str:
        return self.name

    def write(self, folder: Path) -> Path:
        """Writes the model and its data into `folder`, which is there; returns the model's path."""
        made = self.make()
        for location, data in made.files.items():
            path = folder / location
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        path = folder / "model.onnx"
        path.write_bytes(made.proto.SerializeToString())
        return path


Maker = Callable[[], Made | onnx.ModelProto]


class Theme:
    """Collects the exotic models of one module; a decorator."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: list[Exotic] = []

    def __call__(
        self, *, checked: bool = True, loads: bool = True, runs: bool = True, random: bool = False
    ) -> Callable[[Maker], Maker]:
        def add(maker: Maker) -> Maker:
            def make() -> Made:
                made = maker()
                return made if isinstance(made, Made) else Made(made)

            why = " ".join((maker.__doc__ or "").split())
            name = f"{self.name}/{maker.__name__}"
            self.models.append(Exotic(name, why, make, checked, loads, loads and runs, random))
            return maker

        return add


def text(graph: str, opset: int = 20, ir: int = 10, **domains: int) -> onnx.ModelProto:
    """The model of onnx's own text form: a graph, then functions. `domains` are written with `_` for `.`."""
    imports = ", ".join(f'"{d.replace("_", ".")}" : {v}' for d, v in {"": opset, **domains}.items())
    return onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{imports}]> {graph}")


def built(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
    opset: int = 20,
    ir: int = 10,
    **domains: int,
) -> onnx.ModelProto:
    """A model of parts that the text form has no word for."""
    graph = helper.make_graph(list(nodes), "main", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid(d.replace("_", "."), v) for d, v in {"": opset, **domains}.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def info(name: str, shape: Sequence[int | str | None] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """What is said of a tensor."""
    return helper.make_tensor_value_info(name, dtype, shape)


def tensor(name: str, dtype: int, shape: Sequence[int], data: bytes) -> TensorProto:
    """A tensor of raw bytes."""
    return TensorProto(name=name, data_type=dtype, dims=shape, raw_data=data)


def weights(name: str, *shape: int, seed: int = 0) -> TensorProto:
    """A float32 tensor that is drawn."""
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape, np.float32), name)


def array(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    """A tensor of `values`."""
    return numpy_helper.from_array(np.array(values, dtype), name)


def renamed(proto: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """`proto`, with values of its main graph under names that the text form cannot write."""
    graph = proto.graph
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        entry.name = names.get(entry.name, entry.name)
    return proto


def drawn(proto: onnx.ModelProto) -> dict[str, Any]:
    """Inputs for a model by their types: a size that is not known is 2."""
    rng = np.random.default_rng(7)
    given = {t.name for t in proto.graph.initializer}
    return {value.name: _drawn(value.type, rng) for value in proto.graph.input if value.name not in given}


def _drawn(kind: onnx.TypeProto, rng: np.random.Generator) -> Any:
    match kind.WhichOneof("value"):
        case "sequence_type":
            return [_drawn(kind.sequence_type.elem_type, rng) for _ in range(3)]
        case "optional_type":
            return _drawn(kind.optional_type.elem_type, rng)
        case "map_type":
            text_keys = kind.map_type.key_type == TensorProto.STRING
            keys: list[Any] = ["a", "b", "c"] if text_keys else [0, 1, 2]
            return {key: float(rng.normal()) for key in keys}
    shape = tuple(d.dim_value if d.HasField("dim_value") else 2 for d in kind.tensor_type.shape.dim)
    dtype = kind.tensor_type.elem_type
    if dtype == TensorProto.STRING:
        return rng.choice(np.array(["a", "Beta", "the", "x1"], dtype=object), shape)
    if dtype == TensorProto.BOOL:
        return np.asarray(rng.random(shape) < 0.5)
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    if np.dtype(numpy_type).kind in "iu":
        return np.asarray(rng.integers(0, 2, shape)).astype(numpy_type)
    return np.asarray(rng.standard_normal(shape)).astype(numpy_type)
