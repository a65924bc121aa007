"""Which operands and results of an operator may be float16, by its schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from onnx.defs import OpSchema

from graphopt.ir import dtypes
from graphopt.ir.fused import DOMAIN, fused_ops
from graphopt.ir.node import IR_DOMAIN, Node
from graphopt.ir.schema import MICROSOFT, first_version, onnx_schema

_FLOAT: Final = "tensor(float)"
_HALF: Final = "tensor(float16)"

_EVERY: Final = frozenset(
    {
        (IR_DOMAIN, "Attention"),
        ("", "SimplifiedLayerNormalization"),
        *((MICROSOFT, op) for op in ("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "FusedMatMul", "RotaryEmbedding")),
        *((MICROSOFT, op) for op in ("MultiHeadAttention", "GroupQueryAttention", "MatMulNBits")),
    }
)
"""Operators without a schema in onnx, all of whose floats are of one type."""

_FIXED: Final = {"Resize": {1, 2}, "Upsample": {1}, "GridSample": {1}}
"""Operands that are places, not numbers: half precision does not hold them, or the runtime does not take them."""


@dataclass(frozen=True)
class Slots:
    """Operands and results, by number, that are float16 where one of them is; the others stay what they are."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


_NONE: Final = Slots()


def half_slots(node: Node) -> Slots:
    """The float32 operands and results of `node` that its schema allows to be float16 instead; empty for none.

    A result is one only where an operand gives it its type: what an attribute says stays as it is written.
    """
    floats = [slot for slot in range(node.arity) if (value := node.inputs[slot]) and value.dtype == dtypes.FLOAT]
    results = [index for index, value in enumerate(node.outputs) if value.dtype == dtypes.FLOAT]
    if node.graphs or not floats or not all(value.dtype or not value.name for value in node.outputs):
        return _NONE
    if (node.domain, node.op) in _EVERY or _takes_half(node):
        return Slots(tuple(floats), tuple(results))
    schema = onnx_schema(node.domain, node.op, node.version)
    schema = schema or onnx_schema(node.domain, node.op, first_version(node.domain, node.op))
    if schema is None or node.domain:
        return _NONE
    both = _flexible(schema)
    names_in = _type_names(schema.inputs, node.arity)
    names_out = _type_names(schema.outputs, len(node.outputs))
    fixed = _FIXED.get(node.op, set()) if not node.domain else set()
    inputs = [slot for slot in floats if names_in[slot] in both and slot not in fixed]
    untyped = {names_in[slot] for slot, value in enumerate(node.inputs[: node.arity]) if value and not value.dtype}
    if not inputs or not untyped.isdisjoint(both):
        return _NONE
    given = {names_in[slot] for slot in inputs}
    return Slots(tuple(inputs), tuple(index for index in results if names_out[index] in given))


def _takes_half(node: Node) -> bool:
    op = fused_ops().get(node.op) if node.domain == DOMAIN else None
    return op is not None and all("float16" in body.types for body in op.bodies)


@functools.cache
def _flexible(schema: OpSchema) -> frozenset[str]:
    """The names of type parameters that may be both."""
    return frozenset(
        parameter.type_param_str
        for parameter in schema.type_constraints
        if {_FLOAT, _HALF} <= set(parameter.allowed_type_strs)
    )


def _type_names(parameters: Sequence[OpSchema.FormalParameter], count: int) -> list[str]:
    """The type parameter of each of `count` operands or results; the last one may stand for many."""
    names: Iterator[str] = (parameter.type_str for parameter in parameters)
    found = list(names)
    return [found[min(index, len(found) - 1)] if found else "" for index in range(count)]
