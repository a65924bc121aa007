"""Numbers that took long to compute and are too many to keep: they lie in a temporary file without a name."""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable
from typing import IO

import numpy as np

from graphopt.errors import ModelError
from graphopt.ir.tensor import Array

_KEEP_BYTES = 65_536


class Shelf:
    """A temporary file that arrays are put into; it goes with the process."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def put(self, array: Array) -> Callable[[], Array]:
        """Writes `array`; returns what reads it. Small ones stay in memory.

        Raises: ModelError GO127 when the folder for temporary files has no room.
        """
        if array.nbytes <= _KEEP_BYTES:
            return lambda: array
        array = np.ascontiguousarray(array)
        with self._lock:
            try:
                if self._file is None:
                    self._file = _new_file()
                offset = self._file.seek(0, 2)
                self._file.write(array.reshape(-1).view(np.uint8).data)
            except OSError as error:
                hint = "TMPDIR says where temporary files go"
                raise ModelError(
                    "GO127", f"a temporary file cannot be written: {error.strerror}", tempfile.gettempdir(), hint
                ) from error
        shape, dtype = array.shape, array.dtype
        return lambda: self._read(offset, shape, dtype)

    def once(self, compute: Callable[[], tuple[Array, ...]]) -> Callable[[int], Array]:
        """What returns `compute()[index]`, and computes it but once."""
        readers: list[Callable[[], Array]] = []

        def read(index: int) -> Array:
            if not readers:
                readers.extend(map(self.put, compute()))
            return readers[index]()

        return read

    def _read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        assert self._file is not None
        data = np.empty(math.prod(shape), dtype)
        with self._lock:
            self._file.seek(offset)
            self._file.readinto(data.view(np.uint8).data)  # type: ignore[attr-defined]
        return data.reshape(shape)


def _new_file() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="graphopt-")
