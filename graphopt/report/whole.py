"""Writing a report, or a picture: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from graphopt.errors import UsageError
from graphopt.ir.whole import whole_file


def write_whole(path: str, text: str) -> None:
    """Puts `text` in the place of the file at `path`, in one step; what is no file, such as a pipe, is written to.

    Raises: UsageError GO014 when it cannot be written.
    """
    try:
        put_whole(Path(path), text.encode(errors="backslashreplace"))
    except OSError as error:
        raise UsageError("GO014", f"the report cannot be written: {error.strerror}", path) from error


def put_whole(path: Path, content: bytes) -> None:
    """What `write_whole` does, with bytes. Raises: OSError."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    with whole_file(path) as file:
        file.write(content)
