"""What normalizations have in common: division by a root in all its spellings, and what the operators can take."""

from typing import Any

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Expr, Ops, Reason, numbers_of


def over_root(op: Ops, d: Any, square: Expr, g: Any) -> Expr:
    """d / √s, or g · d / √s with the factor g before the division.

    Where s is greater than zero every spelling is the same function; elsewhere Pow and Sqrt differ.
    """
    inverse = one_over_root(op, square)
    return op.prod(d, inverse) | op.prod(d, g, inverse)


def one_over_root(op: Ops, square: Expr) -> Expr:
    """1 / √s, for s greater than zero."""
    root = op.Sqrt(square) | op.Pow(square, 0.5)
    return _one_over(op, root) | op.Pow(square, -0.5) | op.Sqrt(_one_over(op, square))


def _one_over(op: Ops, x: Expr) -> Expr:
    return op.Reciprocal(x) | 1.0 / x | op.Pow(x, -1.0)


def can_normalize(x: Value, axes: list[int] | None, eps: float, *affine: Value | None) -> Reason:
    """Whether an operator can normalize `x` over `axes`: trailing ones, of known sizes, with ε as a float32.

    `affine` are gain and bias, where there are some: of exactly the normalized shape.
    """
    if x.shape is None or not axes:
        return "the axes or the rank are not known"
    trailing = sorted(a % len(x.shape) for a in axes)
    sizes = x.shape[-len(axes) :]
    if trailing != list(range(len(x.shape) - len(axes), len(x.shape))):
        return f"axes {axes} are not the trailing ones"
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return "a normalized size is not known, or nothing"
    others = [value.shape for value in affine if value is not None and value.shape != sizes]
    if others:
        return f"the gain or bias has shape {others[0]}, wanted {sizes}"
    if x.dtype == dtypes.DOUBLE and not _in_float32(eps):
        return f"an attribute cannot hold {eps} exactly"
    return (x.dtype in dtypes.FLOATS and eps > 0) or "epsilon is not positive"


def _in_float32(number: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.float32(number)) == number


def takes_gain(ones: Value, g: Value) -> Reason:
    """Whether a normalization whose gain is `ones` can take the gain `g`; both are constants."""
    if not (numbers_of(ones) == 1).all():
        return "it has a gain already"
    return g.shape == ones.shape or f"the gain has shape {g.shape}, wanted {ones.shape}"


def ones_like(x: Value, axes: list[int]) -> Any:
    """A gain that changes nothing."""
    assert x.shape is not None
    return np.ones([int(str(size)) for size in x.shape[-len(axes) :]])
