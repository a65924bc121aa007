"""Side files: the weights that a model written here has beside it. What they are called, and when one may go.

One may go when nothing can miss it: it ends in our mark, was used by a model that has been replaced or was never
finished, and no other model of the folder may use it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from graphopt.errors import GraphoptError
from graphopt.ir import gate
from graphopt.ir.protos import tensors
from graphopt.ir.publish import left_behind

# The last bytes of each side file, behind all weights.
MARK = b"\nwritten by graphopt\n"

_LONGEST = 255 - len(".999.data")
_SMALL_FILE = 1 << 24
# Every writer of ONNX begins with the IR version, which is field 1.
_FIRST_BYTE = b"\x08"


def side_names(model: str) -> Iterator[str]:
    """What the side file of a model file of this name may be called, the usual one first."""
    stem = _stem(model)
    yield f"{stem}.data"
    number = 1
    while True:
        yield f"{stem}.{number}.data"
        number += 1


def locations(path: Path) -> frozenset[str] | None:
    """The external data that a model file refers to; None for a file that is not a readable model."""
    try:
        proto, _ = gate.read(path)
        entries = [entry for tensor in tensors(proto) for entry in tensor.external_data]
        return frozenset(entry.value for entry in entries if entry.key == "location")
    except (GraphoptError, OSError, ValueError):
        return None


def written_here(folder: int, model: str, names: Iterable[str]) -> list[str]:
    """Those of these names that are side files of the model file of this name."""
    form = re.compile(re.escape(_stem(model)) + r"(\.\d+)?\.data")
    return sorted(name for name in names if form.fullmatch(name) and _is_ours(folder, name))


def remove_unused(folder: int, path: Path, model: str, names: Iterable[str]) -> None:
    """Removes those of these side files of a model file that was replaced which nothing else in the folder uses."""
    for name in names:
        _remove(folder, path, name, but=model)


def remove_left_behind(folder: int, path: Path) -> None:
    """Removes what runs left in the folder `path` that were killed."""
    for hidden, companions in left_behind(folder):
        for name in companions:
            _remove(folder, path, name, but=hidden)
        with suppress(OSError):
            os.unlink(hidden, dir_fd=folder)


def _stem(model: str) -> str:
    # A location is UTF-8 and has no backslash.
    return model.encode(errors="replace")[:_LONGEST].decode(errors="ignore").replace("\\", "_")


def _remove(folder: int, path: Path, name: str, but: str) -> None:
    """Removes a side file unless a model other than `but`, here or in a folder above, may use it."""
    with suppress(OSError):
        here = [entry.name for entry in os.scandir(folder) if entry.name not in (name, but) and entry.is_file()]
        others = [path / other for other in here]
        others += [file for above in path.resolve().parents for file in above.glob("*.onnx") if file.is_file()]
        if _is_ours(folder, name) and not any(_may_use(other, name) for other in others):
            os.unlink(name, dir_fd=folder)


def _is_ours(folder: int, name: str) -> bool:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        there = os.fstat(file)
        regular = stat.S_ISREG(there.st_mode) and there.st_nlink == 1
        return regular and os.pread(file, len(MARK), max(0, there.st_size - len(MARK))) == MARK
    finally:
        os.close(file)


def _may_use(path: Path, name: str) -> bool:
    """Whether a file may be a model that refers to `name`: in doubt it is."""
    with path.open("rb") as file:
        if path.suffix != ".onnx" and file.read(1) != _FIRST_BYTE:
            return False
        if os.fstat(file.fileno()).st_size < _SMALL_FILE:
            file.seek(0)
            return os.fsencode(name) in file.read()
    found = locations(path)
    return found is None or any(Path(location).name == name for location in found)
