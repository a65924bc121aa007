"""Temporary files that cannot be written: one error, wherever it happens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from graphopt.errors import ModelError


@contextmanager
def temporary_files() -> Iterator[None]:
    """What writes temporary files runs in it. Raises: ModelError GO076 for an OSError: no room, no such folder."""
    try:
        yield
    except OSError as error:
        message = f"a temporary file cannot be written: {error.strerror or error}"
        raise ModelError("GO076", message, _folder(error), "TMPDIR says where temporary files go") from error


def _folder(error: OSError) -> str:
    try:
        return str(error.filename or tempfile.gettempdir())
    except OSError:
        return ""
