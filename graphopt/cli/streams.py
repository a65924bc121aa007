"""Standard streams that are closed, or take no more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from graphopt.errors import UsageError


class _Stdout(io.TextIOWrapper):
    """Standard output. Raises UsageError GO014 where it takes no more; BrokenPipeError where nobody reads it."""

    def write(self, text: str) -> int:
        with self._open():
            return super().write(text)

    def flush(self) -> None:
        with self._open():
            super().flush()

    @contextmanager
    def _open(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python flushes once more at exit, which would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise UsageError("GO014", f"the report cannot be written: {error.strerror}", "standard output") from error


def open_streams() -> None:
    """Streams that were closed become /dev/null: else the next file that is opened would be one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    stdout = sys.stdout or os.fdopen(1, "w")
    encoding, lines = stdout.encoding, getattr(stdout, "line_buffering", False)
    # A name that the terminal cannot show is no reason to fail.
    sys.stdout = _Stdout(stdout.detach(), encoding, "backslashreplace", line_buffering=lines)  # type: ignore[union-attr]
