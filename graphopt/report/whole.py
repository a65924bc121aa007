"""Writing a report: whole, or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

from graphopt.errors import UsageError
from graphopt.ir.publish import Draft, folder_at


def write_whole(path: str, text: str) -> None:
    """Puts `text` in the place of the file at `path`, in one step; what is no file, such as a pipe, is written to.

    Raises: UsageError GO014 when it cannot be written.
    """
    try:
        _write(Path(path), text.encode(errors="backslashreplace"))
    except OSError as error:
        raise UsageError("GO014", f"the report cannot be written: {error.strerror}", path) from error


def _write(path: Path, text: bytes) -> None:
    if path.exists() and not path.is_file():
        path.write_bytes(text)
        return
    target = path.resolve()
    old = target.stat() if target.exists() else None
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with folder_at(target.parent) as folder, closing(Draft(folder, old)) as draft:
        try:
            draft.write([text])
            draft.announce(0)
            draft.replace(target.name)
        finally:
            if not draft.is_at(target.name):
                draft.discard()
