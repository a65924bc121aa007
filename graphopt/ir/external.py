"""Data beside a model: what a model says of other files is believed as far as it stays in the model's folder.

A location is a relative path of plain names. It is opened anew each time it is read, and never through a link.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from onnx import TensorProto

from graphopt.errors import ModelError
from graphopt.files import open_regular

KNOWN = ("location", "offset", "length", "checksum", "basepath")
"""The keys that onnx gives a meaning. Here a checksum is kept and not checked, and a basepath never followed."""

_NUMBER = re.compile(r"[0-9]{1,19}")
_MOST = (1 << 63) - 1
_SMALL = 1 << 16
_COPY = "copy the weights into the model's folder: a model may not read files elsewhere"


class Extent(NamedTuple):
    """Where a tensor says that its data lies, offset and length in bytes."""

    location: str
    offset: int
    length: int


def extent_of(proto: TensorProto, nbytes: int, where: str) -> Extent:
    """The entries of `proto`, whose type and shape say `nbytes`.

    Raises: ModelError GO037 when they are not of the form, GO034 when the length is wrong.
    """
    counts = Counter(entry.key for entry in proto.external_data)
    entries = {entry.key: entry.value for entry in proto.external_data if entry.key in KNOWN}
    for key in KNOWN:
        if counts[key] > 1:
            raise ModelError("GO037", f"external data has more than one '{key}'", where)
    offset, length = _number(entries, "offset", where), _number(entries, "length", where)
    # As in onnxruntime, a length of 0 is one that is not given.
    if length not in (0, nbytes):
        raise ModelError("GO034", f"type and shape take {nbytes} bytes, its external data has {length}", where)
    return Extent(entries.get("location", ""), offset, nbytes)


def _number(entries: dict[str, str], key: str, where: str) -> int:
    text = entries.get(key, "0")
    if not _NUMBER.fullmatch(text) or int(text) > _MOST:
        raise ModelError("GO037", f"the {key} of its external data is not a number of bytes: '{text}'", where)
    return int(text)


def path_of(base: Path, location: str, where: str) -> Path:
    """The real path of a location. Raises: ModelError GO030 when it is not below `base`, GO037 when it is none."""
    parts = Path(location).parts
    if not location:
        raise ModelError("GO037", "external data has no location", where)
    if ".." in parts or Path(location).is_absolute():
        raise ModelError("GO030", f"external data at '{location}' lies outside the model's folder", where, _COPY)
    # In a folder called "*" onnxruntime sees no file, but an address in its own memory.
    if not parts or parts[0] == "*" or "\\" in location or "\0" in location or location.endswith("/"):
        raise ModelError("GO037", f"the location of external data is no name of a file: '{location}'", where)
    return Path(os.path.realpath(base), *parts)


@contextmanager
def opened(base: Path, location: str, where: str) -> Iterator[tuple[int, int]]:
    """(descriptor, size in bytes) of the file at `location`.

    Raises: ModelError GO030 when it lies outside `base`, GO031 when it is missing or no file, GO037 when that is no
    location, GO038 when it is a link.
    """
    path = path_of(base, location, where)
    try:
        file, status = open_regular(path)
    except OSError as error:
        raise _not_opened(error, location, where) from error
    try:
        if status.st_nlink > 1:
            raise _link(f"external data '{location}' has another name as well, a hard link", where)
        yield file, status.st_size
    finally:
        os.close(file)


def mapped(base: Path, at: Extent, where: str) -> memoryview:
    """The bytes, mapped where they are many: a mapping holds a descriptor.

    Raises: as `opened`, and ModelError GO031 when the file is too short.
    """
    with opened(base, at.location, where) as (file, size):
        check_size(at, size, where)
        if not at.length:
            return memoryview(b"")
        if at.length <= _SMALL:
            return memoryview(os.pread(file, at.length, at.offset))
        begin = at.offset - at.offset % mmap.ALLOCATIONGRANULARITY
        try:
            whole = mmap.mmap(file, at.offset + at.length - begin, access=mmap.ACCESS_READ, offset=begin)
        except (OSError, ValueError) as error:
            raise ModelError("GO031", f"external data '{at.location}' cannot be read: {error}", where) from error
        return memoryview(whole)[at.offset - begin :]


def check_size(at: Extent, size: int, where: str) -> None:
    """Raises ModelError GO031 when a file of `size` bytes does not hold the extent."""
    if at.offset + at.length > size:
        message = f"external data '{at.location}' is too short: {at.length} bytes at {at.offset} wanted, {size} there"
        raise ModelError("GO031", message, where, "the file may be truncated, or belong to another model")


def _not_opened(error: OSError, location: str, where: str) -> ModelError:
    if error.errno == errno.ELOOP:
        return _link(f"external data '{location}' is, or lies behind, a symbolic link", where)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        hint = "external data lies beside the model: keep both together"
        return ModelError("GO031", f"external data '{location}' is missing", where, hint)
    if isinstance(error, IsADirectoryError) or error.errno == errno.EINVAL:
        return ModelError("GO031", f"external data '{location}' is not a file", where)
    return ModelError("GO031", f"external data '{location}' cannot be read: {error.strerror}", where)


def _link(message: str, where: str) -> ModelError:
    return ModelError("GO038", message, where, "put a copy of the file in its place: links are not followed")
