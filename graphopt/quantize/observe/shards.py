"""Statistics in files: what a cache holds, and what machines that calibrate a part each hand on."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Final

import numpy as np

from graphopt.errors import ModelError, close_names
from graphopt.ir.whole import whole_file
from graphopt.quantize.observe.histogram import Histogram
from graphopt.quantize.observe.statistics import Statistics

Shard = Mapping[str, Statistics]

_ARRAYS: Final = ("low", "high", "total", "rows", "keys", "gram", "outer_low", "outer_high")
_FORM: Final = "graphopt statistics 2"
_UNREADABLE: Final = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


def save(path: Path | str, shard: Shard, **about: Any) -> None:
    """Writes statistics by name to an .npz file, and `about`, which JSON can say; an existing file is replaced at once.

    Raises: OSError.
    """
    told = [
        {"name": name, "axis": one.axis, "count": one.count, "infinite": one.infinite} for name, one in shard.items()
    ]
    head = json.dumps({"form": _FORM, "values": told, "about": about})
    arrays = {"head": np.frombuffer(head.encode(), np.uint8)}
    for number, one in enumerate(shard.values()):
        some = np.flatnonzero(one.histogram.counts)
        arrays |= {f"{number}.bins": some.astype(np.int32), f"{number}.counts": one.histogram.counts[some]}
        arrays |= {f"{number}.{key}": array for key in _ARRAYS if (array := getattr(one, key)) is not None}
    _replace(Path(path), arrays)


def load(path: Path | str) -> dict[str, Statistics]:
    """What `save` wrote. Raises: ModelError GO122 where it cannot be read, or is something else."""
    return read(path)[0]


def read(path: Path | str) -> tuple[dict[str, Statistics], dict[str, Any]]:
    """The statistics, and what they were saved with. Raises: ModelError GO122."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            head = json.loads(archive["head"].tobytes())
            if head["form"] != _FORM:
                raise ValueError(f"it is of the form '{head['form']}'")
            return {told["name"]: _one(archive, i, told) for i, told in enumerate(head["values"])}, head["about"]
    except _UNREADABLE as error:
        hint = "write it with graphopt.quantize.observe.shards.save"
        raise ModelError("GO122", f"the statistics cannot be read: {error}", str(path), hint) from error


def merge(*shards: Shard | Path | str) -> dict[str, Statistics]:
    """The statistics of all data that the shards, or the files they are saved in, were calibrated on.

    Raises: ModelError GO121 where they are not of the same values, GO122 for a file that cannot be read.
    """
    found = [load(shard) if isinstance(shard, Path | str) else dict(shard) for shard in shards]
    return reduce(_both, found) if found else {}


def _both(a: dict[str, Statistics], b: dict[str, Statistics]) -> dict[str, Statistics]:
    different = sorted(a.keys() ^ b.keys())
    if different:
        near = close_names(different[0], (b if different[0] in a else a).keys())
        hint = f"another has '{near[0]}'" if near else "calibrate all shards with the same model"
        raise ModelError("GO121", f"only some of the shards have statistics of '{different[0]}'", "", hint)
    return {name: one.merge(b[name]) for name, one in a.items()}


def _one(archive: Any, number: int, told: Mapping[str, Any]) -> Statistics:
    arrays = {key: archive[f"{number}.{key}"] for key in _ARRAYS if f"{number}.{key}" in archive}
    histogram = Histogram.sparse(archive[f"{number}.bins"], archive[f"{number}.counts"])
    return Statistics(axis=told["axis"], count=told["count"], infinite=told["infinite"], histogram=histogram, **arrays)


def _replace(path: Path, arrays: Mapping[str, Any]) -> None:
    """Another process that reads or writes the file meets all of one or all of the other."""
    with whole_file(path) as file:
        np.savez(file, **arrays)
