"""Where calibration data comes from: one array for each input, a folder of files, a Python file, Python objects.

Each is read anew in each pass, one batch at a time. What cannot be read of one batch is handed on as an error in its
place, so that the rest can be had.
"""

from __future__ import annotations

import importlib.util
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.ir import Model
from graphopt.verify.inputs.given import UNREADABLE, check_archive, read_arrays

Array = npt.NDArray[Any]
Feeds = Mapping[str, Any]
Item = tuple[str, Feeds | ModelError]
"""What a batch is called, and its arrays or why there are none."""

_FORMS: Final = "give FILE.npz, a folder of .npz files, or FILE.py with batches()"


@dataclass(frozen=True)
class Source:
    """Batches as they are given: `items()` begins a pass; `size` is how many there are, None where nobody knows."""

    where: str
    items: Callable[[], Iterator[Item]]
    size: int | None = None
    notes: tuple[str, ...] = ()


def source_of(given: Any, model: Model, batch: int | None = None) -> Source:
    """The source of `given`: a path, a dict of arrays with samples along the first axis, an iterable of dicts, or a
    function that returns one.

    `batch` is how many samples of an array are one batch; None: as many as the model takes where that is fixed, or 1.
    Raises: ModelError GO024, GO115, GO119.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise ModelError("GO115", "there is no such calibration data", str(path), _FORMS)
        return _python(path) if path.suffix == ".py" else _archive(path, model, batch)
    if isinstance(given, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in given.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        return _sliced("calibration data", shapes, lambda: nullcontext(_all_rows(arrays)), model, batch)
    if isinstance(given, Iterator):
        hint = "give a list, or a function that returns a fresh iterator"
        raise ModelError("GO115", "the calibration data can be read only once", "calibration data", hint)
    if callable(given):
        return Source("calibration data", lambda: _called(given, "calibration data"))
    if isinstance(given, Iterable):
        size = len(given) if isinstance(given, Sequence) else None
        return Source("calibration data", lambda: _called(lambda: given, "calibration data"), size)
    raise ModelError("GO115", f"an object of type {type(given).__name__} is no calibration data", "", _FORMS)


# ---- a folder, a Python file -----------------------------------------------------------------------------------------


def _folder(path: Path) -> Source:
    files = sorted(file for file in path.iterdir() if file.suffix == ".npz")
    if not files:
        raise ModelError("GO115", "there is no .npz file in the folder", str(path), _FORMS)
    return Source(str(path), lambda: ((file.name, _read(file)) for file in files), len(files))


def _read(path: Path) -> Feeds | ModelError:
    try:
        return read_arrays(path)
    except ModelError as error:
        return error
    except UsageError as error:
        return ModelError("GO115", error.message, error.where, "it was there when the folder was listed")


def _python(path: Path) -> Source:
    batches = getattr(_module(path), "batches", None)
    if not callable(batches):
        hint = "def batches(): yield {name: array for each input}"
        raise ModelError("GO119", "the file has no function batches()", str(path), hint)
    return Source(str(path), lambda: _called(batches, str(path)))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"graphopt calibration {path}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ModelError("GO119", f"the file cannot be imported: {_told(error)}", str(path)) from error
    return module


def _called(batches: Callable[[], Iterable[Any]], where: str) -> Iterator[Item]:
    """What the user's own code gives; where it raises it is over, as a generator is."""
    number = 0
    try:
        for feeds in batches():
            yield f"batch {number}", _mapping(feeds, f"{where}: batch {number}")
            number += 1
    except GraphoptError:
        raise
    except (Exception, SystemExit) as error:
        hint = "the batches before it can be used: --skip-bad" if number else ""
        message = f"batch {number} cannot be had, nor what follows: {_told(error)}"
        yield f"batch {number}", ModelError("GO119", message, where, hint)


def _mapping(feeds: Any, where: str) -> Feeds | ModelError:
    if isinstance(feeds, Mapping):
        return feeds
    return ModelError("GO116", f"a batch is a {type(feeds).__name__}", where, "a dict is wanted, of arrays by name")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# ---- arrays with samples along the first axis ------------------------------------------------------------------------

