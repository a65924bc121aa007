"""Calibrations that were done, or begun, before: kept in a folder, and taken up where they stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphopt.errors import ModelError
from graphopt.ir import Model, Tensor, dtypes
from graphopt.ir.encode import initializers, model_without_weights
from graphopt.quantize.observe.shards import Shard, read, save
from graphopt.quantize.observe.statistics import Statistics


def cache_folder() -> Path:
    """Where programs of this user keep what can be made again: $XDG_CACHE_HOME or ~/.cache, and `graphopt` in it.

    Of a user who has no home it is a folder that cannot be.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(home):
        return Path(home) / "graphopt"
    try:
        return Path.home() / ".cache" / "graphopt"
    except RuntimeError:
        return Path(os.devnull) / "graphopt"


@dataclass(frozen=True)
class Cache:
    """Statistics by `model`, a key of the model that is tapped (`model_key`), what is tapped, and the data.

    They are written after every `every` batches, each file at once: processes that share `folder` do not meet. A file
    that cannot be read, or a folder that cannot be written to, is none.
    """

    model: str
    folder: Path = field(default_factory=cache_folder)
    every: int = 16

    def path(self, wanted: Mapping[str, Any], data: Iterable[str]) -> Path:
        """The file for these taps and the keys of these batches."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.model, *(f"{name}: {one!r}" for name, one in wanted.items()), *data):
            digest.update(len(part).to_bytes(8, "little") + part.encode())
        return self.folder / f"calibration-{digest.hexdigest()}.npz"

    def read(self, path: Path, names: Iterable[str]) -> tuple[dict[str, Statistics], int]:
        """The statistics of the first so many batches; none of no batch where there is no such file."""
        with suppress(ModelError):
            found, about = read(path)
            if isinstance(about.get("batches"), int) and list(found) == list(names):
                return found, about["batches"]
        return {}, 0

    def write(self, path: Path, shard: Shard, batches: int) -> None:
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            save(path, shard, batches=batches)


def model_key(model: Model) -> str:
    """A hash of a model with the numbers of its constants, wherever those lie; it reads them all.

    Raises: ModelError as `Tensor.numpy`.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(model_without_weights(model).SerializeToString(deterministic=True))
    for scope in model.scopes():
        for name, tensor in initializers(scope):
            digest.update(f"({name}:{tensor.dtype}:{tensor.shape}".encode())
            digest.update(_content(tensor))
    return digest.hexdigest()


def _content(tensor: Tensor) -> bytes | memoryview:
    if tensor.dtype == dtypes.STRING:
        return bytes(tensor.to_proto("").SerializeToString())
    return tensor.raw() or tensor.numpy().tobytes()
