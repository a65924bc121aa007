"""What normalizations have in common: division by a root in all its spellings, and what the operators can take."""

from typing import Any

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, constant_of, numbers_of
from graphopt.rewrite.facts import source_of


def either_norm(op: Ops, x: Any, g: Any, b: Any, axis: Any, eps: Any) -> Expr:
    """A layer normalization, or a root mean square normalization, which has no bias."""
    return op.LayerNormalization(x, g, b, axis=axis, epsilon=eps) | op.RMSNormalization(x, g, axis=axis, epsilon=eps)


def same_norm(op: Builder, root: Value, x: Value, g: Value, b: Value | None, axis: int, eps: float) -> Value:
    """The one of the two normalizations that `root` reads, of other operands."""
    read = {source_of(value).node.op for value in root.node.inputs if value is not None}
    if "LayerNormalization" in read:
        return op.LayerNormalization(x, g, b, axis=axis, epsilon=eps)
    return op.RMSNormalization(x, g, axis=axis, epsilon=eps)


def over_root(op: Ops, d: Any, square: Expr, g: Any = None) -> Expr:
    """d / √s, or g · d / √s with the factor g before the division.

    Where s is greater than zero every spelling is the same function; elsewhere Pow and Sqrt differ.
    """
    inverse = one_over_root(op, square)
    plain = op.prod(d, inverse)
    return plain if g is None else plain | op.prod(d, g, inverse)


def one_over_root(op: Ops, square: Expr) -> Expr:
    """1 / √s, for s greater than zero."""
    root = op.Sqrt(square) | op.Pow(square, 0.5)
    return one_over(op, root) | op.Pow(square, -0.5) | op.Sqrt(one_over(op, square))


def total(op: Ops, x: Any, axes: Any, wide: Any, narrow: Any) -> Expr:
    """Σx, of half precision perhaps summed in a wider type."""
    in_wide = op.Cast(op.ReduceSum(op.Cast(x, to=wide), axes=axes, keepdims=1), to=narrow)
    return op.ReduceSum(x, axes=axes, keepdims=1) | in_wide


def is_wide(x: Value, wide: int | None) -> Reason:
    """Whether the type that `total` sums in, if it is another one, holds what that of `x` does."""
    wider = wide in (None, dtypes.DOUBLE) or (wide == dtypes.FLOAT and x.dtype != dtypes.DOUBLE)
    return wider or f"the sum is in {dtypes.NAMES.get(wide or 0, wide)}"


def less(op: Ops, x: Any, y: Expr) -> Expr:
    """x − y, the negation written in any way."""
    return op.sum(x, op.Neg(y) | op.scaled(y, -1.0))


def one_over(op: Ops, x: Expr) -> Expr:
    """1 / x."""
    return op.Reciprocal(x) | 1.0 / x | op.Pow(x, -1.0)


def can_normalize(x: Value, axes: list[int] | None, eps: float, *affine: Value | None) -> Reason:
    """Whether an operator can normalize `x` over `axes`: trailing ones, with ε as a float32.

    `affine` are gain and bias, where there are some: of exactly the normalized shape.
    """
    if x.shape is None or not axes:
        return "the axes or the rank are not known"
    trailing = sorted(a % len(x.shape) for a in axes)
    sizes = x.shape[-len(axes) :]
    if trailing != list(range(len(x.shape) - len(axes), len(x.shape))):
        return f"axes {axes} are not the trailing ones"
    if 0 in sizes:
        return "nothing is normalized"
    others = [value.shape for value in affine if value is not None and value.shape != sizes]
    if others:
        return f"the gain or bias has shape {others[0]}, wanted {sizes}"
    if x.dtype == dtypes.DOUBLE and not _in_float32(eps):
        return f"an attribute cannot hold {eps} exactly"
    return (x.dtype in dtypes.FLOATS and eps > 0) or "epsilon is not positive"


def _in_float32(number: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.float32(number)) == number


def takes(constant: Value, other: Value) -> Reason:
    """Whether an elementwise operation of two constants has the shape of the first."""
    if constant_of(constant) is None:
        return f"{constant.name} is not a constant"
    try:
        whole = np.broadcast_shapes(numbers_of(constant).shape, numbers_of(other).shape)
    except ValueError:
        whole = ()
    return whole == constant.shape or f"a constant of shape {other.shape}, wanted {constant.shape}"


def joined(op: Builder, constant: Value, how: np.ufunc, other: Value) -> Value:
    """`how` of two constants, the first of which `takes` the other; the other itself, where the first changes nothing.

    Raises: Declined where a number is too large for the type of the first.
    """
    if other.shape == constant.shape and (numbers_of(constant) == how.identity).all():
        return other
    with np.errstate(over="ignore", invalid="ignore"):
        joint = how(numbers_of(constant).astype(np.float64), numbers_of(other).astype(np.float64))
    return op.const(joint, like=constant, name=how.__name__)


def in_half(x: Value, wide: int, narrow: int, *affine: Value | None) -> Reason:
    """Whether a normalization in a wider type, between casts from and to the half precision of `x`, is one of `x`.

    The operator computes in float32 by itself. `affine` are gain and bias: numbers that half precision has, too.
    """
    if narrow != x.dtype or x.dtype not in (dtypes.FLOAT16, dtypes.BFLOAT16):
        return "the result is not in the half precision of the input"
    if wide not in (dtypes.FLOAT, dtypes.DOUBLE):
        return "it is not computed wide"
    half = dtypes.to_numpy(narrow)
    with np.errstate(over="ignore"):
        exact = all((a.astype(half).astype(a.dtype) == a).all() for a in map(numbers_of, filter(None, affine)))
    return exact or "half precision does not have the numbers of the gain or the bias"


def ones(op: Builder, x: Value, axes: list[int]) -> Value:
    """A gain that changes nothing, for trailing axes of `x`; it is made at run time where a size is not known."""
    assert x.shape is not None
    first = len(x.shape) - len(axes)
    sizes = x.shape[first:]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        return op.const(np.ones(known), like=x, name="ones")
    return op.expand(op.const(1.0, like=x), sizes, [op.size(x, axis) for axis in range(first, len(x.shape))])
