"""Protobuf messages without some of their parts: a copy that would be cut down afterwards costs all the weights."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

M = TypeVar("M", bound=Message)


def copy_fields(source: M, target: M, *without: str) -> M:
    """Adds to `target` what `source` says, but for the fields named; fields that the schema does not know come along."""
    for field, value in source.ListFields():
        if field.name in without:
            continue
        if isinstance(value, (bool, int, float, str, bytes)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)
    unknown = UnknownFieldSet(source)
    if len(unknown):
        target.MergeFromString(_encode(unknown))
    return target


def _encode(fields: UnknownFieldSet) -> bytes:
    """The wire format of fields that the schema does not know."""
    parts = []
    for field in fields:
        key = field.field_number << 3
        match field.wire_type:
            case 0:
                parts += [_varint(key), _varint(field.data)]
            case 1:
                parts += [_varint(key | 1), field.data.to_bytes(8, "little")]
            case 2:
                parts += [_varint(key | 2), _varint(len(field.data)), field.data]
            case 3:
                parts += [_varint(key | 3), _encode(field.data), _varint(key | 4)]
            case 5:
                parts += [_varint(key | 5), field.data.to_bytes(4, "little")]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
