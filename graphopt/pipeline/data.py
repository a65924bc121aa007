"""Data that a user gives: real inputs, and sizes of symbolic dimensions."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphopt.errors import ModelError, UsageError, near
from graphopt.ir import Model, Value, dtypes
from graphopt.ir.dims import symbols

Inputs = Mapping[str, np.typing.NDArray[Any]]


def read_inputs(path: str | os.PathLike[str]) -> Inputs:
    """The arrays of an `.npz` file by name. Raises: ModelError GO017 when it is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array, not a file of named arrays")
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise ModelError("GO017", "no such file", str(path)) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        hint = "numpy.savez(FILE, name=array, ...) writes one"
        raise ModelError("GO017", f"not a readable .npz file: {error}", str(path), hint) from error


def check_inputs(model: Model, inputs: Inputs) -> None:
    """Whether `inputs` can be fed to `model`.

    Raises: UsageError GO016 for a name that is no input and for an input that is missing, ModelError GO017 for an
    array whose type or shape is not the input's.
    """
    ports = {node.output.name: node for node in model.graph.inputs}
    for name in inputs:
        if name not in ports:
            raise UsageError("GO016", f"the model has no input '{name}'", "--inputs", near(name, ports))
    sizes: dict[str, int] = {}
    for name, node in ports.items():
        if name in inputs:
            _check_array(node.output, inputs[name], sizes)
        elif node.data is None:
            raise UsageError("GO016", f"no array for the input '{name}'", "--inputs", "name one array after each input")


def check_dims(model: Model, sizes: Mapping[str, int]) -> None:
    """Whether every name in `sizes` is a symbolic dimension of an input. Raises: UsageError GO012."""
    shapes = [node.output.shape or () for node in model.graph.inputs]
    known = {name for shape in shapes for size in shape for name in symbols(size) if "?" not in name}
    for name in sizes:
        if name not in known:
            hint = near(name, known) or "no input has a symbolic dimension"
            raise UsageError("GO012", f"no input has a dimension '{name}'", "--dim", hint)


def _check_array(value: Value, array: np.typing.NDArray[Any], sizes: dict[str, int]) -> None:
    """`sizes` holds the symbolic dimensions that earlier inputs have bound."""
    where = f"--inputs: '{value.name}'"
    wanted = dtypes.NAMES.get(value.dtype, "")
    if value.dtype and dtypes.to_numpy(value.dtype) != array.dtype:
        raise ModelError("GO017", f"its type is {array.dtype}, the model wants {wanted}", where)
    if value.shape is None:
        return
    shape = ", ".join(map(str, value.shape))
    if len(value.shape) != array.ndim:
        raise ModelError("GO017", f"its shape is {array.shape}, the model wants ({shape})", where)
    for size, given in zip(value.shape, array.shape, strict=True):
        bound = sizes.setdefault(str(size), given) if not isinstance(size, int) else size
        if bound != given:
            raise ModelError("GO017", f"its shape is {array.shape}, the model wants ({shape})", where, _bound(sizes))


def _bound(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} is {size}" for name, size in sizes.items() if "?" not in name)
