"""Element types by name. The IR keeps the number that `onnx.TensorProto.DataType` gives a type; 0 is unknown."""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
import onnx

_NAMES: Final = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
}
NAMES: Final[dict[int, str]] = {
    number: _NAMES.get(key, key.lower()) for key, number in onnx.TensorProto.DataType.items() if number
}
NUMBERS: Final[dict[str, int]] = {name: number for number, name in NAMES.items()}

FLOAT: Final = NUMBERS["float32"]
FLOAT16: Final = NUMBERS["float16"]
BFLOAT16: Final = NUMBERS["bfloat16"]
DOUBLE: Final = NUMBERS["float64"]
INT32: Final = NUMBERS["int32"]
INT64: Final = NUMBERS["int64"]
BOOL: Final = NUMBERS["bool"]
STRING: Final = NUMBERS["string"]
FLOATS: Final = frozenset({FLOAT, FLOAT16, BFLOAT16, DOUBLE})
INTEGERS: Final = frozenset(
    NUMBERS[name] for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)
COUNTED: Final = INTEGERS | {BOOL}
"""Types whose elements shape inference follows as dimensions."""

# Elements narrower than a byte are packed, in raw data and in files.
_PACKED: Final = {
    **dict.fromkeys((NUMBERS[name] for name in ("int2", "uint2")), 2),
    **dict.fromkeys((NUMBERS[name] for name in ("int4", "uint4", "float4e2m1")), 4),
    **dict.fromkeys((NUMBERS[name] for name in ("float6e2m3", "float6e3m2")), 6),
}


def bits(dtype: int) -> int:
    """Bits of one element in raw data. Raises KeyError for a type that onnx does not know."""
    return _PACKED.get(dtype) or 8 * to_numpy(dtype).itemsize


def packed(dtype: int, count: int) -> int:
    """Bytes that `count` elements take in raw data."""
    return (count * bits(dtype) + 7) // 8


def entries(dtype: int, count: int) -> int:
    """How many entries `count` elements take in a typed field such as `float_data`."""
    if NAMES[dtype].startswith("complex"):
        return 2 * count
    return packed(dtype, count) if bits(dtype) in (2, 4) else count


@functools.cache
def to_numpy(dtype: int) -> np.dtype[Any]:
    """The NumPy type that holds elements of `dtype` (through ml_dtypes for narrow ones)."""
    return onnx.helper.tensor_dtype_to_np_dtype(dtype)


def from_numpy(dtype: np.dtype[Any]) -> int:
    """The element type of NumPy's `dtype`."""
    return onnx.helper.np_dtype_to_tensor_dtype(dtype)
