"""Parts of models as protos that can be run: the cones of some values, with boundary values as inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TypeProto, helper

from graphopt.ir import Graph, Model, Node, Value, dtypes
from graphopt.ir.encode import declared_for, model_to_proto, node_to_proto
from graphopt.ir.tensor import Array
from graphopt.runtime import External, Kernel, Runner, Session
from graphopt.verify.cuts import Cone, Cuts
from graphopt.verify.noise import is_movable, is_rounded
from graphopt.verify.random_ops import Seeds
from graphopt.verify.weights import Weights, reads_files

# The oldest that knows everything a part may hold, and the newest that onnxruntime loads.
_IR_VERSIONS = (10, 13)


@dataclass
class Part:
    """A runnable part: its bytes, where its weights lie, and the name that each output has in it.

    `weights` are small float weights and `gains` scalar factors, all 1, behind what is rounded: both can be given
    other values, as inputs. `base` is the folder of what its subgraphs have in files, if they have. One that
    `is_random` draws other numbers in every run of a session, and the same ones in the first run of each.
    """

    proto: bytes = b""
    external: dict[str, External] = field(default_factory=dict)
    base: Path | None = None
    inputs: frozenset[str] = frozenset()
    outputs: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    gains: dict[str, Array] = field(default_factory=dict)
    is_random: bool = False

    def load(self, runner: Runner, name: str, **options: Any) -> PartSession:
        """A session of it. Raises what `Runner.load` raises."""
        options = {"optimize": False, **options}
        return PartSession(runner.load(self.proto, external=self.external, base=self.base, name=name, **options), self)


class Runnable(Protocol):
    """What runs a part."""

    @property
    def part(self) -> Part: ...

    def run(self, feeds: Mapping[str, Any], outputs: Collection[str] | None = None) -> dict[str, Any]:
        """Runs once on those of `feeds` that are inputs; `outputs` by the names they have in the model (None: all)."""
        ...


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
        if self.part.is_random:
            self.session.close()
        known = self.part.inputs | self.part.weights.keys() | self.part.gains.keys()
        found = self.session.run({name: feeds[name] for name in feeds if name in known}, list(wanted.values()))
        return {name: found[inner] for name, inner in wanted.items()}

    def types(self) -> dict[str, str]:
        """onnxruntime's type of each output, by the name it has in the model."""
        inner = {port.name: port.type for port in self.session.outputs}
        return {name: inner[written] for name, written in self.part.outputs.items()}

    def kernels(self) -> list[Kernel]:
        """What ran, if it was loaded with a profile, which this ends. Raises what `Session.kernels` raises."""
        return self.session.kernels()

    def close(self) -> None:
        self.session.close()


def part(
    model: Model,
    roots: Sequence[Value],
    weights: Weights,
    *,
    cuts: Cuts | None = None,
    types: Mapping[str, TypeProto] | None = None,
    noisy: Collection[str] | None = None,
    seeds: Seeds | None = None,
) -> Part:
    """The part of `model` that computes `roots` from `cuts` (default: from the model's inputs).

    `types` says the types of boundary values that are not inputs of the model. `noisy` names values: those of them that
    are rounded get a gain, and small float weights can be overridden (default: neither). `seeds` are for what is
    random.
    """
    writer = _Writer(model, cuts or Cuts(frozenset()), weights, types or {}, noisy, seeds)
    return writer.write(roots)


