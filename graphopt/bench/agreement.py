"""How well two models agree on the same inputs, in one figure: it tells apart, it proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def cosine(outputs: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    """The mean cosine of the first float output to the reference's, over the items of its leading axis.

    None where either model has no such output, or another shape of it, and where a number is not finite.
    """
    ours, theirs = _first_float(outputs), _first_float(reference)
    if ours is None or theirs is None or ours.shape != theirs.shape or ours.size == 0:
        return None
    a, b = (_rows(array) for array in (ours, theirs))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    same = (a == b).all(axis=1)
    cosines = np.where(same, 1.0, products / np.where(norms > 0, norms, 1.0))
    return float(np.clip(cosines, -1.0, 1.0).mean())


def _first_float(outputs: Mapping[str, Any]) -> Array | None:
    """The first output that holds floating-point numbers: also those that numpy itself lacks, such as bfloat16."""
    arrays = (value for value in outputs.values() if isinstance(value, np.ndarray))
    return next((array for array in arrays if array.dtype.kind == "f" or "float" in array.dtype.name), None)


def _rows(array: Array) -> Array:
    """One row in float64 for each item; all of it in one where the leading axis is the only one."""
    items = array.shape[0] if array.ndim > 1 else 1
    return array.astype(np.float64).reshape(items, -1)
