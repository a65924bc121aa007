"""Arithmetic and comparisons of dimensions beyond polynomials. Every symbol stands for a number ≥ 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphopt.ir import dims
from graphopt.ir.dims import Dim, Size

Part = Size | None
Partial = tuple[Part, ...]
INFINITY = (1 << 31) - 1
"""Bounds from here on mean "to the end": no dimension is as large."""


MOST_AXES = 1024
"""Tensors of a higher rank are not followed."""
_MOST_TERMS = 16
_LONGEST_NAME = 96
_LARGEST = 2**63 - 1


def is_plain(a: Part) -> bool:
    """Whether `a` is known and small enough to go on with: minima of minima grow without end along a deep model.

    So do numbers, of which no runtime has more than 64 bits.
    """
    if isinstance(a, int):
        return abs(a) <= _LARGEST
    if not isinstance(a, Dim):
        # Not known; or what a malformed node has for a size.
        return False
    return len(a.terms) <= _MOST_TERMS and all(
        abs(factor) <= _LARGEST and all(len(name) <= _LONGEST_NAME for name in names) for names, factor in a.terms
    )


def product(sizes: Iterable[Part]) -> Part:
    """The number of elements of a shape; None where a size is not known, or the product too large to be followed."""
    known = list(sizes)
    found = [size for size in known if size is not None]
    try:
        return dims.product(found) if len(found) == len(known) else None
    except dims.TooLarge:
        return None


def total(sizes: Iterable[Part]) -> Part:
    """The sum of sizes; None where one is not known, or the sum too large to be followed."""
    result: Size = 0
    for size in sizes:
        if size is None:
            return None
        try:
            result = dims.add(result, size)
        except dims.TooLarge:
            return None
    return result


def nonnegative(a: Size) -> bool:
    """Whether a ≥ 0 is certain."""
    if isinstance(a, int):
        return a >= 0
    return all(factor >= 0 for _, factor in a.terms)


def positive(a: Size) -> bool:
    """Whether a > 0 is certain."""
    return nonnegative(dims.sub(a, 1))


def equal(a: Size, b: Size) -> bool | None:
    """Whether a = b; None where that depends on the sizes."""
    if a == b:
        return True
    return False if less(a, b) or less(b, a) else None


def less(a: Size, b: Size) -> bool | None:
    """Whether a < b; None where that depends on the sizes."""
    difference = dims.sub(b, a)
    if positive(difference):
        return True
    return False if nonnegative(dims.mul(difference, -1)) else None


def minimum(a: Part, b: Part) -> Part:
    """min(a, b), an opaque symbol where it depends on the sizes; None where the sign does."""
    if a is None or b is None:
        return None
    if nonnegative(dims.sub(b, a)):
        return a
    if nonnegative(dims.sub(a, b)):
        return b
    if not (nonnegative(a) and nonnegative(b)):
        return None
    if _written(a, "min", b) or _written(b, "min", a):
        return a if _written(a, "min", b) else b
    # A number comes last, names in alphabetical order: one spelling for one minimum.
    a, b = sorted((a, b), key=lambda size: (isinstance(size, int), str(size)))
    return dims.symbol(f"min({a},{b})")


def clamped(a: Size) -> Size:
    """max(a, 0), an opaque symbol where the sign depends on the sizes."""
    if nonnegative(a):
        return a
    return 0 if isinstance(a, int) else dims.symbol(f"max({a},0)")


def quotient(a: Size, b: Size) -> Part:
    """a / b rounded towards zero, as integer division in ONNX; an opaque symbol where it is not exact."""
    if b == 0:
        return None
    exact = dims.divide(a, b)
    if exact is not None:
        return exact
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return dims.floordiv(a, b) if nonnegative(a) and nonnegative(b) else None


def ratio(whole: Sequence[Size], parts: Sequence[Size]) -> Part:
    """product(whole) / product(parts) where that is exact: the -1 of a Reshape."""
    left, right = list(whole), []
    for part in parts:
        if part in left:
            left.remove(part)
        else:
            right.append(part)
    above, below = product(left), product(right)
    found = dims.divide(above, below) if above is not None and below is not None else None
    return found if found is not None and nonnegative(found) else None


def _written(a: Part, how: str, operand: Part) -> bool:
    """Whether `a` is an opaque `how(operand, n)`."""
    if a is None or isinstance(a, int) or len(a.terms) != 1:
        return False
    ((names, factor),) = a.terms
    ends = names[0].startswith(f"{how}({operand},") or names[0].endswith(f",{operand})")
    return factor == 1 and len(names) == 1 and names[0].startswith(f"{how}(") and ends


def broadcast_one(a: Part, b: Part) -> Part:
    """The dimension that `a` and `b` broadcast to, whenever they do; an opaque symbol where it may be either."""
    # With d > n, d and min(d, n) broadcast only where n is 1, to d; or where d is 1 and n is nothing: to nothing, of
    # which there is nothing to compute. What a Slice takes of a table that may be too short is such a minimum.
    if b is not None and _written(a, "min", b):
        return b
    if a == b or b == 1 or (a is not None and _written(b, "min", a)):
        return a
    if a == 1 or isinstance(b, int):
        return b
    if a is None or b is None or isinstance(a, int):
        return a if isinstance(a, int) else None
    if _written(a, "broadcast", b) or _written(b, "broadcast", a):
        return a if _written(a, "broadcast", b) else b
    return dims.symbol("broadcast({},{})".format(*sorted((str(a), str(b)))))


def fits(size: Size, whole: Size) -> bool:
    """Whether `size` and `whole`, where they broadcast at all, broadcast to `whole`."""
    if size in (1, whole) or broadcast_one(size, whole) == whole:
        return True
    # min(d, n) for a number n > 1 is 1 only where d is.
    limit = str(whole).removeprefix(f"min({size},").removesuffix(")")
    return _written(whole, "min", size) and limit.isdecimal() and int(limit) > 1


def broadcast(*shapes: Partial | None) -> Partial | None:
    """The shape that `shapes` broadcast to; None where a rank is not known."""
    result: Partial | None = ()
    for shape in shapes:
        if result is None or shape is None:
            return None
        if result == shape or not shape:
            continue
        if len(result) < len(shape):
            result, shape = shape, result
        ahead = len(result) - len(shape)
        result = result[:ahead] + tuple(map(broadcast_one, result[ahead:], shape))
    return result


def agree(sizes: Sequence[Part]) -> Part:
    """One name for sizes that the operator demands to be equal: a number where there is one."""
    known = [size for size in sizes if size is not None]
    return next((size for size in known if isinstance(size, int)), known[0] if known else None)
