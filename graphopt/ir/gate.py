"""What is looked at before a file becomes a model: how large it is, how deep, how many parts, whether its text is text.

protobuf reads hostile bytes safely, but says little of what is wrong, hands out strings that are none, and takes a
hundred times the memory of a file that consists of empty messages.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from graphopt.errors import ModelError
from graphopt.files import open_regular
from graphopt.ir import wire

MOST_MESSAGES: Final = 10_000_000
"""A file with more parts (nodes, attributes, tensors, types, dimensions, ...) is refused: protobuf takes some 200 bytes
for each, even where the file has two."""

MOST_BYTES: Final = (1 << 31) - 1
"""protobuf's own limit, which holds for all of a model but the raw data of large initializers."""

DEEPEST: Final = 100
"""protobuf's own limit of messages in messages. A subgraph in a subgraph is three deeper."""

# Where a magic is, what it is of, what to do.
_FORMATS: Final = (
    (0, b"PK\x03\x04", "a zip archive, which torch.save writes", "export the model with torch.onnx.export"),
    (0, b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (0, b"\x89HDF", "an HDF5 file, which Keras writes", "convert it with tf2onnx"),
    (4, b"TFL3", "a model of TensorFlow Lite", "convert it with tf2onnx"),
    (4, b"ORTM", "a model in onnxruntime's own format", "take the .onnx that it was made from"),
    (0, b"GGUF", "a GGUF file, weights without a graph", "export the model it was made from"),
    (8, b'{"', "a safetensors file, weights without a graph", "export the model that they belong to"),
    (0, b"{", "JSON", "onnx.load reads it with format='json', and onnx.save writes protobuf"),
    (0, b"ir_version:", "its text form", "onnx.load reads it with format='textproto', and onnx.save writes protobuf"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with 'git lfs pull'"),
)
_TOO_DEEP: Final = "the model is nested too deep"
_DEEP: Final = f"protobuf, and with it every reader of ONNX, stops at {DEEPEST} messages in messages"
_TEXT: Final = "names and notes of a model are text"
_FILE: Final = "a model is a regular file that may be read"
_WIDTHS: Final = (0, 8, 0, 0, 0, 4, 0, 0)
_MOST_FIELDS: Final = 2 * MOST_MESSAGES
_MODEL: Final = onnx.ModelProto.DESCRIPTOR


def read(path: Path) -> tuple[onnx.ModelProto, dict[int, wire.Region]]:
    """The model in a file; the raw data of its large initializers stays there, and is told by their index.

    Raises: ModelError GO020-GO023 when there is no such file, or it is none of a model, GO039 when a string in it is
    not UTF-8, GO130 when it is too large, has too many parts or is nested too deep.
    """
    where = str(path)
    with _opened(path) as file:
        try:
            data = wire.contents(file)
            stamp = wire.stamp(os.fstat(file.fileno()))
        except OSError as error:
            raise ModelError("GO022", f"cannot be read: {error.strerror}", where, _FILE) from error
    try:
        kept, regions = wire.without_weights(data, path.resolve(), stamp)
    except DecodeError as error:
        raise _why_not(data, where) from error
    except OverflowError as error:
        raise ModelError("GO130", str(error), where, "split the model") from error
    return parsed(kept, where), regions


def _opened(path: Path) -> BinaryIO:
    """The file at `path`, a regular one with something in it."""
    where = str(path)
    try:
        file, status = open_regular(path, links=True)
    except FileNotFoundError as error:
        raise ModelError(
            "GO020", "no such file", where, "look at the path: it is relative to the current folder"
        ) from error
    except IsADirectoryError as error:
        raise ModelError("GO021", "this is a directory, not a model", where, "name the file in it") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelError("GO022", f"cannot be read: {reason}", where, _FILE) from error
    if not status.st_size:
        os.close(file)
        raise ModelError("GO023", "the file is empty", where, "write, or download, the model again")
    return os.fdopen(file, "rb")


def parsed(data: bytes, where: str) -> onnx.ModelProto:
    """The model that `data` says. Raises: as `read`."""
    if len(data) > MOST_BYTES:
        hint = "keep weights in external data"
        raise ModelError("GO130", "without its large weights the model is larger than 2 GB", where, hint)
    if _at_most(data) > MOST_MESSAGES and _scan(data)[0] > MOST_MESSAGES:
        raise ModelError("GO130", f"the model has more than {MOST_MESSAGES:,} parts", where, "split the model")
    try:
        text = _is_text(data)
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
    except DecodeError as error:
        raise _why_not(data, where) from error
    except UnicodeDecodeError as error:
        # Where protobuf runs without its fast half it reads all text at once.
        raise ModelError("GO039", f"the text {error.object[:60]!r} is not UTF-8", where, _TEXT) from error
    except MemoryError as error:
        raise ModelError("GO130", "the model takes more memory than there is", where, "split the model") from error
    if not text:
        _check_text(proto, where)
    return proto


def check(proto: onnx.ModelProto, where: str) -> None:
    """Looks at a model in memory as at one in a file. Raises: as `read`."""
    try:
        parsed(proto.SerializeToString(), where)
    except EncodeError:
        # More than protobuf writes: weights, as a rule, which may go to other files.
        _check_text(proto, where)


def _check_text(proto: onnx.ModelProto, where: str) -> None:
    for what in _no_text(proto):
        raise ModelError("GO039", f"{what} is not UTF-8", where, _TEXT)


def _why_not(data: bytes | memoryview, where: str) -> ModelError:
    """Why protobuf cannot read `data`."""
    for at, magic, what, hint in _FORMATS:
        if bytes(data[at : at + len(magic)]) == magic:
            return ModelError("GO023", f"not a readable ONNX protobuf but {what}", where, hint)
    reason = _scan(data)[1]
    if reason == _TOO_DEEP:
        return ModelError("GO130", reason, where, _DEEP)
    message = f"not a readable ONNX protobuf{': ' if reason else ''}{reason}"
    return ModelError("GO023", message, where, "the file may be truncated, or be something else than ONNX")


def _at_most(data: bytes) -> int:
    """No fewer than the messages in `data`, told by bytes that may begin one."""
    if len(data) <= 2 * MOST_MESSAGES:
        return len(data) // 2
    begins = _first_bytes()
    chunks = (data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20))
    return sum(len(chunk) - len(chunk.translate(None, begins)) for chunk in chunks)


@functools.cache
def _first_bytes() -> bytes:
    """The bytes that a key of a field that is a message may begin with: its lowest seven bits, and one for more."""
    kinds = _MODEL.file.message_types_by_name.values()
    todo, kinds = list(kinds), []
    while todo:
        kind = todo.pop()
        kinds.append(kind)
        todo += kind.nested_types
    low = {(number << 3 | 2) & 0x7F for kind in kinds for number in _messages(kind)}
    return bytes(byte for byte in range(256) if byte & 0x7F in low)


@functools.cache
def _messages(kind: Descriptor) -> dict[int, Descriptor]:
    """The kinds of the fields that are messages, by number."""
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


def _scan(data: bytes | memoryview) -> tuple[int, str]:
    """(messages, what is wrong) of the fields up to the first that is wrong, or that makes them too many.

    A frame of the stack is what is known of a message that has begun: its parts, its end, the number of a group.
    """
    count = fields = at = group = 0
    parts, end = _messages(_MODEL), len(data)
    stack: list[tuple[dict[int, Descriptor], int, int]] = []
    while stack or at < end:
        if at == end:
            if group:
                return count, "a group does not end"
            parts, end, group = stack.pop()
            continue
        fields += 1
        if fields > _MOST_FIELDS or count > MOST_MESSAGES:
            return MOST_MESSAGES + 1, ""
        try:
            tag, at = wire.read_varint(data, at, end)
            number, kind = tag >> 3, tag & 7
            after = at + _WIDTHS[kind]
            if kind in (0, 2):
                length, at = wire.read_varint(data, at, end)
                after = at + length if kind == 2 else at
        except DecodeError:
            return count, "it ends inside a number"
        if after > end:
            return count, f"a field of {after - at} bytes at {at} ends behind what holds it, which ends at {end}"
        if not number or kind > 5 or (kind == 4 and number != group):
            return count, f"no field begins like the one before {at}"
        if kind == 2 and number in parts:
            count += 1
            if at < after:
                stack.append((parts, end, group))
                parts, end, group = _messages(parts[number]), after, 0
        elif kind == 3:
            stack.append((parts, end, group))
            parts, group = {}, number
        elif kind == 4:
            parts, end, group = stack.pop()
        else:
            at = after
        if len(stack) >= DEEPEST:
            return count, _TOO_DEEP
    return count, ""


@functools.cache
def _strict() -> type[Message]:
    """ModelProto, by a schema that differs in one thing: every string is checked to be UTF-8 while it is read."""
    file = descriptor_pb2.FileDescriptorProto()
    _MODEL.file.CopyToProto(file)
    file.syntax, file.edition = "editions", descriptor_pb2.EDITION_2023
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("options")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    strict: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(_MODEL.full_name))
    return strict


def _is_text(data: bytes) -> bool:
    """Whether all strings are UTF-8; what else may be wrong makes it False, too."""
    try:
        _strict().FromString(data)
    except (DecodeError, UnicodeDecodeError):
        return False
    return True


def _no_text(proto: Message) -> Iterator[str]:
    """What of a message is not UTF-8, in words."""
    todo = [proto]
    while todo:
        message = todo.pop()
        for field, value in message.ListFields():
            values = [value] if isinstance(value, (str, bytes, Message)) else value
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                todo += values
            elif field.type == FieldDescriptor.TYPE_STRING:
                for bad in values:
                    if isinstance(bad, bytes):
                        yield f"the {field.name} {bad[:60]!r} of a {message.DESCRIPTOR.name}"
