"""Mutations of a file's bytes: blind ones, and ones that know the wire format and keep the lengths around right."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

Mutation = Callable[[bytes, bytes, Random], bytes]
"""Makes a file of a file, and of another one from which it may take pieces."""

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 65535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
TEXTS = (b"", b"\xff\xfe", b"\x00", b"../x", b"/etc/passwd", b"a" * 5000, "Ω\u202e".encode(), b"[red]x", b"%s{0}")
_DEEPEST = 12
_MESSAGE = FieldDescriptor.TYPE_MESSAGE


class _Piece(NamedTuple):
    """One field of a message: its number, its wire type, and its value as it is written, without a length."""

    number: int
    kind: int
    value: bytes

    def written(self) -> bytes:
        head = key(self.number, self.kind)
        return head + varint(len(self.value)) + self.value if self.kind == 2 else head + self.value


def mutated(data: bytes, other: bytes, rng: Random) -> bytes:
    """`data` after one to six mutations; most of them know the wire format, as others seldom pass the parser."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        chosen = rng.choice(_BLIND) if rng.random() < 0.25 else _field
        data = chosen(data, other, rng)
    return data


# ---- blind -----------------------------------------------------------------------------------------------------------


def _flip(data: bytes, other: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 20)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(data: bytes, other: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 100))) + data[at:]


def _delete(data: bytes, other: bytes, rng: Random) -> bytes:
    begin, end = _range(data, rng)
    return data[:begin] + data[end:]


def _repeat(data: bytes, other: bytes, rng: Random) -> bytes:
    begin, end = _range(data, rng)
    return data[:end] + data[begin:end] * rng.choice((1, 2, 50)) + data[end:]


