"""How large a model is, on disk and in weights."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.ir import Model
from graphopt.ir.encode import initializers, model_without_weights


@dataclass(frozen=True)
class Size:
    """Bytes: of the model's file and all `files` its weights live in, whole, and of the weights alone.

    Of a model that is in no file, `disk` is what it would take.
    """

    disk: int
    weights: int
    files: tuple[str, ...]


def size_of(model: Model) -> Size:
    """The size of a model; weights are not read."""
    weights = sum(tensor.nbytes for scope in model.scopes() for _, tensor in initializers(scope))
    if model.path is None:
        return Size(model_without_weights(model).ByteSize() + weights, weights, ())
    files = [model.path, *sorted(set(model.data_files.values()))]
    return Size(sum(path.stat().st_size for path in files), weights, tuple(map(str, files)))
