"""Calibration batches against the inputs of the model: names, types, shapes, and numbers that are some."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.errors import ModelError, UsageError
from graphopt.ir import Model, dtypes
from graphopt.verify.inputs.given import given_feed
from graphopt.verify.inputs.meanings import meanings

Array = npt.NDArray[Any]


class Checker:
    """Checks batches for one model. `notes` are sentences about what it changed in them."""

    def __init__(self, model: Model, notes: tuple[str, ...] = ()) -> None:
        self._model = model
        self._inputs = {node.output.name: node.output for node in model.graph.inputs if node.op == "Input"}
        self._notes = dict.fromkeys(notes)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def checked(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The arrays as the model takes them; integers and floats of another width are converted.

        Raises: ModelError GO116 for names, types and shapes that do not fit, GO117 for what is empty or not finite.
        """
        try:
            fitting = given_feed(self._model, {name: self._cast(name, array) for name, array in given.items()}).arrays
        except UsageError as error:
            raise ModelError("GO116", error.message, where, error.hint) from error
        feeds = {name: fitting[name] for name in given}
        self._check({name: value for name, value in feeds.items() if isinstance(value, np.ndarray)}, where)
        return feeds

    def _cast(self, name: str, given: Any) -> Any:
        """`given` in the type of the input `name`; as it is where numbers would not stay what they are, but for floats
        that get less precise."""
        dtype = self._inputs[name].dtype if name in self._inputs else 0
        if not dtype or dtype == dtypes.STRING:
            return given
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise UsageError("GO018", f"the input '{name}' is given no array: {error}") from error
        wanted = dtypes.to_numpy(dtype)
        both = array.dtype.kind + wanted.kind
        if array.dtype == wanted or not (both == "ff" or set(both) <= set("biu")):
            return array
        with np.errstate(all="ignore"):
            cast = array.astype(wanted)
        if both != "ff" and not np.array_equal(cast, array):
            return array
        self._notes[f"the input '{name}' is given as {array.dtype} and read as {wanted}"] = None
        return cast

    def _check(self, arrays: Mapping[str, Array], where: str) -> None:
        without = [name for name, array in arrays.items() if array.ndim and not len(array)]
        if without or (arrays and not any(array.size for array in arrays.values())):
            name = next(iter(without or arrays))
            raise ModelError("GO117", f"the batch is empty: '{name}' has the shape {list(arrays[name].shape)}", where)
        for name, array in arrays.items():
            bad = _not_finite(array)
            # Infinities belong into what is added to scores, and nowhere else.
            if bad and (np.isnan(array).any() or self._kinds[name] != "bias"):
                what = "NaN" if np.isnan(array).any() else "infinities"
                raise ModelError("GO117", f"the input '{name}' has {what}: {bad} of {array.size} numbers", where)

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """What each input means."""
        return {name: meaning.kind for name, meaning in meanings(self._model).items()}


def _not_finite(array: Array) -> int:
    return int(array.size - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
