"""Between numpy arrays and OrtValues, in the child process, for every tensor type that onnxruntime has."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from weakref import WeakValueDictionary

import ml_dtypes
import numpy as np
import onnxruntime as ort

from graphopt.files import open_regular
from graphopt.runtime.protocol import Array, External


class Narrow(NamedTuple):
    """A type that numpy lacks: its number in TensorProto.DataType, its `ml_dtypes` type, bits per element."""

    code: int
    dtype: np.dtype[Any]
    bits: int


NARROW = {
    "tensor(bfloat16)": Narrow(16, np.dtype(ml_dtypes.bfloat16), 16),
    "tensor(float8e4m3fn)": Narrow(17, np.dtype(ml_dtypes.float8_e4m3fn), 8),
    "tensor(float8e4m3fnuz)": Narrow(18, np.dtype(ml_dtypes.float8_e4m3fnuz), 8),
    "tensor(float8e5m2)": Narrow(19, np.dtype(ml_dtypes.float8_e5m2), 8),
    "tensor(float8e5m2fnuz)": Narrow(20, np.dtype(ml_dtypes.float8_e5m2fnuz), 8),
    "tensor(uint4)": Narrow(21, np.dtype(ml_dtypes.uint4), 4),
    "tensor(int4)": Narrow(22, np.dtype(ml_dtypes.int4), 4),
    "tensor(float4e2m1)": Narrow(23, np.dtype(ml_dtypes.float4_e2m1fn), 4),
    "tensor(float8e8m0)": Narrow(24, np.dtype(ml_dtypes.float8_e8m0fnu), 8),
    "tensor(uint2)": Narrow(25, np.dtype(ml_dtypes.uint2), 2),
    "tensor(int2)": Narrow(26, np.dtype(ml_dtypes.int2), 2),
}
_copies: WeakValueDictionary[tuple[Path, int, np.dtype[Any]], Array] = WeakValueDictionary()
_BY_DTYPE = {narrow.dtype: narrow for narrow in NARROW.values()}


def value_from_array(array: Array, ort_type: str) -> ort.OrtValue:
    """An OrtValue over `array` (not copied if it is C-contiguous and a byte or more wide).

    For a narrow `ort_type`, the array has its `ml_dtypes` type, or is the raw bits as an unsigned integer.
    """
    array = np.asarray(array, order="C")
    narrow = NARROW.get(ort_type)
    if narrow is None:
        return ort.OrtValue.ortvalue_from_numpy(array)
    if array.dtype != narrow.dtype and array.dtype != _raw(narrow):
        raise ValueError(f"Unexpected input data type. Actual: {array.dtype}, expected: {narrow.dtype}")
    bits = array.view(_raw(narrow))
    return _over(_pack(bits, narrow.bits) if narrow.bits < 8 else bits, narrow, array.shape)


def array_from_value(value: ort.OrtValue) -> Array:
    """The tensor as an array, of an `ml_dtypes` type where numpy has none."""
    narrow = NARROW.get(value.data_type())
    if narrow is None:
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    if math.prod(shape) == 0:
        return np.empty(shape, narrow.dtype)
    size = value.tensor_size_in_bytes()
    data = np.frombuffer(ctypes.string_at(value.data_ptr(), size), _raw(narrow))
    if narrow.bits < 8:
        data = _unpack(data, narrow.bits)[: math.prod(shape)]
    return data.view(narrow.dtype).reshape(shape)


def initializer(source: External | Array) -> ort.OrtValue:
    """An OrtValue over the data of an initializer; a file is mapped, not read."""
    if not isinstance(source, External):
        return value_from_array(source, _type_name(source.dtype))
    narrow = _BY_DTYPE.get(source.dtype)
    bits = narrow.bits if narrow else 8 * source.dtype.itemsize
    needed = (math.prod(source.shape) * bits + 7) // 8
    if needed != source.length:
        raise ValueError(f"{source.path}: {source.length} bytes of external data where the shape needs {needed}")
    if needed == 0:
        return value_from_array(np.empty(source.shape, source.dtype), _type_name(source.dtype))
    with _opened(source.path) as file:
        mapped = np.memmap(file, np.uint8, "r", source.offset, (source.length,))
    stored = _raw(narrow) if narrow else source.dtype
    data = _aligned(mapped.view(stored), source)
    return _over(data, narrow, source.shape) if narrow else ort.OrtValue.ortvalue_from_numpy(data.reshape(source.shape))


def _aligned(data: Array, source: External) -> Array:
    """`data`, which is mapped; read if its offset is not a multiple of the item's size: once for all that use it."""
    if data.flags.aligned:
        return data
    key = source.path, source.offset, data.dtype
    known = _copies.get(key)
    if known is None or known.shape != data.shape:
        with _opened(source.path) as file:
            known = _copies[key] = np.fromfile(file, data.dtype, data.size, offset=source.offset)
    return known


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(open_regular(path)[0], "rb")


def _over(data: Array, narrow: Narrow, shape: tuple[int, ...]) -> ort.OrtValue:
    # onnxruntime takes the shape from the array and counts the bytes by itself, so over packed data the array must
    # claim more elements than there are bytes.
    strides = [data.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    claimed = np.lib.stride_tricks.as_strided(data, shape, strides)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(claimed, narrow.code)


def _type_name(dtype: np.dtype[Any]) -> str:
    return next((name for name, narrow in NARROW.items() if narrow.dtype == dtype), "")


def _raw(narrow: Narrow) -> np.dtype[Any]:
    return np.dtype(np.uint16 if narrow.bits == 16 else np.uint8)


def _pack(bits: Array, width: int) -> Array:
    """Elements of `width` bits (one in each byte) put together into bytes, the first one lowest."""
    per_byte = 8 // width
    flat = np.zeros(-(-bits.size // per_byte) * per_byte, np.uint8)
    flat[: bits.size] = bits.reshape(-1) & (2**width - 1)
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    packed: Array = np.bitwise_or.reduce(flat.reshape(-1, per_byte) << shifts, axis=1)
    return packed


def _unpack(data: Array, width: int) -> Array:
    """The inverse of `_pack`."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    bits: Array = (data[:, None] >> shifts) & (2**width - 1)
    return bits.reshape(-1)
