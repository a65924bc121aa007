"""Parts of models as protos that can be run: the cones of some values, with boundary values as inputs.

Weights are not copied: a part declares them, and says in which file they lie.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper

from graphopt.ir import Graph, Model, Tensor, Value, dtypes, model_to_proto
from graphopt.ir.encode import node_to_proto
from graphopt.runtime import PLACEHOLDER, External, Runner, Session
from graphopt.verify.cuts import Cuts
from graphopt.verify.tolerance import is_noisy

Array = np.ndarray[Any, np.dtype[Any]]

# The newest that onnxruntime loads, and the oldest that knows everything a part may hold.
_IR_VERSIONS = (10, 13)
_INLINE_BYTES = 4096
_NOISY_BYTES = 1 << 18


class Weights:
    """Where the data of constants lies: in the model's files, or in a temporary one for what is in memory only."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._file: Path | None = None
        self._end = 0
        self._placed: dict[int, tuple[Tensor, External]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def declare(self, name: str, tensor: Tensor) -> tuple[TensorProto, External | None]:
        """The initializer called `name`: with its data, or a declaration and where the data lies."""
        if tensor.nbytes <= _INLINE_BYTES or tensor.dtype == dtypes.STRING:
            return _inlined(name, tensor), None
        proto = TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape, data_location=TensorProto.EXTERNAL)
        proto.external_data.add(key="location", value=PLACEHOLDER)
        return proto, self._place(tensor)

    def _place(self, tensor: Tensor) -> External:
        key = id(tensor)
        if key not in self._placed:
            path, offset, length = tensor.place() or self._spill(tensor)
            place = External(path.absolute(), offset, length, dtypes.to_numpy(tensor.dtype), tensor.shape)
            self._placed[key] = tensor, place
        return self._placed[key][1]

    def _spill(self, tensor: Tensor) -> tuple[Path, int, int]:
        if self._file is None:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="graphopt-"))
            self._file = Path(folder) / "weights"
        raw = tensor.raw()
        data = _raw_bytes(tensor) if raw is None else raw
        offset = -(-self._end // 64) * 64
        with self._file.open("ab") as file:
            file.write(b"\0" * (offset - self._end))
            file.write(data)
        self._end = offset + len(data)
        return self._file, offset, len(data)


def _inlined(name: str, tensor: Tensor) -> TensorProto:
    proto = TensorProto()
    proto.CopyFrom(tensor.to_proto(name))
    if proto.data_location == TensorProto.EXTERNAL:
        proto.ClearField("data_location")
        del proto.external_data[:]
        proto.raw_data = bytes(tensor.raw() or b"")
    return proto


def _raw_bytes(tensor: Tensor) -> bytes:
    if tensor.proto is not None and tensor.proto.HasField("raw_data"):
        return tensor.proto.raw_data
    if dtypes.bits(tensor.dtype) % 8:
        return onnx.numpy_helper.from_array(tensor.numpy()).raw_data
    return tensor.numpy().tobytes()


@dataclass(frozen=True)
class Part:
    """A runnable part: its bytes, where its weights lie, and the name that each output has in it.

    `noisy` are the small float weights that may be given other values, as inputs.
    """

    proto: bytes
    external: Mapping[str, External]
    outputs: Mapping[str, str]
    inputs: frozenset[str]
    noisy: Mapping[str, Array]

    def load(self, runner: Runner, name: str, **options: Any) -> PartSession:
        """A session of it. Raises what `Runner.load` raises."""
        options = {"optimize": False, **options}
        return PartSession(runner.load(self.proto, external=self.external, name=name, **options), self)


@dataclass(frozen=True)
class PartSession:
    """A part in the runtime; outputs have the names they have in the model."""

    session: Session
    part: Part

    def run(self, feeds: Mapping[str, Any], outputs: Collection[str] | None = None) -> dict[str, Any]:
        """Runs once on those of `feeds` that are its inputs. Raises what `Session.run` raises."""
        wanted = {name: self.part.outputs[name] for name in (self.part.outputs if outputs is None else outputs)}
        if not wanted:
            return {}
        given = {name: feed for name, feed in feeds.items() if name in self.part.inputs or name in self.part.noisy}
        found = self.session.run(given, list(wanted.values()))
        return {name: found[inner] for name, inner in wanted.items()}

    def types(self) -> dict[str, str]:
        """onnxruntime's type of each output, by the name it has in the model."""
        inner = {port.name: port.type for port in self.session.outputs}
        return {name: inner[written] for name, written in self.part.outputs.items()}

    def close(self) -> None:
        self.session.close()


def part(
    model: Model,
    roots: Sequence[Value],
    weights: Weights,
    *,
    cuts: Cuts | None = None,
    types: Mapping[str, TypeProto] | None = None,
    noisy: bool = False,
) -> Part:
    """The part of `model` that computes `roots` from `cuts` (default: from the model's inputs).

    `types` says the types of boundary values that are not inputs of the model. With `noisy`, small float weights can
    be overridden.
    """
    cuts = cuts or Cuts(frozenset())
    cone = cuts.cone(roots)
    shell = model_to_proto(replace(model, graph=Graph(model.ledger)))
    shell.ir_version = min(max(shell.ir_version, _IR_VERSIONS[0]), _IR_VERSIONS[1])
    graph = shell.graph
    external: dict[str, External] = {}
    loose: dict[str, Array] = {}
    for name, tensor in cone.constants.items():
        if tensor is None:
            graph.sparse_initializer.append(model.graph.sparse[model.graph.names[name].node])
            continue
        declared, place = weights.declare(name, tensor)
        graph.initializer.append(declared)
        if place is not None:
            external[name] = place
        if noisy and tensor.size > 1 and tensor.nbytes <= _NOISY_BYTES and is_noisy(tensor.dtype):
            loose[name] = tensor.numpy()
            graph.input.append(helper.make_tensor_value_info(name, tensor.dtype, tensor.shape))
    for name in cone.boundary:
        _add_input(model, graph, name, types or {})
    named: set[str] = set()
    for name, meant in cone.aliases.items():
        graph.node.append(helper.make_node("Identity", [meant], [name]))
    for node in cone.nodes:
        proto = node_to_proto(node)
        proto.ClearField("metadata_props")
        # onnxruntime refuses two nodes of one name; ONNX does not.
        if proto.name in named:
            proto.ClearField("name")
        named.add(proto.name)
        # A cut that is computed here may be read here as well, as an input: that keeps the name.
        proto.output[:] = [_computed(name) if name in cuts.names else name for name in proto.output]
        graph.node.append(proto)
    outputs = {root.name: _output(graph, root, cuts) for root in roots}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs.values())
    return Part(shell.SerializeToString(), external, outputs, frozenset(cone.boundary), loose)