def _truncate(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _splice(data: bytes, other: bytes, rng: Random) -> bytes:
    begin, end = _range(other, rng)
    at = rng.randrange(len(data) + 1)
    return data[:at] + other[begin:end] + data[at + rng.choice((0, end - begin)) :]


def _tail(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _concatenate(data: bytes, other: bytes, rng: Random) -> bytes:
    """Two models in one file are one model, to protobuf."""
    return data + other


def _range(data: bytes, rng: Random) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice((1, 2, 4, 16, 64, 1000)))


_BLIND: tuple[Mutation, ...] = (_flip, _insert, _delete, _repeat, _truncate, _splice, _tail, _concatenate)


# ---- fields ----------------------------------------------------------------------------------------------------------


def _field(data: bytes, other: bytes, rng: Random) -> bytes:
    """One field somewhere in the tree is changed; a file that is no tree is only flipped."""
    try:
        return _changed(data, onnx.ModelProto.DESCRIPTOR, other, rng, 0)
    except DecodeError:
        return _flip(data, other, rng)


def _changed(data: bytes, message: Descriptor, other: bytes, rng: Random, depth: int) -> bytes:
    pieces = _pieces(data)
    if not pieces:
        return data + _Piece(rng.randrange(1, 30), 0, varint(rng.choice(NUMBERS))).written()
    index = rng.randrange(len(pieces))
    piece = pieces[index]
    inner = message.fields_by_number.get(piece.number)
    below = inner is not None and inner.type == _MESSAGE and piece.kind == 2
    if below and depth < _DEEPEST and rng.random() < 0.85:
        try:
            value = _changed(piece.value, inner.message_type, other, rng, depth + 1)
            pieces[index] = piece._replace(value=value)
        except DecodeError:
            pieces[index] = piece._replace(value=_flip(piece.value, other, rng))
    else:
        rng.choice(_CHANGES)(pieces, index, message, rng)
    return b"".join(piece.written() for piece in pieces)


def _pieces(data: bytes) -> list[_Piece]:
    """The fields of a message. Raises: DecodeError."""
    found, at = [], 0
    while at < len(data):
        tag, at = _number(data, at)
        kind = tag & 7
        end = at
        if kind == 0:
            end = _number(data, at)[1]
        elif kind == 2:
            length, at = _number(data, at)
            end = at + length
        else:
            end = at + {1: 8, 5: 4}.get(kind, len(data) + 1)
        if tag < 8 or end > len(data):
            raise DecodeError("no message")
        found.append(_Piece(tag >> 3, kind, data[at:end]))
        at = end
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends. Raises: DecodeError."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise DecodeError("truncated")


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def key(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


Change = Callable[[list[_Piece], int, Descriptor, Random], None]


def _drop(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    del pieces[index]


def _double(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    pieces[index:index] = [pieces[index]] * rng.choice((1, 1, 2, 300))


def _move(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    pieces.insert(rng.randrange(len(pieces)), pieces.pop(index))


def _exchange(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    """The value of another field of the same wire type."""
    alike = [piece for piece in pieces if piece.kind == pieces[index].kind]
    pieces[index] = pieces[index]._replace(value=rng.choice(alike).value)


def _renumber(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    number = rng.choice([*message.fields_by_number, 99, 536870911])
    pieces[index] = pieces[index]._replace(number=number)


def _value(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    piece = pieces[index]
    if piece.kind == 0:
        value = varint(rng.choice(NUMBERS)) if rng.random() < 0.7 else varint(rng.randrange(30))
        if rng.random() < 0.05:
            value = b"\x80" * rng.randrange(1, 12) + b"\x00"
    elif piece.kind == 2:
        value = rng.choice((rng.choice(TEXTS), piece.value[:-1], piece.value + b"\0", piece.value[1:], piece.value * 2))
    else:
        value = rng.randbytes(len(piece.value))
    pieces[index] = piece._replace(value=value)


def _length(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    """A length that is not that of the value: as a field of raw bytes which only looks like one."""
    piece = pieces[index]
    length = rng.choice((len(piece.value) + 1, max(0, len(piece.value) - 1), rng.choice(NUMBERS)))
    lie = varint(length) + piece.value
    # Wire type 2 writes its own length, so the key goes in as part of the value of the piece before.
    pieces[index] = _Verbatim(piece.number, 2, key(piece.number, 2) + lie)


class _Verbatim(_Piece):
    """Bytes that are written as they are."""

    def written(self) -> bytes:
        return self.value


def _unknown(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    number, kind = rng.choice((77, 1000, 100000)), rng.choice((0, 1, 2, 5))
    value = {0: varint(rng.choice(NUMBERS)), 1: rng.randbytes(8), 5: rng.randbytes(4)}.get(kind, rng.choice(TEXTS))
    pieces.insert(index, _Piece(number, kind, value))


def _nested(pieces: list[_Piece], index: int, message: Descriptor, rng: Random) -> None:
    """The message in itself, many times over, by way of a field that may hold it again."""
    loops = [field for field in message.fields if field.type == _MESSAGE and _leads_to(field.message_type, message)]
    if not loops:
        return
    field = rng.choice(loops)
    steps = _way(field.message_type, message)
    value = b"".join(piece.written() for piece in pieces)
    for _ in range(rng.choice((2, 10, 40, 120, 700))):
        for number in reversed([field.number, *steps]):
            value = _Piece(number, 2, value).written()
    pieces.append(_Verbatim(0, 2, value))


def _leads_to(begin: Descriptor, end: Descriptor) -> bool:
    return _way(begin, end) is not None


def _way(begin: Descriptor, end: Descriptor) -> list[int] | None:
    """The numbers of fields that lead from one message to another."""
    ways: dict[str, list[int]] = {begin.full_name: []}
    waiting = [begin]
    for message in waiting:
        if message.full_name == end.full_name:
            return ways[message.full_name]
        for field in message.fields:
            if field.type == _MESSAGE and field.message_type.full_name not in ways:
                ways[field.message_type.full_name] = [*ways[message.full_name], field.number]
                waiting.append(field.message_type)
    return None


_CHANGES: tuple[Change, ...] = (
    _drop,
    _double,
    _move,
    _exchange,
    _exchange,
    _renumber,
    *(_value,) * 6,
    _length,
    _unknown,
    _nested,
)
