"""Constant data that is not read until someone asks for numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from graphopt.errors import ModelError
from graphopt.ir import dtypes
from graphopt.ir.external import Extent, check_size, extent_of, mapped, opened, path_of
from graphopt.ir.wire import Region

Array = np.ndarray[Any, np.dtype[Any]]

# Decoded arrays up to this many bytes are kept; larger ones are decoded again when asked for.
_KEEP_BYTES = 65_536

_TYPED = ("float_data", "int32_data", "int64_data", "string_data", "double_data", "uint64_data")


class Tensor:
    """A constant: element type, shape, and where its numbers are.

    They are in a proto, in an array, in a `region` of the model's own file, in an external file, relative to `base`, or
    nowhere until they are computed. The numbers of a tensor never change; a rule that wants others makes another.
    """

    __slots__ = ("_array", "_make", "base", "dtype", "proto", "region", "shape")

    def __init__(
        self,
        proto: TensorProto | None,
        array: Array | None = None,
        base: Path | None = None,
        region: Region | None = None,
    ) -> None:
        self.proto = proto
        self.base = base
        self.region = region
        self._array = array
        self._make: Callable[[], Array] | None = None
        if proto is not None:
            self.dtype: int = proto.data_type
            self.shape: tuple[int, ...] = tuple(proto.dims)
        elif array is not None:
            self.dtype = dtypes.from_numpy(array.dtype)
            self.shape = array.shape

    @staticmethod
    def of(array: Any, dtype: int | None = None) -> Tensor:
        """The tensor that holds `array`; anything `numpy.asarray` takes."""
        values = np.asarray(array)
        if dtype is not None:
            values = values.astype(dtypes.to_numpy(dtype))
        values = np.array(values, order="C", copy=True)
        values.flags.writeable = False
        return Tensor(None, values)

    @staticmethod
    def deferred(dtype: int, shape: tuple[int, ...], make: Callable[[], Array]) -> Tensor:
        """The tensor whose numbers are what `make` returns, of NumPy's type for `dtype` and of this shape.

        It is called whenever the numbers are asked for, and has to return the same ones; small ones are kept.
        """
        tensor = Tensor(None)
        tensor.dtype, tensor.shape, tensor._make = dtype, shape, make
        return tensor

    @property
    def is_deferred(self) -> bool:
        """Whether the numbers are yet to be computed."""
        return self._make is not None and self._array is None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers in a file: int4 elements take half a byte each."""
        if self.dtype == dtypes.STRING:
            return sum(map(len, self.proto.string_data)) if self.proto is not None else 0
        return dtypes.packed(self.dtype, self.size)

    @property
    def external(self) -> dict[str, str] | None:
        """The external-data entries (`location`, `offset`, `length`), None for data that the model itself holds."""
        if self.proto is None or self.proto.data_location != TensorProto.EXTERNAL:
            return None
        return {entry.key: entry.value for entry in self.proto.external_data}

    def numpy(self) -> Array:
        """The numbers, shaped, read-only. What lies in a file is mapped, not read.

        Raises: ModelError as `location`, GO034 when the data is not what type and shape say.
        """
        if self._array is not None:
            return self._array
        array = self._read() if self._make is None else self._made(self._make())
        array.flags.writeable = False
        if array.nbytes <= _KEEP_BYTES:
            self._array = array
        return array

    def raw(self) -> memoryview | None:
        """The numbers as they stand in a file, or would (little-endian, packed): None where only a proto holds them."""
        if self.region is not None:
            return self.region.view
        if self.external is not None:
            return mapped(self._base, self.extent(), self._place)
        if self.proto is None and self.dtype != dtypes.STRING:
            array = self.numpy()
            if dtypes.bits(self.dtype) % 8:
                return memoryview(numpy_helper.from_array(array).raw_data)
            return array.reshape(-1).view(np.uint8).data
        return None

    def place(self) -> tuple[Path, int, int] | None:
        """(file, offset, length in bytes) of raw data that lies in a file; None for what is in memory."""
        if self.region is not None:
            return (self.region.path, self.region.offset, len(self.region.view)) if self.region.is_current() else None
        return self.location() if self.external is not None else None

    def check(self, sizes: dict[str, int] | None = None) -> None:
        """Looks whether the data is there and as long as type and shape say, without decoding it.

        `sizes` are the bytes of files that were looked at already, by location; it gets those that are looked at now.
        Raises: ModelError GO034 when lengths disagree, for external data as `location`.
        """
        if self.proto is None:
            return
        if self.dtype not in dtypes.NAMES:
            raise ModelError("GO034", f"unknown element type {self.dtype}", self._place)
        if min(self.shape, default=0) < 0:
            raise ModelError("GO034", f"the shape {list(self.shape)} has a negative size", self._place)
        if math.prod(filter(None, self.shape)) >= 1 << 63:
            raise ModelError("GO034", f"the shape {list(self.shape)} has more elements than 64 bits count", self._place)
        fields = self._filled()
        if len(fields) > 1:
            raise ModelError("GO034", f"its data is in more than one place: {', '.join(fields)}", self._place)
        if self.region is not None:
            self._expect(len(self.region.view), self.nbytes, "bytes")
        elif self.external is not None:
            self._find(self.extent(), sizes)
        elif self.proto.HasField("raw_data"):
            self._expect(len(self.proto.raw_data), self.nbytes, "bytes")
        elif self.size and not self.proto.HasField("segment"):
            held = len(getattr(self.proto, onnx.helper.tensor_dtype_to_field(self.dtype)))
            self._expect(held, dtypes.entries(self.dtype, self.size), "entries")

    def _filled(self) -> list[str]:
        """What holds data: names of fields."""
        proto = self.proto
        assert proto is not None
        fields = [name for name in _TYPED if len(getattr(proto, name))]
        if self.region is not None or proto.HasField("raw_data"):
            fields.append("raw_data")
        if proto.data_location == TensorProto.EXTERNAL:
            fields.append("external_data")
        return fields

    def extent(self) -> Extent:
        """Where external data lies. Raises: ModelError GO034 when its length is wrong, GO037 when that is no place."""
        assert self.proto is not None
        if self.dtype == dtypes.STRING:
            raise ModelError("GO034", "strings cannot lie in external data", self._place)
        return extent_of(self.proto, self.nbytes, self._place)

    def location(self) -> tuple[Path, int, int]:
        """(real path, offset, length in bytes) of external data, which is there.

        Raises: ModelError GO030 when it lies outside the model's folder, GO031 when the file is missing or too short,
        GO034 when the length is wrong, GO037 when that is no place, GO038 when the file is a link.
        """
        at = self.extent()
        self._find(at)
        return path_of(self._base, at.location, self._place), at.offset, at.length

    def _find(self, at: Extent, sizes: dict[str, int] | None = None) -> None:
        size = sizes.get(at.location) if sizes is not None else None
        if size is None:
            with opened(self._base, at.location, self._place) as (_, size):
                if sizes is not None:
                    sizes[at.location] = size
        check_size(at, size, self._place)

    def item(self) -> Any:
        """The one element, as a Python number. Raises ValueError when there is not exactly one."""
        return self.numpy().item()

    def to_proto(self, name: str) -> TensorProto:
        """A proto called `name`: the one it came from where that says it all."""
        if self.proto is None:
            return numpy_helper.from_array(self.numpy(), name)
        if self.proto.name == name and self.region is None:
            return self.proto
        proto = TensorProto()
        proto.CopyFrom(self.proto)
        proto.name = name
        if self.region is not None:
            proto.raw_data = bytes(self.region.view)
        return proto

    @property
    def _base(self) -> Path:
        return self.base or Path()

    @property
    def _place(self) -> str:
        return f"tensor '{self.proto.name}'" if self.proto is not None else "tensor"

    def _expect(self, held: int, wanted: int, unit: str) -> None:
        if held != wanted:
            kind = f"{dtypes.NAMES[self.dtype]}{list(self.shape)}"
            raise ModelError("GO034", f"{kind} takes {wanted} {unit}, its data has {held}", self._place)

    def _read(self) -> Array:
        assert self.proto is not None
        raw = self.raw()
        try:
            if self.dtype == dtypes.STRING:
                return _texts(self.proto.string_data, self.shape)
            return numpy_helper.to_array(self.proto) if raw is None else self._decoded(raw)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError("GO034", f"its data cannot be read: {error}", self._place) from error

    def _made(self, array: Array) -> Array:
        if array.shape != self.shape or array.dtype != dtypes.to_numpy(self.dtype):
            wanted = f"{dtypes.NAMES[self.dtype]}{list(self.shape)}"
            raise ValueError(f"{wanted} was promised, {array.dtype}{list(array.shape)} made")
        return np.ascontiguousarray(array).reshape(self.shape).view()

    def _decoded(self, raw: memoryview) -> Array:
        if dtypes.bits(self.dtype) % 8 == 0:
            return np.frombuffer(raw, dtypes.to_numpy(self.dtype)).reshape(self.shape)
        return numpy_helper.to_array(TensorProto(data_type=self.dtype, dims=self.shape, raw_data=bytes(raw)))


def _texts(strings: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    """Strings; one that is no UTF-8, which onnxruntime passes on, stays bytes."""
    array = np.empty(len(strings), object)
    array[:] = [text_of(raw) for raw in strings]
    return array.reshape(shape)


def text_of(raw: bytes) -> str | bytes:
    """What `raw` says; `raw` itself where that is no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
