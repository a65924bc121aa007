"""What a fuzzed model runs on, and whether two results are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.ir import dims
from graphopt.runtime import Port, RunError, Session

Array = np.ndarray[Any, Any]

_DTYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}
_TOLERANCE = {"float16": 2e-2, "float32": 2e-4, "float64": 1e-6}
"""Differences that reordered sums make, as a share of the value or of the rms of the output."""
_NUDGE = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12}
"""By how much inputs are moved."""
_CANCELLED = {"float16": 1e-2, "float32": 1e-6, "float64": 1e-12}
"""What a sum that cancels may be off by. Half precision: onnxruntime keeps some values in float32 from node to node."""
_LARGEST = 1 << 22
"""Elements of an input."""
_SIZES = ({}, {"": 2}, {"": 1}, {"": 4}, {"": 3})
"""What symbolic sizes are, all or by name: first each has its own."""


def fed(session: Session, given: Mapping[str, Any] | None, seed: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(feeds, outputs) of a session that runs; None where nothing that is tried makes it run.

    `given` are feeds that are taken where type and shape fit. Raises: RuntimeCrash.
    """
    for sizes in _SIZES:
        rng = np.random.default_rng([seed, len(sizes), sizes.get("", 0)])
        feeds = {port.name: _given(port, given or {}) for port in session.inputs}
        if any(feed is None for feed in feeds.values()):
            known = dict(sizes)
            for port in session.inputs:
                feeds[port.name] = feeds[port.name] if feeds[port.name] is not None else _made(port, known, rng)
        if any(feed is None for feed in feeds.values()):
            return None
        try:
            return feeds, session.run(feeds)
        except RunError:
            if not any(isinstance(size, str) or size is None for port in session.inputs for size in port.shape):
                return None
    return None


def _given(port: Port, given: Mapping[str, Any]) -> Array | None:
    feed = given.get(port.name)
    kind = re.fullmatch(r"tensor\((\w+)\)", port.type)
    if feed is None or kind is None or feed.dtype != _DTYPES.get(kind[1]) or feed.ndim != len(port.shape):
        return None
    fits = all(not isinstance(size, int) or size == have for size, have in zip(port.shape, feed.shape, strict=True))
    return np.asarray(feed) if fits else None


def _made(port: Port, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    """A feed of its type; None for what is not made."""
    if port.type.startswith("optional"):
        return None
    kind = re.fullmatch(r"(seq\()?tensor\((\w+)\)\)?", port.type)
    if kind is None:
        return None
    shape = []
    for place, size in enumerate(port.shape):
        if isinstance(size, int) and size >= 0:
            shape.append(size)
        else:
            shape.append(_size(size if isinstance(size, str) else f"unknown {port.name} {place}", sizes, rng))
    if np.prod(shape, dtype=float) > _LARGEST:
        return None
    if kind[1]:
        return [_array(kind[2], (2, 3), rng) for _ in range(2)]
    return _array(kind[2], tuple(shape), rng)


def _size(text: str, sizes: dict[str, int], rng: np.random.Generator) -> int:
    """A size for a name, the same for the same name; an expression is what it says."""
    said = dims.parse(text)
    for name in sorted(dims.symbols(said)):
        sizes.setdefault(name, sizes.get("", 0) or int(rng.integers(1, 6)))
    return max(0, dims.evaluate(said, sizes))


def _array(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    if kind == "string":
        return rng.choice(np.array(["a", "bc", "", "Ω"], object), shape)
    if kind not in _DTYPES:
        return None
    dtype = np.dtype(_DTYPES[kind])
    if dtype.kind == "f":
        return np.asarray(rng.normal(size=shape)).astype(dtype)
    return np.asarray(rng.integers(0, 2 if dtype.kind == "b" else 4, shape)).astype(dtype)


def nudged(feeds: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Feeds with every float moved by a little."""
    rng = np.random.default_rng(seed)
    return {name: _nudged(feed, rng) for name, feed in feeds.items()}


def _nudged(feed: Any, rng: np.random.Generator) -> Any:
    nudge = _NUDGE.get(str(getattr(feed, "dtype", "")))
    if nudge is None:
        return feed
    return np.asarray(feed * (1 + nudge * rng.choice([-1.0, 1.0], feed.shape)).astype(feed.dtype))


def difference(expected: Mapping[str, Any], found: Mapping[str, Any], moved: Sequence[Mapping[str, Any]] = ()) -> str:
    """In what two results differ beyond rounding; empty where they do not.

    What differs between `expected` and a result of `moved`, inputs moved by a little, is chaos and does not count.
    """
    for name, value in expected.items():
        if name not in found:
            return f"'{name}' is no output any more"
        what = _difference(value, found[name], [result[name] for result in moved])
        if what:
            return f"'{name}': {what}"
    return ""


def _difference(a: Any, b: Any, moved: Sequence[Any]) -> str:
    if isinstance(a, list) or isinstance(b, list):
        if not isinstance(a, list) or not isinstance(b, list) or len(a) != len(b):
            return "another sequence"
        draws = [draw for draw in moved if len(draw) == len(a)]
        found = (_difference(a[i], b[i], [draw[i] for draw in draws]) for i in range(len(a)))
        return next(filter(None, found), "")
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return "" if type(a) is type(b) and (a is b or a == b) else f"{a!r} became {b!r}"[:200]
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{list(a.shape)} became {b.dtype}{list(b.shape)}"
    off = _off(a, b)
    for draw in moved:
        off &= ~_off(a, draw, 0.1) if draw.shape == a.shape else False
    if not off.any():
        return ""
    at = np.unravel_index(int(np.argmax(off)), a.shape)
    return f"{int(off.sum())} of {a.size} elements, {a[at]!r} became {b[at]!r} at {list(map(int, at))}"


def _off(a: Array, b: Array, share: float = 1.0) -> Array:
    """Where two arrays differ by more than a `share` of what is allowed."""
    tolerance = _TOLERANCE.get(str(a.dtype))
    if tolerance is None:
        return np.asarray(a.view(f"u{a.itemsize}") != b.view(f"u{a.itemsize}") if a.dtype.kind == "V" else a != b)
    with np.errstate(all="ignore"):
        x, y = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(x)
        rms = float(np.sqrt(np.mean(np.square(x[finite])))) if finite.any() else 0.0
        allowed = share * (tolerance * (rms + np.abs(x)) + _CANCELLED[str(a.dtype)])
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        return np.asarray(~same & ~(np.abs(x - y) <= allowed))


def is_garbage(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Whether a rounded model's outputs have nothing to do with the original's; what says so."""
    for name, value in expected.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.size < 8:
            continue
        other = found.get(name)
        if other is None or other.shape != value.shape or other.dtype != value.dtype:
            return f"'{name}' has another type or shape"
        if np.isfinite(value).all() and not np.isfinite(other).all():
            return f"'{name}' is not finite any more"
    return ""
