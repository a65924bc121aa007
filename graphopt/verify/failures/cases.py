"""Cases that are kept: models, what they were run on, and notes, in a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from graphopt.errors import UsageError
from graphopt.ir.tensor import Array
from graphopt.runtime import Crash, External
from graphopt.verify.parts import Part

CRASHES: Final = "graphopt-crash-"
"""What folders of crashes are called in the system's folder for temporary files."""

_LONGEST_NAME = 80
_LARGEST_FILE = 1 << 30
"""Bytes of weights up to which a model is one file."""


def folder_for_cases(path: Path) -> Path:
    """`path`, made if it is not there. Raises: UsageError GO028 where it cannot be made, or be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("GO028", f"not a folder to write to: {error.strerror}", str(path)) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError("GO028", "not a folder to write to: Permission denied", str(path))
    return path


def keep(
    folder: Path | None,
    name: str,
    models: Mapping[str, onnx.ModelProto],
    feed: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Writes `models` (as `NAME.onnx`), the `feed` (as `inputs.npz`) and `texts` by file name; returns where they are.

    That is a new folder called `name`, or `name-2`, ..., in `folder`; without one in a fresh `graphopt-crash-…` in the
    system's folder for temporary files. What `inputs.npz` cannot hold (sequences, optionals) is left out.

    Raises: UsageError GO028 where it cannot be written; then nothing of it is left.
    """
    with _new_folder(folder, name) as place:
        for stem, model in models.items():
            large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST_FILE
            onnx.save(model, place / f"{stem}.onnx", save_as_external_data=large, location=f"{stem}.data")
        arrays = {key: array for key, array in feed.items() if isinstance(array, np.ndarray | np.generic)}
        np.savez(place / "inputs.npz", allow_pickle=False, **{key: _plain(array) for key, array in arrays.items()})
        for file, text in (texts or {}).items():
            (place / file).write_text(text)
    return place


def keep_crash(folder: Path | None, crash: Crash) -> Path:
    """Keeps what onnxruntime died of: the model as it was loaded, called after it, and what it was fed.

    To be called while the files that the weights lie in are there: within the `with` of the checks. Where `folder` is
    None the place is a fresh one, as in `keep`; the caller says it.
    """
    request = crash.request
    path = request.model if isinstance(request.model, Path) else None
    model = onnx.load(path, load_external_data=False) if path else onnx.load_model_from_string(bytes(request.model))
    base = request.base or (path.parent if path else None)
    _fill_all(model, request.external, base)
    return keep(folder, f"crash of {request.name}", {"case": model}, crash.feeds, {"crash.txt": f"{crash.message}\n"})


def standalone(part: Part) -> onnx.ModelProto:
    """A part of a model with its weights in it, while the files that they lie in are there."""
    model = onnx.load_model_from_string(part.proto)
    _fill_all(model, part.external, part.base)
    return model


def _fill_all(model: onnx.ModelProto, external: Mapping[str, External | Array], base: Path | None) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in external:
            _fill(tensor, external[tensor.name])
    if base is not None:
        external_data_helper.load_external_data_for_model(model, str(base))


@contextmanager
def _new_folder(folder: Path | None, name: str) -> Iterator[Path]:
    """A folder for a case, which goes again when it does not get all that belongs to it."""
    with ExitStack() as unfinished:
        try:
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix=CRASHES))
                unfinished.callback(shutil.rmtree, folder, ignore_errors=True)
            place = _fresh(folder, name)
            unfinished.callback(shutil.rmtree, place, ignore_errors=True)
            yield place
        except OSError as error:
            where = str(folder) if folder is not None else ""
            raise UsageError("GO028", f"a case cannot be kept: {error.strerror or error}", where) from error
        unfinished.pop_all()


def _fresh(folder: Path, name: str) -> Path:
    """A new folder called like `name`, as far as a file system takes it."""
    stem = re.sub(r"[^\w.+-]+", "_", name).strip("._")[:_LONGEST_NAME] or "case"
    number = 1
    while True:
        place = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return place


def _fill(tensor: TensorProto, source: External | Array) -> None:
    """Puts the data that the runtime was given for a declared initializer into it."""
    if isinstance(source, External):
        with source.path.open("rb") as file:
            file.seek(source.offset)
            tensor.raw_data = file.read(source.length)
    else:
        tensor.CopyFrom(numpy_helper.from_array(source, tensor.name))
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _plain(array: Any) -> Array:
    """An array that an .npz file holds without pickling."""
    plain: Array = np.asarray(array)
    if plain.dtype == object:
        return plain.astype(str)
    return plain.view(f"u{plain.itemsize}") if plain.dtype.kind == "V" else plain
