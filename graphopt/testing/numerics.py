"""Whether two models compute the same, on a few random inputs: a check of rules, not of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from graphopt.errors import GraphoptError
from graphopt.ir import Model, Value, dims, dtypes, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.tensor import Array
from graphopt.runtime import Runner, Session

_SIZES = ((2, 3, 5, 7, 4), (3, 1, 4, 2, 6))
# Relative to the largest element of an output: some hundred roundings of the narrowest type on the way.
_TOLERANCE = {np.dtype(np.float16): 1e-2, np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-12}
_TOLERANCE_BFLOAT16 = 5e-2

NOTHING = "nothing was checked"
"""Said of an output without a finite element."""
STUCK = "the result does not run"
"""Said of a model that onnxruntime does not run, made of one that it does."""

Ranges = Mapping[str, tuple[float, float]]
"""The least and the greatest element of an input, by name."""


def feeds(
    model: Model, given: Mapping[str, int], ranges: Ranges, sizes: tuple[int, ...], seed: int
) -> dict[str, Array]:
    """Random inputs; symbolic dimensions get `sizes` in the order in which they come, unless their size is `given`."""
    random = np.random.default_rng(seed)
    bound = dict(given)
    made: dict[str, Array] = {}
    for node in model.graph.inputs:
        if node.data is not None:
            continue
        value = node.output
        for size in value.shape or ():
            for name in sorted(dims.symbols(size)):
                bound.setdefault(name, sizes[len(bound) % len(sizes)])
        shape = [dims.evaluate(size, bound) for size in value.shape or ()]
        made[value.name] = _numbers(random, value.dtype, shape, ranges.get(value.name))
    return made


def _numbers(random: np.random.Generator, dtype: int, shape: list[int], limits: tuple[float, float] | None) -> Array:
    kind = dtypes.to_numpy(dtype)
    if dtype in dtypes.FLOATS:
        return (random.uniform(*limits, shape) if limits else random.standard_normal(shape)).astype(kind)
    low, high = limits or (0, 1)
    return random.integers(int(low), int(high) + 1, shape).astype(kind)


def difference(
    before: Model, after: Model, dims: Mapping[str, int], ranges: Ranges, runner: Runner, rounding: float = 0.0
) -> str:
    """How the outputs of two models differ on the same inputs; empty where they do not.

    With `rounding`, the root mean square of what they differ by may be as much, relative to that of the output. Raises:
    GraphoptError where onnxruntime does not run `before`.
    """
    inputs = _inputs(before, dims, ranges)
    wanted = _outputs(before, inputs, runner, "before")
    try:
        found = _outputs(after, inputs, runner, "after")
    except GraphoptError as error:
        return f"{STUCK}: {error.message}"
    return next(iter(_by_output(wanted, found, _coarsest(before), rounding=rounding).values()), "")


def differences(before: Model, after: Model, runner: Runner, slack: float = 1.0) -> dict[str, str]:
    """How each output that differs on the same inputs differs, by name; `slack` times the usual difference is allowed.

    Raises: GraphoptError where onnxruntime does not run one of the models.
    """
    inputs = _inputs(before, {}, {})
    wanted, found = _outputs(before, inputs, runner, "before"), _outputs(after, inputs, runner, "after")
    return _by_output(wanted, found, _coarsest(before), slack)


def _coarsest(model: Model) -> dict[str, float]:
    """The tolerance of the narrowest floats that each output was computed with; a Cast alone rounds once."""
    infer(model)
    found: dict[Value | None, float] = {}
    for node in model.graph.ops():
        made = [] if node.is_op("Cast") else [value.dtype for value in node.outputs if value.dtype in dtypes.FLOATS]
        own = max((_TOLERANCE.get(dtypes.to_numpy(dtype), _TOLERANCE_BFLOAT16) for dtype in made), default=0.0)
        found |= dict.fromkeys(node.outputs, max([own, *(found.get(value, 0.0) for value in node.inputs)]))
    return {value.name: found.get(value, 0.0) for value in model.graph.outputs}


def _inputs(model: Model, dims: Mapping[str, int], ranges: Ranges) -> list[dict[str, Array]]:
    return [feeds(model, dims, ranges, sizes, seed) for seed, sizes in enumerate(_SIZES)]


def _outputs(model: Model, inputs: Iterable[dict[str, Array]], runner: Runner, name: str) -> list[dict[str, Array]]:
    with _session(model, runner, name) as session:
        return [session.run(feed) for feed in inputs]


def _by_output(
    wanted: Iterable[dict[str, Array]],
    found: Iterable[dict[str, Array]],
    least: Mapping[str, float],
    slack: float = 1.0,
    rounding: float = 0.0,
) -> dict[str, str]:
    problems: dict[str, str] = {}
    for a, b in zip(wanted, found, strict=True):
        for name, x in a.items():
            y = b[name]
            problem = _rounded(name, x, y, rounding) if rounding else _differs(name, x, y, least[name], slack)
            # A difference says more than that there is nothing to compare.
            if problem and NOTHING in problems.get(name, NOTHING):
                problems[name] = problem
    return problems


def _session(model: Model, runner: Runner, name: str) -> Session:
    data = model_to_proto(model).SerializeToString()
    return runner.load(data, optimize=False, name=name, base=model.path.parent if model.path else None)


def _differs(name: str, a: Array, b: Array, least: float, slack: float) -> str:
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"output '{name}' is {b.dtype}{list(b.shape)}, was {a.dtype}{list(a.shape)}"
    if a.dtype.kind in "biuOUS":
        return "" if np.array_equal(a, b) else f"output '{name}' differs"
    x, y = a.astype(np.float64), b.astype(np.float64)
    if not np.isfinite(x).any():
        return f"output '{name}' has no finite element: {NOTHING}"
    finite = np.isfinite(x) & np.isfinite(y)
    apart = np.abs(x[finite] - y[finite]).max(initial=0.0)
    tolerance = max(least, _TOLERANCE.get(a.dtype, _TOLERANCE_BFLOAT16))
    allowed = slack * tolerance * np.abs(x[np.isfinite(x)]).max()
    if apart > allowed:
        return f"output '{name}' differs by {apart:.3g}, {allowed:.3g} is allowed"
    same = np.array_equal(np.where(np.isfinite(x), 0, x), np.where(np.isfinite(y), 0, y), True)
    return "" if same else f"output '{name}' differs in its infinite elements or NaN"


def _rounded(name: str, a: Array, b: Array, rounding: float) -> str:
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"output '{name}' is {b.dtype}{list(b.shape)}, was {a.dtype}{list(a.shape)}"
    x, y = a.astype(np.float64), b.astype(np.float64)
    whole, apart = np.sqrt(np.mean(x**2)), np.sqrt(np.mean((x - y) ** 2))
    if not whole:
        return f"output '{name}' is zero: {NOTHING}"
    return "" if apart <= rounding * whole else f"output '{name}' differs by {apart / whole:.3g} of its size"
