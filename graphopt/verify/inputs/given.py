"""The user's own inputs, checked against what the model declares."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from graphopt.errors import ModelError, UsageError, near
from graphopt.files import open_regular
from graphopt.ir import Model, Shape, Value, dims, dtypes
from graphopt.ir.tensor import Array
from graphopt.verify.inputs.feeds import DEFAULT, GIVEN, Feed

UNREADABLE: Final = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    KeyError,
    TypeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading an archive of arrays raises: NumPy believes the shape and the type that stand before the numbers."""

_LARGE: Final = 1 << 28
_MOST_TIMES: Final = 200


def given_feed(model: Model, inputs: Path | Mapping[str, Any], bound: Mapping[str, int] | None = None) -> Feed:
    """The user's own arrays, checked against the model's inputs and `bound` dimensions; lists are sequences.

    Raises: UsageError GO018 for names, shapes or types that do not fit; ModelError GO024 for an unreadable file.
    """
    where = str(inputs) if isinstance(inputs, Path) else "inputs"
    arrays: Mapping[str, Any] = read_arrays(inputs) if isinstance(inputs, Path) else inputs
    values = {node.output.name: node for node in model.graph.inputs if node.op == "Input"}
    for name in arrays:
        if name not in values:
            raise UsageError("GO018", f"the model has no input '{name}'", where, near(name, values))
    missing = [name for name, node in values.items() if name not in arrays and node.data is None]
    if missing:
        wanted = ", ".join(f"'{name}' {_declared(values[name].output)}" for name in missing)
        raise UsageError("GO018", f"no array for the input {wanted}", where, "one array for each input, by its name")
    sizes = dict(bound or {})
    given = {name: _fitting(values[name].output, array, sizes, where) for name, array in arrays.items()}
    defaults = {n: node.data.numpy() for n, node in values.items() if n not in arrays and node.data is not None}
    kinds = {**dict.fromkeys(arrays, GIVEN), **dict.fromkeys(defaults, DEFAULT)}
    return Feed(GIVEN, 0, {**given, **defaults}, kinds)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file, by name; nothing is unpickled.

    Raises: UsageError GO018 where there is no such file; ModelError GO024 where it cannot be read.
    """
    hint = "write it with numpy.savez, one array for each input, by its name"
    try:
        # A pipe would never end, and could not be read twice.
        file, _ = open_regular(path, links=True)
        with os.fdopen(file, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ModelError("GO024", "the inputs are one array, not an archive of named ones", str(path), hint)
            with archive:
                if archive.zip is not None:
                    check_archive(archive.zip, path)
                return {name: _member(archive, name, path) for name in archive.files}
    except FileNotFoundError as error:
        raise UsageError("GO018", "no such file", str(path)) from error
    except UNREADABLE as error:
        raise ModelError("GO024", f"the inputs cannot be read: {_why(error)}", str(path), hint) from error


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ModelError GO024 for a file that unpacks to so much more than it holds that nobody can have meant it."""
    size, unpacked = path.stat().st_size, sum(member.file_size for member in archive.infolist())
    if unpacked > max(_LARGE, _MOST_TIMES * size):
        message = f"the {size:,} bytes of the inputs unpack to {unpacked:,}"
        raise ModelError("GO024", message, str(path), "write them with numpy.savez, not compressed")


def _why(error: Exception) -> str:
    """Why a file cannot be read. NumPy takes whatever it does not know for a pickle."""
    if "pickle" in str(error):
        return "the file is no .npz archive"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _member(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> Array:
    try:
        found: Array = archive[name]
    except ValueError as error:
        hint = "numbers, or strings as an array of numpy's own type str, need no pickle"
        raise ModelError("GO024", f"the array '{name}' cannot be read: {error}", str(path), hint) from error
    return found


def _declared(value: Value) -> str:
    shape = "" if value.shape is None else f"[{', '.join(map(str, value.shape))}]"
    return f"{dtypes.NAMES.get(value.dtype, 'value')}{shape}"


def _fitting(value: Value, given: Any, sizes: dict[str, int], where: str) -> Any:
    """What is fed. Raises UsageError where it is not what the model declares; notes the sizes of named dimensions."""
    if not value.dtype:
        return given
    array = np.asarray(given)
    problem = f"the input '{value.name}' is {_declared(value)}, the array given is {array.dtype}{list(array.shape)}"
    typed = _typed(array, value.dtype)
    if typed is None:
        hint = f"convert it: array.astype('{'str' if value.dtype == dtypes.STRING else dtypes.NAMES[value.dtype]}')"
        raise UsageError("GO018", problem, where, hint)
    if value.shape is not None:
        _compare(value.shape, array.shape, sizes, problem, where)
    return typed


def _typed(array: Array, dtype: int) -> Array | None:
    """The array in the element type `dtype`, without a loss; None where it is of another.

    NumPy writes types that it lacks, such as bfloat16, as raw bytes.
    """
    if dtype == dtypes.STRING:
        return array.astype(object) if array.dtype.kind in "UO" else None
    wanted = dtypes.to_numpy(dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "V" and wanted.kind == "V" and array.dtype.itemsize == wanted.itemsize:
        return array.view(wanted)
    return array.astype(wanted) if array.dtype.newbyteorder("=") == wanted else None


def _compare(shape: Shape, given: tuple[int, ...], sizes: dict[str, int], problem: str, where: str) -> None:
    if len(shape) != len(given):
        raise UsageError("GO018", problem, where, f"{len(shape)} dimensions are wanted")
    for declared, size in zip(shape, given, strict=True):
        if isinstance(declared, int) and declared != size:
            raise UsageError("GO018", problem, where, f"a size of {declared} is wanted, not {size}")
        names = dims.symbols(declared)
        if len(names) == 1 and declared == dims.symbol(*names):
            known = sizes.setdefault(str(declared), size)
            if known != size:
                raise UsageError("GO018", problem, where, f"'{declared}' is {known} in another array or by --dim")
