"""What is in a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphopt.ir import Model, Node, Source, Tensor, Value, dtypes, load
from graphopt.ir.node import qualified
from graphopt.ir.schema import MICROSOFT, signature
from graphopt.pipeline.meanings import count_meanings, count_ops


@dataclass(frozen=True)
class Port:
    """An input or output: its element type (`float32`; empty where it is no tensor) and its dimensions as written."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Inspection:
    """What is in a model. `parameters` counts elements of initializers, `external` names the files that hold them;
    `unknown` are ops that neither onnx, nor onnxruntime, nor a function of the model defines."""

    model: str
    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: int
    subgraphs: int
    functions: tuple[str, ...]
    ops: dict[str, int]
    fused: dict[str, int]
    unknown: tuple[str, ...]
    parameters: int
    weight_bytes: int
    external: tuple[str, ...]
    metadata: dict[str, str]


def inspect(source: Source) -> Inspection:
    """What is in a model; weights in external files are not read."""
    model = load(source)
    ops = count_ops(model)
    weights = list(_weights(model))
    return Inspection(
        model=str(model.path or "model"),
        producer=f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        ir_version=model.proto.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in sorted(model.opsets.items())},
        inputs=tuple(_port(node.output) for node in model.graph.inputs),
        outputs=tuple(_port(value) for value in model.graph.outputs),
        nodes=ops.total(),
        subgraphs=sum(1 for scope in model.scopes() if scope.holder is not None),
        functions=tuple(f"{domain}.{name}" for domain, name, _ in model.functions),
        ops=dict(ops),
        fused=count_meanings(ops),
        unknown=tuple(sorted({qualified(node.domain, node.op) for node in _unknown(model)})),
        parameters=sum(tensor.size for tensor in weights),
        weight_bytes=sum(tensor.nbytes for tensor in weights),
        external=tuple(sorted({entries["location"] for tensor in weights if (entries := tensor.external)})),
        metadata={entry.key: entry.value for entry in model.proto.metadata_props},
    )


def _port(value: Value) -> Port:
    shape: tuple[int | str, ...] | None = None
    if value.shape is not None:
        shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return Port(value.name, dtypes.NAMES.get(value.dtype, ""), shape)


def _weights(model: Model) -> Iterable[Tensor]:
    for scope in model.scopes():
        for node in [*scope.sources("Constant"), *scope.sources("Input")]:
            if node.data is not None:
                yield node.data


def _unknown(model: Model) -> Iterable[Node]:
    defined = {(domain, name) for domain, name, _ in model.functions}
    for scope in model.scopes():
        for node in scope.ops():
            ours = node.domain == MICROSOFT or (node.domain, node.op) in defined
            if not ours and signature(node.domain, node.op, node.version) is None:
                yield node
