"""How large and how small values become, as far as constants, formulas and observation tell.

What is not known is taken to fit: a value that matters has to be observed. `peak` is the largest finite |x|, infinite
where nothing holds it; `floor` is what a value may not fall below, in absolute value, because somebody added it there
to divide by it: a small number that is no rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from graphopt.ir import Node, Tensor, Value, dtypes
from graphopt.ir.operands import axes, scalar
from graphopt.ir.tensor import Array

LARGEST: Final = 65504.0
SMALLEST_NORMAL: Final = 2.0**-14

# A chunk of this many elements at a time, so that no weight of a large model is in memory twice.
_CHUNK: Final = 1 << 20
_COARSE: Final = 0.01
"""Weights that rounding changes by more than this, in the mean square, are too small for half precision."""

VIEWS: Final = frozenset(
    {
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Slice", "Gather"),
        *("GatherND", "GatherElements", "Trilu", "DepthToSpace", "SpaceToDepth", "ReverseSequence"),
    }
)
"""Operators with one result, whose elements are those of the first operand, or 0."""
MOVERS: Final = VIEWS | {
    *("Split", "Dropout", "Compress", "Relu", "LeakyRelu", "Neg", "Abs", "Floor", "Ceil", "Round", "MaxPool"),
    *("GlobalMaxPool", "AveragePool", "GlobalAveragePool", "ReduceMax", "ReduceMin", "ReduceMean"),
}
"""Operators whose results are at most as large as their first operand."""
_LARGEST_OF: Final = frozenset({"Max", "Min", "Concat", "ScatterND", "ScatterElements", "Pad"})
_MEASURED: Final = dtypes.INTEGERS | {dtypes.FLOAT, dtypes.FLOAT16, dtypes.DOUBLE}
_BOUNDED: Final = frozenset(
    {
        *("Softmax", "Hardmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign", "Sin", "Cos", "Sign"),
        "LpNormalization",
    }
)
_SUMS: Final = frozenset({"ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceProd", "CumSum"})


@dataclass(frozen=True)
class Fit:
    """How weights are in half precision: the largest |w|, how many nonzero ones become 0, and the relative error."""

    peak: float
    vanished: int
    error: float

    @property
    def reason(self) -> str:
        """Why they cannot be half; empty where they can."""
        if not self.peak <= LARGEST:
            return f"holds {self.peak:.3g}"
        return "is too small for half precision" if self.error > _COARSE else ""


def fit(tensor: Tensor) -> Fit:
    """Looks at every number once, a chunk at a time; infinities and NaN are the same in half precision."""
    peak = total = lost = 0.0
    vanished = 0
    flat = tensor.numpy().reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        chunk = chunk[np.isfinite(chunk)]
        if not chunk.size:
            continue
        peak = max(peak, float(np.abs(chunk).max()))
        half = to_half(chunk)
        vanished += int(np.count_nonzero((half == 0) & (chunk != 0)))
        # In float64: the squares of what is too small for half precision are too small for float32.
        wide = chunk.astype(np.float64)
        total += float(wide @ wide)
        wide -= half
        lost += float(wide @ wide)
    return Fit(peak, vanished, math.sqrt(lost / total) if total else 0.0)


def to_half(numbers: Array) -> Array:
    """float16 of the same numbers; what is too large becomes infinite without a warning."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float16)


