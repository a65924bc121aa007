"""Elements of small integer tensors, computed as dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Size
from graphopt.ir.inference import sizes
from graphopt.ir.inference.sizes import Part
from graphopt.ir.operands import CONTENT_LIMIT, Content

# Symbolic elements are taken to fit into these and wider.
_SYMBOLIC_BITS = 31


def complete(elements: Iterable[Part]) -> Content | None:
    """The elements, if all are known and they are few."""
    found: list[Size] = []
    for element in elements:
        if element is None or len(found) == CONTENT_LIMIT:
            return None
        found.append(element)
    return tuple(found)


def repeated(elements: Content, times: int) -> Content | None:
    """The elements so many times, if that is few."""
    return elements * times if len(elements) * times <= CONTENT_LIMIT else None


def within(content: Content | None, dtype: int) -> Content | None:
    """The elements, if all are small enough to go on with and numbers are such as `dtype` holds: others wrap around."""
    if content is None or not all(map(sizes.is_plain, content)):
        return None
    if dtype in dtypes.INTEGERS:
        low, high = _bounds(dtype)
        return content if all(low <= a < high for a in content if isinstance(a, int)) else None
    return content


def combine(function: Callable[..., Part], *contents: Content | None) -> Content | None:
    """`function` of the elements of tensors of rank 0 or 1, broadcast against each other."""
    known = [content for content in contents if content is not None]
    if len(known) < len(contents):
        return None
    lengths = {len(content) for content in known} - {1}
    if len(lengths) > 1:
        return None
    count = lengths.pop() if lengths else 1
    columns = [content * count if len(content) == 1 else content for content in known]
    try:
        return complete(function(*row) for row in zip(*columns, strict=True))
    except dims.TooLarge:
        return None


def truth(answer: bool | None) -> Part:
    """A boolean as an element."""
    return None if answer is None else int(answer)


def cast(content: Content | None, dtype: int) -> Content | None:
    """The elements after a Cast, where none changes its value."""
    if content is None:
        return None
    if dtype == dtypes.BOOL:
        return combine(lambda a: opposite(truth(sizes.equal(a, 0))), content)
    if dtype not in dtypes.INTEGERS:
        return None
    low, high = _bounds(dtype)
    wide = high >= 1 << _SYMBOLIC_BITS
    fits = all(low <= a < high if isinstance(a, int) else wide and (low < 0 or sizes.nonnegative(a)) for a in content)
    return content if fits else None


def _bounds(dtype: int) -> tuple[int, int]:
    """The lowest number of an integer type, and what comes after the highest."""
    name = dtypes.NAMES[dtype]
    signed = not name.startswith("u")
    bits = int(name.removeprefix("u").removeprefix("int")) - signed
    return -(1 << bits) if signed else 0, 1 << bits


def opposite(answer: Part) -> Part:
    """NOT of an element 0 or 1."""
    return 1 - answer if isinstance(answer, int) else None