def _add_input(model: Model, graph: onnx.GraphProto, name: str, types: Mapping[str, TypeProto]) -> None:
    value = model.graph.names.get(name)
    if name in types:
        graph.input.append(onnx.ValueInfoProto(name=name, type=types[name]))
    elif value is not None and value.info is not None:
        graph.input.append(onnx.ValueInfoProto(name=name, type=value.info.type))
    elif value is not None:
        rank = None if value.shape is None else [None] * len(value.shape)
        graph.input.append(helper.make_tensor_value_info(name, value.dtype, rank))


def _computed(name: str) -> str:
    return f"{name} (computed)" if name else ""


def _output(graph: onnx.GraphProto, root: Value, cuts: Cuts) -> str:
    if not root.node.is_source:
        return _computed(root.name) if root.name in cuts.names else root.name
    name = _computed(root.name)
    graph.node.append(helper.make_node("Identity", [root.name], [name]))
    return name


def type_of(kind: str, value: Any, known: Sequence[int | None] = ()) -> TypeProto:
    """The type of a value: `kind` is onnxruntime's (`tensor(float)`, `seq(tensor(int64))`), the rank is the value's.

    Sizes are those that are `known` and that the value has.
    """
    outer, _, inner = kind.rstrip(")").partition("(")
    inner = kind[len(outer) + 1 : -1]
    match outer:
        case "tensor":
            shape = enumerate(np.shape(value))
            sizes = None if value is None else [n if n in known[i : i + 1] else None for i, n in shape]
            return helper.make_tensor_type_proto(dtypes.NUMBERS[_ORT_NAMES.get(inner, inner)], sizes)
        case "seq":
            return helper.make_sequence_type_proto(type_of(inner, None))
        case "optional":
            return helper.make_optional_type_proto(type_of(inner, None))
        case "map":
            key, _, item = inner.partition(",")
            return helper.make_map_type_proto(dtypes.NUMBERS[_ORT_NAMES.get(key, key)], type_of(item, None))
    raise ValueError(f"onnxruntime's type {kind}")


_ORT_NAMES = {"float": "float32", "double": "float64"}
