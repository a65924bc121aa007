"""Numbers against a floor: errors and noise in units of the local scale, apart by kind of scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.verify.numbers.scales import blocks, kinds, local_scales
from graphopt.verify.numbers.tolerance import CHAOTIC, K

_FEW: Final = 32
_MANY: Final = 0.25


class Precision(NamedTuple):
    """What a type can hold: the distance from 1 to the next number, and the smallest number that is not flushed."""

    epsilon: float
    smallest: float


@dataclass
class _Sum:
    """Of some numbers: how many, the largest, and the sum of squares."""

    count: int = 0
    largest: float = 0.0
    squares: float = 0.0

    def add(self, numbers: Array) -> None:
        self.count += numbers.size
        self.largest = max(self.largest, float(numbers.max(initial=0.0)))
        self.squares += _product(numbers, numbers)

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass
class _Kind:
    """The elements of about one scale. Noise and errors are in units of the local scale.

    `worst` is the largest error in floors, `old` the same for the reference where another one is the truth. `signal`
    is the reference itself, `moved` its noise and `distance` the error in the tensor's own unit.
    """

    noise: _Sum = field(default_factory=_Sum)
    error: _Sum = field(default_factory=_Sum)
    own: _Sum = field(default_factory=_Sum)
    signal: _Sum = field(default_factory=_Sum)
    other: _Sum = field(default_factory=_Sum)
    moved: _Sum = field(default_factory=_Sum)
    distance: _Sum = field(default_factory=_Sum)
    product: float = 0.0
    worst: float = 0.0
    old: float = 0.0
    off: int = 0


@dataclass(frozen=True)
class Judgement:
    """What the elements of one kind of scale show; `ratio` is the error in floors, `old` that of the reference.

    `passes` where the error is no more than the floors allowed, or than twice that of the reference; `off` are the
    elements that are further off. `floor` is in the tensor's unit, as `max_abs` and `rms` are. `chaotic` where the
    noise is as large as the signal.
    """

    max_abs: float
    scale: float
    rms: float
    cosine: float | None
    floor: float
    ratio: float
    old: float
    off: int
    passes: bool
    chaotic: bool


class _Floor(NamedTuple):
    """The largest noise and its rms, in units of the local scale."""

    largest: float
    rms: float


class _Piece(NamedTuple):
    """Some elements, all finite: reference, candidate, noise, and truth, with their scales, which may be a column."""

    a: Array
    b: Array
    noise: Array
    truth: Array | None
    scale: Array


def judge(
    a: Array,
    b: Array,
    draws: Sequence[Array],
    truth: Array | None,
    counted: Array,
    precision: Precision,
    allowed: float,
) -> list[Judgement]:
    """How far `b` is from `a`, matrices, for each kind of scale; only elements that are `counted`, all finite, do.

    With a `truth` both are held against that. `allowed` is the error that passes, in floors.

    Both the largest error is held against the largest noise, and the rms error against the rms noise: the first finds
    what is wrong in one place, the second what is a little wrong everywhere.
    """
    found: dict[int, _Kind] = {}
    if draws:
        for kind, piece in _pieces(a, b, draws, None, counted, precision):
            sums = found.setdefault(kind, _Kind())
            sums.noise.add(piece.noise / piece.scale)
            sums.moved.add(piece.noise)
    least = _Floor(precision.epsilon, precision.epsilon)
    floors = _floors(found, least)
    for kind, piece in _pieces(a, b, (), truth, counted, precision):
        _add(found.setdefault(kind, _Kind()), piece, floors.get(kind, least), precision.epsilon, allowed)
    bulk = _bulk(found)
    return [_judged(sums, floors.get(kind, least), bulk, precision, allowed) for kind, sums in found.items()]


def is_believable(truth: Array, a: Array, counted: Array, precision: Precision) -> bool:
    """Whether `truth`, of a model in float64, is that of `a`: near it at every element.

    It is not where the type saturates on purpose: the lowest number plus a score is the lowest number in float16.
    """
    return all(
        bool((np.abs(piece.a - piece.b) <= CHAOTIC * piece.scale).all())
        for _, piece in _pieces(a, truth, (), None, counted, precision)
    )


def _pieces(
    a: Array, b: Array, draws: Sequence[Array], truth: Array | None, counted: Array, precision: Precision
) -> Iterator[tuple[int, _Piece]]:
    """The elements, apart by kind of scale, a few rows at a time: no second copy of a large tensor is ever there."""
    for part in blocks(a):
        values = a[part].astype(np.float64)
        scale = local_scales(a[part], precision.smallest / precision.epsilon)
        noise = np.zeros(values.shape if draws else (1, 1))
        for draw in draws:
            with np.errstate(invalid="ignore"):
                np.fmax(noise, np.abs(draw[part].astype(np.float64) - values), out=noise)
        whole = _Piece(values, b[part].astype(np.float64), noise, None if truth is None else truth[part], scale)
        kind = kinds(scale)
        lowest, highest = int(kind.min()), int(kind.max())
        if lowest == highest and counted[part].all():
            yield lowest, whole
            continue
        for one in range(lowest, highest + 1):
            chosen = counted[part] & (kind == one)
            if chosen.any():
                yield one, _some(whole, chosen)


def _some(piece: _Piece, chosen: Array) -> _Piece:
    """Those elements of a piece, as vectors, that are `chosen`."""
    noise, scale = (np.broadcast_to(x, chosen.shape)[chosen] for x in (piece.noise, piece.scale))
    truth = None if piece.truth is None else piece.truth[chosen]
    return _Piece(piece.a[chosen], piece.b[chosen], noise, truth, scale)


def _floors(found: Mapping[int, _Kind], least: _Floor) -> dict[int, _Floor]:
    """The noise of each kind; where there are few elements, no less than is usual among most."""
    if not found:
        return {}
    usual = max(found.values(), key=lambda sums: sums.noise.count).noise.rms
    floors = {}
    for kind, sums in found.items():
        borrowed = usual if sums.noise.count < _FEW else 0.0
        largest, rms = max(sums.noise.largest, borrowed), max(sums.noise.rms, borrowed)
        floors[kind] = _Floor(max(largest, least.largest), max(rms, least.rms))
    return floors


def _add(sums: _Kind, piece: _Piece, floor: _Floor, epsilon: float, allowed: float) -> None:
    base = piece.a if piece.truth is None else piece.truth
    floors = np.maximum(floor.largest * piece.scale, epsilon * np.abs(piece.a))
    error = np.abs(piece.b - base)
    sums.error.add(error / piece.scale)
    worst = float((error / floors).max())
    sums.worst = max(sums.worst, worst)
    if worst > allowed:
        sums.off += int(np.count_nonzero(error > allowed * floors))
    if piece.truth is not None:
        own = np.abs(piece.a - base)
        sums.own.add(own / piece.scale)
        sums.old = max(sums.old, float((own / floors).max()))
    sums.signal.add(piece.a)
    sums.other.add(piece.b)
    sums.distance.add(error if piece.truth is None else np.abs(piece.b - piece.a))
    sums.product += _product(piece.a, piece.b)


def _product(a: Array, b: Array) -> float:
    """The inner product; not by BLAS, whose threads cost more than they save."""
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1)))


def _bulk(found: Mapping[int, _Kind]) -> float:
    """The least scale that many elements have."""
    total = sum(sums.signal.count for sums in found.values())
    return min((sums.signal.rms for sums in found.values() if sums.signal.count >= _MANY * total), default=0.0)


def _judged(sums: _Kind, floor: _Floor, bulk: float, precision: Precision, allowed: float) -> Judgement:
    scale, noise = sums.signal.rms, sums.noise.rms
    tests = ((sums.worst, sums.old), (sums.error.rms / floor.rms, sums.own.rms / floor.rms))
    norm = math.sqrt(sums.signal.squares) * math.sqrt(sums.other.squares)
    # Residues of numbers of another size are noise by nature: what they stand beside says how much of it is chaos.
    chaotic = K * noise > CHAOTIC and K * sums.moved.rms > CHAOTIC * max(scale, bulk) > 0
    return Judgement(
        max_abs=sums.distance.largest,
        scale=scale,
        rms=sums.distance.rms,
        cosine=min(1.0, sums.product / norm) if norm and math.isfinite(norm) else None,
        floor=max(sums.moved.largest, precision.epsilon * scale, precision.smallest),
        ratio=max(new for new, _ in tests),
        old=max(old for _, old in tests),
        off=sums.off,
        passes=all(new <= max(allowed, 2 * old) for new, old in tests),
        chaotic=chaotic,
    )
