"""How large a model is, on disk and in weights."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.ir import Model
from graphopt.ir.encode import initializers


@dataclass(frozen=True)
class Size:
    """Bytes: of the model's file and all `files` its weights live in, whole, and of the weights alone."""

    disk: int
    weights: int
    files: tuple[str, ...]


def size_of(model: Model) -> Size:
    """The size of a model that was read from a file; weights are not read."""
    files = [path for path in (model.path, *sorted(set(model.data_files.values()))) if path is not None]
    weights = sum(tensor.nbytes for scope in model.scopes() for _, tensor in initializers(scope))
    return Size(sum(path.stat().st_size for path in files), weights, tuple(map(str, files)))