@dataclass
class Reach:
    """What is known of float values. `observed` are the largest |x| that were seen, by name.

    Values are those of `Value.resolved`. `counted` are made of integers and truths alone: masks, positions, lengths.
    """

    observed: Mapping[str, float]
    fits: dict[Value, Fit] = field(default_factory=dict)
    peaks: dict[Value, float] = field(default_factory=dict)
    floors: dict[Value, float] = field(default_factory=dict)
    counted: set[Value] = field(default_factory=set)
    _given: set[Value] = field(default_factory=set)

    def fit(self, value: Value) -> Fit | None:
        """How the constant `value` is in half precision; None where it is no constant."""
        value = value.resolved
        if value not in self.fits and (tensor := value.tensor) is not None and tensor.dtype in _MEASURED:
            self.fits[value] = fit(tensor)
        return self.fits.get(value)

    def peak(self, value: Value | None) -> float | None:
        """The largest |x|; None where it is not known."""
        if value is None:
            return None
        found = self.fit(value)
        return found.peak if found is not None else self.peaks.get(value.resolved)

    def floor(self, value: Value | None) -> float | None:
        return self.floors.get(value.resolved) if value is not None else None

    def given(self, value: Value) -> None:
        """Says that the graph input `value` may hold any number, whatever was observed."""
        self._given.add(value)

    def source(self, value: Value) -> None:
        """Takes in what was observed of a graph input."""
        if value in self._given:
            self.peaks[value] = math.inf
        elif value.name in self.observed:
            self.peaks[value] = _finite(self.observed[value.name])

    def follow(self, node: Node) -> None:
        """Takes in what one operation says of its results; its operands were followed before."""
        made = _made_of_integers(node, self.counted)
        static = _RULES.get(node.op, _unknown)(node, self) if not node.domain else None
        for value in node.outputs:
            if value.dtype != dtypes.FLOAT:
                continue
            seen = self.observed.get(value.name)
            if made:
                self.counted.add(value)
            if seen is not None and not (made and static is not None and static > seen):
                # What was seen is what happens, but for a mask that no sample made use of.
                self.peaks[value] = _finite(seen)
            elif static is not None:
                self.peaks[value] = static
        floor = _floor(node, self)
        if floor is not None:
            self.floors[node.output] = floor


def _finite(number: float) -> float:
    return math.inf if math.isnan(number) else abs(number)


def _made_of_integers(node: Node, counted: set[Value]) -> bool:
    """Whether nothing but integers, truths, and small constants go in: no activation, no weight."""
    if node.op in ("Gather", "GatherND", "GatherElements") and (table := node.input(0)) is not None:
        return table.resolved in counted
    if node.domain or node.graphs or node.op == "DequantizeLinear":
        return False
    floats = [value for value in node.inputs[: node.arity] if value is not None and value.dtype in dtypes.FLOATS]
    return all(value.resolved in counted or _is_small(value) for value in floats)


def _is_small(value: Value) -> bool:
    tensor = value.resolved.tensor
    return tensor is not None and tensor.size <= 1024


def _unknown(node: Node, reach: Reach) -> float | None:
    return None


def _first(node: Node, reach: Reach) -> float | None:
    return reach.peak(node.input(0))


def _largest_of(node: Node, reach: Reach) -> float | None:
    known = [peak for value in _floats(node) if (peak := reach.peak(value)) is not None]
    complete = len(known) == len(list(_floats(node)))
    return max(known) if known and (complete or max(known) > LARGEST) else None


def _sum(node: Node, reach: Reach) -> float | None:
    peaks = [reach.peak(value) for value in _floats(node)]
    known = [peak for peak in peaks if peak is not None]
    if len(known) == len(peaks):
        return sum(known)
    return max(known) if known and max(known) > LARGEST else None


def _product(node: Node, reach: Reach) -> float | None:
    a, b = node.input(0), node.input(1)
    first, second = reach.peak(a), reach.peak(b)
    if first is not None and second is not None:
        return first * second if first and second else 0.0
    if a is not None and a is b:
        return math.inf
    known = first if first is not None else second
    return known if known is not None and known > LARGEST else None


def _quotient(node: Node, reach: Reach) -> float | None:
    divisor, peak = scalar(node.input(1)), reach.peak(node.input(0))
    return peak / abs(divisor) if divisor and peak is not None else None


def _power(node: Node, reach: Reach) -> float | None:
    exponent, peak = scalar(node.input(1)), reach.peak(node.input(0))
    if exponent is not None and 0 <= exponent <= 1:
        return None if peak is None else max(1.0, peak)
    if exponent is None or exponent < 0 or peak is None:
        return math.inf
    return _limited(lambda: peak**exponent)