Rows = Callable[[int], Array]
"""The next so many samples of an array."""


def _sliced(
    where: str,
    shapes: Mapping[str, tuple[int, ...]],
    opened: Callable[[], AbstractContextManager[Mapping[str, Rows]]],
    model: Model,
    batch: int | None,
) -> Source:
    """The source of arrays of these shapes; `opened` has what reads them from their first sample on.

    A scalar serves every sample. Where arrays have one axis more than the input, a sample is one run.
    """
    samples = {name: shape[0] for name, shape in shapes.items() if shape}
    if len(set(samples.values())) > 1:
        told = ", ".join(f"'{name}' {size}" for name, size in sorted(samples.items()))
        raise ModelError("GO116", f"the arrays have different numbers of samples: {told}", where)
    count = next(iter(samples.values()), min(len(shapes), 1))
    declared = {node.output.name: shape for node in model.graph.inputs if (shape := node.output.shape) is not None}
    whole = {name for name, shape in shapes.items() if len(shape) == len(declared.get(name, ())) + 1}
    firsts = {declared[name][0] for name in shapes if name not in whole and declared.get(name)}
    fixed = [size for size in firsts if isinstance(size, int)]
    size = batch or (fixed[0] if len(fixed) == 1 else 1) or 1
    left = count % size if fixed else 0
    if left == count > 0:
        hint = "give more samples, or export the model with a batch of any size"
        raise ModelError("GO116", f"the model takes {size} samples at a time, there are {count}", where, hint)
    notes = (f"{left} samples at the end are left out: the model takes {size} at a time",) if left else ()

    def items() -> Iterator[Item]:
        try:
            with opened() as rows:
                for start in range(0, count - left, size):
                    taken = {name: read(min(size, count - start)) for name, read in rows.items()}
                    name = f"sample {start}" if size == 1 else f"samples {start} to {min(start + size, count) - 1}"
                    yield name, {n: a[0] if n in whole and len(a) == 1 else a for n, a in taken.items()}
        except UNREADABLE as error:
            raise ModelError("GO024", f"the inputs cannot be read: {error}", where) from error

    return Source(where, items, math.ceil((count - left) / size), notes)


def _all_rows(arrays: Mapping[str, Array]) -> Mapping[str, Rows]:
    return {name: _rows(array) for name, array in arrays.items()}


def _rows(array: Array) -> Rows:
    if not array.ndim:
        return lambda count: array
    parts = iter(array)
    return lambda count: np.stack([next(parts) for _ in range(count)])


def _archive(path: Path, model: Model, batch: int | None) -> Source:
    """The arrays of an .npz file, read in parts: it may be larger than memory."""
    if not zipfile.is_zipfile(path):
        read_arrays(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            shapes = {name: _shape(archive, name, path) for name in _members(archive)}
    except UNREADABLE as error:
        raise ModelError("GO024", f"the inputs cannot be read: {error}", str(path)) from error
    return _sliced(str(path), shapes, lambda: _opened(path, list(shapes)), model, batch)


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _shape(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...]:
    with archive.open(f"{name}.npy") as file:
        shape, _, dtype = _header(file)
    if dtype.hasobject:
        hint = "numbers, or strings as an array of numpy's own type str, need no pickle"
        raise ModelError("GO024", f"the array '{name}' holds Python objects, which are not unpickled", str(path), hint)
    return shape


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of the .npy file that begins here."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


@contextmanager
def _opened(path: Path, names: Sequence[str]) -> Iterator[Mapping[str, Rows]]:
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        yield {name: _streamed(stack.enter_context(archive.open(f"{name}.npy"))) for name in names}


def _streamed(file: IO[bytes]) -> Rows:
    shape, fortran, dtype = _header(file)
    if fortran or not shape:
        return _rows(np.frombuffer(file.read(), dtype).reshape(shape, order="F"))
    size = dtype.itemsize * math.prod(shape[1:])

    def taken(count: int) -> Array:
        data = file.read(count * size)
        if len(data) < count * size:
            raise ValueError("an array ends before its last sample")
        return np.frombuffer(data, dtype).reshape(count, *shape[1:])

    return taken
