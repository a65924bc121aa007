"""Parts of files copied by the kernel: their bytes never come into the memory of this process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from graphopt.errors import ModelError
from graphopt.files import open_regular
from graphopt.ir.wire import Stored

# What a kernel says that cannot copy between these two files, so that another way is tried.
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_AT_ONCE = 1 << 30
_BUFFER = 1 << 20


class Sources:
    """The files that are copied from. One is open at a time: a model may have its weights in thousands."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def copy(self, stored: Stored, target: int) -> None:
        """Writes bytes of a file where `target` stands. Raises: ModelError GO031 when they cannot be read."""
        copy_range(self._opened(stored), stored.offset, stored.length, target)

    def _opened(self, stored: Stored) -> int:
        """The file that holds `stored`, whose bytes are there."""
        try:
            if stored.path != self._path:
                self._stack.close()
                self._file, _ = open_regular(stored.path)
                self._stack.callback(os.close, self._file)
                self._path = stored.path
            available = os.fstat(self._file).st_size
        except OSError as error:
            raise ModelError("GO031", f"'{stored.path}' cannot be read: {error.strerror}") from error
        if available < stored.offset + stored.length:
            raise ModelError("GO031", f"'{stored.path}' became shorter while it was copied")
        return self._file


def copy_range(source: int, offset: int, length: int, target: int) -> None:
    """Copies bytes of one open file to where another stands: shared where the file system can, holes as holes."""
    at = os.lseek(target, 0, os.SEEK_CUR)
    for begin, end in _extents(source, offset, offset + length):
        _copy_data(source, begin, target, at + begin - offset, end - begin)
    os.lseek(target, at + length, os.SEEK_SET)


def _extents(file: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that are not holes."""
    if not hasattr(os, "SEEK_DATA"):
        yield begin, end
        return
    while begin < end:
        try:
            begin = os.lseek(file, begin, os.SEEK_DATA)
            stop = os.lseek(file, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            stop = end
        if begin < end:
            yield begin, min(stop, end)
        begin = stop


def _copy_data(source: int, begin: int, target: int, at: int, length: int) -> None:
    while length:
        done = _copied(source, begin, target, at, min(length, _AT_ONCE))
        begin, at, length = begin + done, at + done, length - done


def _copied(source: int, begin: int, target: int, at: int, length: int) -> int:
    """Copies some bytes; returns how many. The kernel's copy shares blocks of one file system by itself."""
    if hasattr(os, "copy_file_range"):
        try:
            done = os.copy_file_range(source, target, length, begin, at)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            done = 0
        if done:
            return done
        # Between file systems.
        os.lseek(target, at, os.SEEK_SET)
        return os.sendfile(target, source, begin, length) or _ended()
    return os.pwrite(target, os.pread(source, min(length, _BUFFER), begin), at) or _ended()


def _ended() -> int:
    raise ModelError("GO031", "external data became shorter while it was copied")
