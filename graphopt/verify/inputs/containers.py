"""Inputs that are no tensors of numbers: strings, sequences, optionals, maps."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import TensorProto, TypeProto

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Size
from graphopt.verify.inputs.sizes import Binding, shape_under
from graphopt.verify.inputs.texts import COMMON, texts

_LENGTHS: Final = (2, 3, 1, 0)
_UNNAMED: Final = 3


def shape_of(fed: Any) -> tuple[int, ...]:
    """The shape of what is fed; of a sequence or map, its length."""
    if isinstance(fed, list | dict):
        return (len(fed),)
    return np.shape(fed)


def type_of(fed: Any) -> str:
    """The type of what is fed, for the report."""
    if isinstance(fed, list):
        return f"sequence({type_of(fed[0])})" if fed else "sequence"
    if isinstance(fed, dict):
        return "map"
    return "none" if fed is None else str(np.asarray(fed).dtype)


def contained(proto: TypeProto | None, binding: Binding, number: int, rng: np.random.Generator) -> Any:
    """A sequence (of 2, 3, 1, and no tensors in turn), an optional (with a value, then without), or a map.

    Raises: ValueError, which says what is not known.
    """
    if proto is None:
        raise ValueError("tensors")
    match proto.WhichOneof("value"):
        case "sequence_type":
            item = proto.sequence_type.elem_type
            return [contained(item, binding, 0, rng) for _ in range(_LENGTHS[number % len(_LENGTHS)])]
        case "optional_type":
            return None if number % 2 else contained(proto.optional_type.elem_type, binding, 0, rng)
        case "map_type":
            return _map(proto.map_type, binding, rng)
        case "tensor_type" if proto.tensor_type.elem_type:
            return _tensor(proto.tensor_type, binding, rng)
    raise ValueError("tensors")


def _map(proto: TypeProto.Map, binding: Binding, rng: np.random.Generator) -> dict[Any, Any]:
    keys: tuple[Any, ...] = COMMON[:3] if proto.key_type == TensorProto.STRING else (0, 1, 2)
    item = proto.value_type.tensor_type
    values = [_tensor(item, binding, rng) if item.HasField("shape") else rng.normal() for _ in keys]
    return dict(zip(keys, values, strict=True))


def _tensor(proto: TypeProto.Tensor, binding: Binding, rng: np.random.Generator) -> Any:
    if not proto.HasField("shape"):
        shape: tuple[int, ...] = (_UNNAMED,)
    else:
        sizes: tuple[Size, ...] = tuple(
            dim.dim_value if dim.HasField("dim_value") else dims.parse(dim.dim_param or "?") for dim in proto.shape.dim
        )
        known = {name: _UNNAMED for size in sizes for name in dims.symbols(size)}
        shape = shape_under(sizes, {**known, **binding}) or ()
    if proto.elem_type == TensorProto.STRING:
        return texts(COMMON, shape, rng)
    dtype = dtypes.to_numpy(proto.elem_type)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        return rng.integers(0, 5, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)
