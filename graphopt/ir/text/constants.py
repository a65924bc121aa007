"""Constants of the text form: seeded ones, ones whose numbers were not written, and how each is spelled."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from graphopt.ir import dtypes
from graphopt.ir.attributes import same_tensor
from graphopt.ir.dims import Shape, Size
from graphopt.ir.tensor import Array, Tensor

LISTED = 8
"""How many elements of a constant are written."""
_BARE = {dtypes.FLOAT, dtypes.INT64, dtypes.BOOL, dtypes.STRING}
_NUMPY_FLOATS = {dtypes.FLOAT, dtypes.FLOAT16, dtypes.DOUBLE}
_COMPLEX = {dtypes.NUMBERS["complex64"], dtypes.NUMBERS["complex128"]}
_RANDOM_INTEGERS = {dtypes.BOOL: (0, 1), dtypes.NUMBERS["int8"]: (-128, 127), dtypes.NUMBERS["uint8"]: (0, 255)}
# The spelling is kept with the tensor: as the documentation of seeded numbers; as the location, where no file can be,
# of those that are not known, so that computing with them is the error that missing external data is.
_SEEDED = re.compile(r"random\((\d+)\)")
_UNKNOWN = re.compile(r"data\(\w*\)")


def seeded(dtype: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """`random(seed)`: weights that are the same wherever their type, shape and seed are the same.

    Floats are normal with std 1/√fan-in; the fan-in is the second last dimension, from rank 4 on the product of all
    but the first, of a vector 1. Raises: ValueError for an element type that has no random form.
    """
    generator = np.random.default_rng(seed)
    if dtype in dtypes.FLOATS:
        fan_in = 1 if len(shape) < 2 else shape[-2] if len(shape) < 4 else math.prod(shape[1:])
        array: Array = generator.standard_normal(shape) / math.sqrt(max(fan_in, 1))
    elif dtype in _RANDOM_INTEGERS:
        low, high = _RANDOM_INTEGERS[dtype]
        array = generator.integers(low, high + 1, shape)
    else:
        raise ValueError(f"random() makes floats, bool, int8 and uint8, not {dtypes.NAMES[dtype]}")
    proto = numpy_helper.from_array(np.asarray(array, dtypes.to_numpy(dtype)))
    proto.doc_string = f"random({seed})"
    return Tensor(proto)


def unknown(dtype: int, shape: tuple[int, ...], digest: str = "") -> Tensor:
    """`data(digest)`: a constant of which only type, shape and digest are known."""
    proto = onnx.TensorProto(data_type=dtype, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    proto.external_data.add(key="location", value=f"data({digest})")
    return Tensor(proto)


def listed(dtype: int, shape: tuple[int, ...], elements: Sequence[Any]) -> Tensor:
    """The tensor with these elements, row by row.

    Raises: ValueError when the element type does not hold them, or there are too many or too few.
    """
    exact = np.array(elements, object)
    kind = exact.dtype if dtype == dtypes.STRING else dtypes.to_numpy(dtype)
    try:
        with np.errstate(over="ignore"):
            array = exact.astype(kind)
        fits = _is_float(dtype) or np.array_equal(array.astype(object), exact)
    except (OverflowError, ValueError):
        fits = False
    if not fits or any(isinstance(x, str) != (dtype == dtypes.STRING) for x in elements):
        raise ValueError(f"{dtypes.NAMES[dtype]} does not hold these elements")
    if len(elements) != math.prod(shape):
        raise ValueError(f"{math.prod(shape)} elements expected, {len(elements)} given")
    return Tensor.of(array.reshape(shape))


def filled(dtype: int, shape: tuple[int, ...], element: Any) -> Tensor:
    """The tensor whose every element is `element`. Raises: ValueError when the element type does not hold it."""
    return Tensor.of(np.broadcast_to(listed(dtype, (), [element]).numpy(), shape))


def _is_float(dtype: int) -> bool:
    return "float" in dtypes.NAMES[dtype]


def type_text(dtype: int, shape: Shape | None) -> str:
    """`float32[B, 64]`; `?` for what is not known."""
    name = dtypes.NAMES.get(dtype, "?")
    return name if shape is None else f"{name}[{', '.join(map(_dim_text, shape))}]"


def _dim_text(size: Size) -> str:
    # What inference made up, and names that a reader could not tell from the brackets around them, are unknown.
    return "?" if set(text := str(size)) & set('?,[]#`"') else text


def is_short(tensor: Tensor, most: int = LISTED) -> bool:
    """Whether the elements, `most` at most or all one value, are written wherever the constant is used."""
    return _spelled(tensor) is None and tensor.dtype not in _COMPLEX and (tensor.size <= most or _is_uniform(tensor))


def _is_uniform(tensor: Tensor) -> bool:
    flat = tensor.numpy().reshape(-1)
    if tensor.dtype == dtypes.STRING or flat[:1] != flat[-1:]:
        return False
    return flat.tobytes() == flat[:1].tobytes() * flat.size


def _spelled(tensor: Tensor) -> str | None:
    """`random(…)` or `data(…)` if that is how the tensor came to be."""
    if tensor.proto is None:
        return None
    location = (tensor.external or {}).get("location", "")
    if _UNKNOWN.fullmatch(location):
        return location
    seed = _SEEDED.fullmatch(tensor.proto.doc_string)
    with suppress(ValueError):
        if seed and same_tensor(tensor, seeded(tensor.dtype, tensor.shape, int(seed[1]))):
            return seed[0]
    return None


def tensor_text(tensor: Tensor, *, typed: bool = False, most: int = LISTED) -> str:
    """A constant as the text form has it; `typed` always with its type, as an attribute needs it."""
    head = type_text(tensor.dtype, tensor.shape or None)
    if not is_short(tensor, most):
        return f"{head} {_spelled(tensor) or f'data({_digest(tensor)})'}"
    elements = [_element(x, tensor.dtype) for x in tensor.numpy().reshape(-1)[:most]]
    text = ", ".join(elements)
    if not typed and tensor.dtype in _BARE and tensor.size <= most:
        if not tensor.shape:
            return text
        if len(tensor.shape) == 1 and (elements or tensor.dtype == dtypes.INT64):
            return f"[{text}]"
    return f"{head} {elements[0]}" if len(set(elements)) == 1 else f"{head} {{{text}}}"


def _element(x: Any, dtype: int) -> str:
    if dtype == dtypes.STRING:
        return json.dumps(x if isinstance(x, str) else x.decode("utf-8", "replace"), ensure_ascii=False)
    if dtype == dtypes.BOOL:
        return str(bool(x)).lower()
    if not _is_float(dtype):
        return str(int(x))
    # NumPy writes the shortest decimal that reads back as the same number of its type.
    return str(x) if dtype in _NUMPY_FLOATS else repr(float(x))


def _digest(tensor: Tensor) -> str:
    array = tensor.numpy()
    raw = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return hashlib.sha256(raw).hexdigest()[:8]