class _Writer:
    """Writes one part."""

    def __init__(
        self,
        model: Model,
        cuts: Cuts,
        weights: Weights,
        types: Mapping[str, TypeProto],
        noisy: Collection[str] | None,
        seeds: Seeds | None,
    ) -> None:
        self._model = model
        self._cuts = cuts
        self._weights = weights
        self._types = types
        self._noisy = noisy
        self._seeds = seeds
        self._proto = model_to_proto(replace(model, graph=Graph(model.ledger)))
        self._proto.ir_version = min(max(self._proto.ir_version, _IR_VERSIONS[0]), _IR_VERSIONS[1])
        if seeds is not None:
            seeds.write_functions(model, self._proto.functions)
        self._graph = self._proto.graph
        self._names: set[str] = set()
        self._told: set[str] = set()
        self._part = Part()

    def write(self, roots: Sequence[Value]) -> Part:
        cone = self._cuts.cone(roots)
        self._write_constants(cone)
        self._graph.input.extend(map(self._input, cone.boundary))
        for name, meant in cone.aliases.items():
            self._graph.node.append(helper.make_node("Identity", [meant], [name]))
        for node in cone.nodes:
            self._write_node(node)
        outputs = {root.name: self._output(root) for root in roots}
        self._graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs.values())
        part = self._part
        part.proto, part.inputs, part.outputs = self._proto.SerializeToString(), frozenset(cone.boundary), outputs
        return part

    def _write_constants(self, cone: Cone) -> None:
        for name, tensor in cone.constants.items():
            if tensor is None:
                self._graph.sparse_initializer.append(self._model.graph.sparse[self._model.graph.names[name].node])
                continue
            declared, place = self._weights.declare(name, tensor)
            self._graph.initializer.append(declared)
            if place is not None:
                self._part.external[name] = place
            if self._noisy is not None and is_movable(tensor):
                self._part.weights[name] = tensor.numpy()
                self._graph.input.append(helper.make_tensor_value_info(name, tensor.dtype, tensor.shape))

    def _input(self, name: str) -> onnx.ValueInfoProto:
        value = self._model.graph.names.get(name)
        if name in self._types or value is None:
            return onnx.ValueInfoProto(name=name, type=self._types[name])
        if value.info is not None:
            return onnx.ValueInfoProto(name=name, type=value.info.type)
        rank = None if value.shape is None else [None] * len(value.shape)
        return helper.make_tensor_value_info(name, value.dtype, rank)

    def _write_node(self, node: Node) -> None:
        proto = node_to_proto(node)
        proto.ClearField("metadata_props")
        if self._seeds is not None:
            self._part.is_random |= self._seeds.write(node, proto)
        # onnxruntime refuses two nodes of one name; ONNX does not.
        if proto.name in self._names:
            proto.ClearField("name")
        self._names.add(proto.name)
        # A cut that is computed here may be read here as well, as an input: that keeps the name.
        proto.output[:] = [self._computed(name) for name in proto.output]
        self._graph.node.append(proto)
        if reads_files(node):
            self._part.base = self._model.base
        for name, info in declared_for(node).items():
            if name not in self._cuts.names and name not in self._told:
                self._told.add(name)
                self._graph.value_info.append(info)
        if self._noisy is not None and is_rounded(node, self._noisy):
            self._write_gain(node, proto.output[0])

    def _write_gain(self, node: Node, name: str) -> None:
        """Puts a factor 1, which a feed may override, behind the first output of the node written last."""
        exact, gain = f"{name} (exact)", f"{name} (gain)"
        self._graph.node[-1].output[0] = exact
        self._graph.node.append(helper.make_node("Mul", [exact, gain], [name]))
        one = np.ones((), dtypes.to_numpy(node.outputs[0].dtype))
        self._graph.initializer.append(onnx.numpy_helper.from_array(one, gain))
        self._graph.input.append(helper.make_tensor_value_info(gain, node.outputs[0].dtype, []))
        self._part.gains[gain] = one

    def _output(self, root: Value) -> str:
        if not root.node.is_source:
            return self._computed(root.name)
        name = f"{root.name} (copy)"
        self._graph.node.append(helper.make_node("Identity", [root.name], [name]))
        return name

    def _computed(self, name: str) -> str:
        return f"{name} (computed)" if name in self._cuts.names else name


_ORT_NAMES = {"float": "float32", "double": "float64"}


def type_of(kind: str, value: Any, known: Sequence[int | None] = ()) -> TypeProto:
    """The type of a value: `kind` is onnxruntime's (`tensor(float)`, `seq(tensor(int64))`), the rank is the value's.

    Sizes are those that are `known` and that the value has.
    """
    outer, _, rest = kind.partition("(")
    inner = rest.removesuffix(")")
    match outer:
        case "tensor":
            shape = enumerate(np.shape(value))
            sizes = None if value is None else [n if n in known[i : i + 1] else None for i, n in shape]
            return helper.make_tensor_type_proto(_number(inner), sizes)
        case "seq":
            return helper.make_sequence_type_proto(type_of(inner, None))
        case "optional":
            return helper.make_optional_type_proto(type_of(inner, None))
        case "map":
            key, _, item = inner.partition(",")
            return helper.make_map_type_proto(_number(key), type_of(item, None))
    raise ValueError(f"onnxruntime's type {kind}")


def _number(name: str) -> int:
    return dtypes.NUMBERS[_ORT_NAMES.get(name, name)]
