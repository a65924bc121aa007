"""Whether a value is what the annotation of a variable asks for."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

from graphopt.ir import Shape, Value, dtypes
from graphopt.ir.dims import Dim
from graphopt.ir.inference.sizes import fits
from graphopt.rewrite.facts import constant_of
from graphopt.rewrite.pattern import Constraint, Dims


class Sizes:
    """The sizes that the names of dimensions stand for in one match, and the leading ones for `...`."""

    def __init__(self, known: dict[str | EllipsisType, Any] | None = None) -> None:
        self._known = dict(known or {})

    def copy(self) -> Sizes:
        return Sizes(self._known)

    def why_not(self, c: Constraint, value: Value) -> str:
        """Why `value` does not satisfy `c`; empty when it does. What `c` broadcasts into is asked for later."""
        if c.constant and constant_of(value) is None:
            return "is not a constant"
        if c.rank is not None:
            ranks = (c.rank,) if isinstance(c.rank, int) else c.rank
            if value.rank not in ranks:
                return f"has rank {value.rank}, wanted {' or '.join(map(str, ranks))}"
        if c.dtype is not None and dtypes.NAMES.get(value.dtype) not in c.dtype:
            return f"is {dtypes.NAMES.get(value.dtype, 'of unknown type')}, wanted {' or '.join(sorted(c.dtype))}"
        if c.dims is not None and not self._unifies(c.dims, value.shape, c.shared):
            return f"has shape {_shown(value.shape)}, wanted {_shown(self._meant(c.dims))}"
        return ""

    def widened(self, into: Dims, value: Value) -> str:
        """Why `value` does not broadcast into the dimensions `into`, all known by now; empty when it does."""
        shape, whole = value.shape, self._meant(into)
        if shape is not None and len(shape) <= len(whole):
            pairs = zip(reversed(shape), reversed(whole), strict=False)
            if all(wanted is None or (isinstance(wanted, (int, Dim)) and fits(size, wanted)) for size, wanted in pairs):
                return ""
        return f"has shape {_shown(shape)}, which does not broadcast to {_shown(whole)}"

    def _unifies(self, dims: Dims, shape: Shape | None, shared: bool) -> bool:
        """Whether `shape` is `dims`; binds what these leave open."""
        if shape is None:
            return False
        if dims[:1] == (...,):
            dims, leading = dims[1:], len(shape) - len(dims) + 1
            own, whole = shape[:leading], self._known.setdefault(..., shape[:leading])
            if own != whole and not (shared and leading > 1 and own == (*whole[:-1], 1)):
                return False
            shape = shape[leading:]
        return len(shape) == len(dims) and all(
            want is None or (self._known.setdefault(want, size) if isinstance(want, str) else want) == size
            for want, size in zip(dims, shape, strict=True)
        )

    def _meant(self, dims: Dims) -> tuple[Any, ...]:
        """`dims` with the sizes that are known in place of names."""
        if dims[:1] == (...,) and ... in self._known:
            return (*self._known[...], *self._meant(dims[1:]))
        return tuple(self._known.get(dim, dim) if isinstance(dim, str) else dim for dim in dims)


def _shown(sizes: tuple[Any, ...] | None) -> str:
    if sizes is None:
        return "that is not known"
    return f"({', '.join('...' if size is ... else '?' if size is None else str(size) for size in sizes)})"
