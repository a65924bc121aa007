"""The wire format of ONNX files, where protobuf itself would copy weights: they stay in the mapped file.

A message is a run of fields, each a key (field number · 8 + wire type) and a value; a value of wire type 2 is a length
and so many bytes. Concatenated fields add up, so a message may be read without some of its fields, and be written in
pieces.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import onnx
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import TensorProto


@dataclass(frozen=True, slots=True)
class Later:
    """Bytes that are read, or computed, when they are written, and not kept."""

    length: int
    read: Callable[[], bytes | memoryview | None]

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that lie in a file, for the kernel to copy."""

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


Bytes = bytes | memoryview | Later | Stored

_BYTES = 2
_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER

# Below these sizes copying costs less than looking.
_SMALL_FILE = 1 << 24
_SMALL_TENSOR = 1 << 16

MOST_FIELDS = 5_000_000
"""A message with more fields is not looked at: that many take seconds."""


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of a file that is mapped: they stay what they are when the file is replaced, not when it is overwritten."""

    path: Path
    offset: int
    view: memoryview
    stamp: tuple[int, int]

    def is_current(self) -> bool:
        """Whether `path` still is the file that was mapped."""
        try:
            return self.stamp == stamp(self.path.stat())
        except OSError:
            return False

    def let_go(self) -> None:
        """Frees the memory of all that was read of the file through this mapping; it is read again when asked for."""
        if isinstance(self.view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.view.obj.madvise(mmap.MADV_DONTNEED)


class _Field(NamedTuple):
    """One field: where its key begins, where its value begins and ends."""

    begin: int
    value: int
    end: int


def contents(file: BinaryIO) -> bytes | memoryview:
    """All of a file: what is small read, what is large mapped. Raises: OSError."""
    if os.fstat(file.fileno()).st_size < _SMALL_FILE:
        return file.read()
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def without_weights(data: bytes | memoryview, path: Path, stamp: tuple[int, int]) -> tuple[bytes, dict[int, Region]]:
    """A large model without the raw data of its large initializers, and that data, by index of the initializer.

    `data` is what is in the file at `path` whose `stamp` this is. Raises: DecodeError when it is not protobuf,
    OverflowError when it has too many fields.
    """
    if isinstance(data, bytes):
        return data, {}
    graphs = list(islice(_fields(data, 0, len(data), _GRAPH), 2))
    if len(graphs) != 1:
        # The parts of a message add up, and protobuf knows how.
        return bytes(data), {}
    kept, left = _without_weights(data, graphs[0])
    head, tail = data[: graphs[0].begin], data[graphs[0].end :]
    whole = b"".join([head, key(_GRAPH), varint(len(kept)), kept, tail])
    return whole, {index: Region(path, at, data[at:end], stamp) for index, (at, end) in left.items()}


def _without_weights(data: memoryview, graph: _Field) -> tuple[bytes, dict[int, tuple[int, int]]]:
    """The graph without raw data of large initializers, and where that lies, by index of the initializer."""
    kept: list[bytes | memoryview] = []
    left: dict[int, tuple[int, int]] = {}
    begin = graph.value
    for index, field in enumerate(_fields(data, graph.value, graph.end, _INITIALIZER)):
        if field.end - field.value > _SMALL_TENSOR:
            raw = list(islice(_fields(data, field.value, field.end, _RAW_DATA), 2))
            if len(raw) == 1 and raw[0].end - raw[0].value > _SMALL_TENSOR:
                rest = bytes(data[field.value : raw[0].begin]) + bytes(data[raw[0].end : field.end])
                kept += [data[begin : field.begin], key(_INITIALIZER), varint(len(rest)), rest]
                left[index] = raw[0].value, raw[0].end
                begin = field.end
    return b"".join([*kept, data[begin : graph.end]]), left


def _fields(data: memoryview, begin: int, end: int, wanted: int) -> Iterator[_Field]:
    """The fields of this number, and of bytes, of the message between `begin` and `end`.

    Raises: DecodeError, OverflowError.
    """
    count = 0
    while begin < end:
        count += 1
        if count > MOST_FIELDS:
            raise OverflowError(f"the model has more than {MOST_FIELDS:,} fields")
        tag, at = read_varint(data, begin, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise DecodeError("no field has number 0")
        if wire == _BYTES:
            length, value = read_varint(data, at, end)
            after = value + length
        elif wire == 0:
            value, after = at, read_varint(data, at, end)[1]
        elif wire in (1, 5):
            value, after = at, at + (8 if wire == 1 else 4)
        else:
            raise DecodeError(f"wire type {wire}")
        if after > end:
            raise DecodeError("a field ends behind its message")
        if number == wanted and wire == _BYTES:
            yield _Field(begin, value, after)
        begin = after


def read_varint(data: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """(number, position behind it)"""
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise DecodeError("truncated")


def varint(number: int) -> bytes:
    """A number in protobuf's form: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def key(number: int, wire: int = _BYTES) -> bytes:
    """What stands before a field's value."""
    return varint(number << 3 | wire)


def encode(fields: UnknownFieldSet) -> bytes:
    """Fields that the schema does not know, as they stood in the file."""
    parts = []
    for field in fields:
        parts.append(key(field.field_number, field.wire_type))
        match field.wire_type:
            case 0:
                parts.append(varint(field.data))
            case 2:
                parts += [varint(len(field.data)), field.data]
            case 3:
                parts += [encode(field.data), key(field.field_number, 4)]
            case wide:
                parts.append(field.data.to_bytes(8 if wide == 1 else 4, "little"))
    return b"".join(parts)


def tensor(header: TensorProto, raw: Bytes) -> list[Bytes]:
    """A TensorProto in pieces: `header`, which has no data, and its raw data."""
    return [header.SerializeToString(), key(_RAW_DATA), varint(len(raw)), raw]


def model(head: onnx.ModelProto, graph: Iterable[onnx.GraphProto], initializers: list[list[Bytes]]) -> Iterator[Bytes]:
    """A ModelProto in pieces: `head`, which has no graph, its graph in parts, and more initializers, each in pieces.

    Raises: EncodeError when a part is more than protobuf can hold.
    """
    bodies = [part.SerializeToString() for part in graph]
    heads = [key(_INITIALIZER) + varint(sum(map(len, pieces))) for pieces in initializers]
    sizes = map(len, chain(bodies, heads, chain.from_iterable(initializers)))
    yield head.SerializeToString() + key(_GRAPH) + varint(sum(sizes))
    yield from bodies
    for start, pieces in zip(heads, initializers, strict=True):
        yield start
        yield from pieces


def stamp(stat: os.stat_result) -> tuple[int, int]:
    """What tells a file from one that is put in its place."""
    return stat.st_ino, stat.st_mtime_ns