def _exp(node: Node, reach: Reach) -> float | None:
    peak = reach.peak(node.input(0))
    return _limited(lambda: math.exp(peak)) if peak is not None else math.inf


def _limited(formula: Callable[[], float]) -> float:
    try:
        return formula()
    except OverflowError:
        return math.inf


def _reduced_sum(node: Node, reach: Reach) -> float | None:
    x, along = node.input(0), axes(node)
    peak = reach.peak(x)
    if node.op != "ReduceSum" or x is None or x.shape is None or along is None or peak is None:
        return math.inf
    sizes = [x.shape[axis] for axis in along]
    return peak * math.prod(size for size in sizes if isinstance(size, int)) if _numbers(sizes) else math.inf


def _numbers(sizes: Iterable[object]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _one(node: Node, reach: Reach) -> float | None:
    return 1.0


def _clip(node: Node, reach: Reach) -> float | None:
    low = node.attrs.get("min", scalar(node.input(1)))
    high = node.attrs.get("max", scalar(node.input(2)))
    return max(abs(low), abs(high)) if low is not None and high is not None else reach.peak(node.input(0))


def _cast(node: Node, reach: Reach) -> float | None:
    x = node.input(0)
    return 1.0 if x is not None and x.dtype == dtypes.BOOL else reach.peak(x)


def _filled(node: Node, reach: Reach) -> float | None:
    value = node.attr("value")
    if not isinstance(value, Tensor):
        return 0.0
    return fit(value).peak if value.dtype in _MEASURED else None


def _normalized(node: Node, reach: Reach) -> float | None:
    """|x − mean| / deviation of n numbers is at most √n."""
    x, scale, shift = node.input(0), reach.peak(node.input(1)), node.input(2)
    size = x.shape[-1] if x is not None and x.shape else None
    bias = 0.0 if shift is None else reach.peak(shift)
    if not isinstance(size, int) or scale is None or bias is None or node.attr("axis", -1) != -1:
        return None
    return math.sqrt(size) * scale + bias


def _floats(node: Node) -> Iterator[Value]:
    return (value for value in node.inputs[: node.arity] if value is not None and value.dtype == dtypes.FLOAT)


def _floor(node: Node, reach: Reach) -> float | None:
    """What the result is not below, where that is so little that half precision would lose it."""
    if node.domain:
        return None
    known = reach.floor(node.input(0))
    match node.op:
        case "Add" | "Max" | "Sum" | "Clip":
            numbers = (scalar(value) for value in node.inputs[: node.arity])
            small = [number for number in numbers if number is not None and 0 < number < SMALLEST_NORMAL]
            least = node.attrs.get("min", 0.0) if node.op == "Clip" else 0.0
            return min(small) if small else (least if 0 < least < SMALLEST_NORMAL else None)
        case "Sqrt":
            return math.sqrt(known) if known is not None else None
        case "Pow":
            exponent = scalar(node.input(1))
            return known**exponent if known is not None and exponent is not None and 0 < exponent <= 1 else None
    return known if node.op in MOVERS else None


_RULES: Final[Mapping[str, Callable[[Node, Reach], float | None]]] = {
    **dict.fromkeys(MOVERS, _first),
    **dict.fromkeys(_LARGEST_OF, _largest_of),
    **dict.fromkeys(_BOUNDED, _one),
    **dict.fromkeys(_SUMS, _reduced_sum),
    "Where": _largest_of,
    "Add": _sum,
    "Sub": _sum,
    "Sum": _sum,
    "Mul": _product,
    "Div": _quotient,
    "Pow": _power,
    "Exp": _exp,
    "Clip": _clip,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "LayerNormalization": _normalized,
    "RMSNormalization": _normalized,
    "SimplifiedLayerNormalization": _normalized,
}
