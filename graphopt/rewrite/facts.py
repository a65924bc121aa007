"""What a matcher asks about values and attributes, pattern or not: what is a copy, a constant, a number, the same."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from graphopt.ir import Node, Tensor, Value, dtypes
from graphopt.ir.attributes import Reference, same_tensor
from graphopt.ir.schema import signature
from graphopt.ir.tensor import Array

UNKNOWN: Final = object()
"""An attribute that is there but computed at run time, or given by the caller of the function."""

COPIES = frozenset({"Identity", "Cast", "Dropout", "Sum", "Mean", "Max", "Min"})
"""The operations that may change nothing."""

_COMPARED = 4096
"""Constants of more elements than this are equal only if they are one value."""


def see_through(value: Value) -> Value | None:
    """The value that `value` copies: by Identity, Cast to the same type, Dropout in inference, Sum or Max of one."""
    node = value.node
    if node.op not in COPIES or node.domain or not node.arity or value.index or node.inputs[0] is None:
        return None
    inner = node.inputs[0]
    match node.op:
        case "Identity":
            return inner
        case "Sum" | "Mean" | "Max" | "Min":
            return inner if node.arity == 1 else None
        case "Cast":
            return inner if inner.dtype and inner.dtype == node.attr("to") else None
        case "Dropout":
            mode = node.input(2)
            trained = node.version < 7 and not node.attr("is_test", 0)
            training = mode is not None and (mode.tensor is None or bool(mode.tensor.item()))
            return None if training or trained else inner
    return None


def source_of(value: Value) -> Value:
    """The value itself, behind everything that changes nothing."""
    while (inner := see_through(value)) is not None:
        value = inner
    return value


def constant_of(value: Value) -> Tensor | None:
    """The constant data of a value, through what changes nothing and from scopes around; None where there is none."""
    value = source_of(value)
    while value.node.slot >= 0:
        value = source_of(value.resolved)
    return value.tensor


def numbers_of(value: Value) -> Array:
    """The numbers of a constant, read-only. Raises: TypeError where it is not one: annotate it with `const()`."""
    tensor = constant_of(value)
    if tensor is None:
        raise TypeError(f"{value!r} is not a constant")
    return tensor.numpy()


def same_value(a: Value, b: Value) -> bool:
    """One value, through what changes nothing, or two equal constants."""
    a, b = source_of(a), source_of(b)
    if a is b:
        return True
    x, y = constant_of(a), constant_of(b)
    return x is not None and y is not None and x.size <= _COMPARED and same_tensor(x, y)


def number_of(value: Value) -> float | None:
    """The number in a constant with one element; None for anything else, NaN, and integers that no float holds."""
    return number_in(constant_of(value))


def number_in(tensor: Tensor | None) -> float | None:
    """The number that `number_of` finds in the constant data of a value."""
    if tensor is None or tensor.size != 1 or tensor.dtype in (dtypes.STRING, dtypes.BOOL):
        return None
    item = tensor.item()
    if isinstance(item, complex) or item != item or (isinstance(item, int) and abs(item) > 1 << 53):
        return None
    return float(item)


def inverse_of(op: str, value: Value) -> float | None:
    """The number that, added instead of subtracted (op = Sub) or multiplied instead of divided by (Div), does the same.

    None where `value` is not a constant number, or its type has none: 1/3 is no integer, -1 is not unsigned.
    """
    number = number_of(value)
    floating = value.dtype in dtypes.FLOATS
    if number is None or (op == "Div" and (number == 0 or not floating)):
        return None
    if op == "Div":
        return 1.0 / number
    return None if dtypes.NAMES[value.dtype].startswith("uint") else -number


def keeps_rank(constant: Value, other: Value) -> bool:
    """Whether an elementwise operation with the one-element `constant` has the rank of `other`."""
    tensor = constant_of(constant)
    rank = len(tensor.shape) if tensor is not None else constant.rank
    return rank is not None and (rank == 0 or (other.rank is not None and rank <= other.rank))


def close(want: float, found: float, dtype: int = dtypes.FLOAT) -> bool:
    """Equal within 2 ulp of the constant's own type or 1e-6 relative; integers are equal or not."""
    if want == found:
        return True
    if dtype not in dtypes.FLOATS:
        return False
    if not (np.isfinite(want) and np.isfinite(found)):
        return False
    epsilon = {dtypes.FLOAT16: 2.0**-10, dtypes.BFLOAT16: 2.0**-7}.get(dtype, 0.0)
    return bool(abs(want - found) <= max(1e-6, 2 * epsilon) * abs(want))


def attribute(node: Node, name: str) -> Any:
    """The attribute `name` of a node, whether the opset writes it as attribute or as an input.

    None where it is absent and has no default, UNKNOWN where its value is not known here.
    """
    found = node.attr(name)
    if found is not None:
        # A rule gets a list of its own: what it does to it must not change the node.
        return UNKNOWN if isinstance(found, Reference) else list(found) if isinstance(found, list) else found
    known = signature(node.domain, node.op, node.version)
    value = node.input(known.inputs.index(name)) if known is not None and name in known.inputs else None
    if value is None:
        return None
    tensor = constant_of(value)
    if tensor is None:
        return UNKNOWN
    # A number that is written as a vector of one.
    return tensor.item() if tensor.size == 1 and tensor.dtype in dtypes.FLOATS else tensor.numpy().tolist()


def is_default(node: Node, name: str) -> bool:
    """Whether an attribute that is written has the schema's default."""
    known = signature(node.domain, node.op, node.version)
    default = known.attributes.get(name) if known is not None else None
    return same_attribute(node, name, default, node.attrs[name])


def same_attribute(node: Node, name: str, want: Any, found: Any) -> bool:
    """Equal attribute values; axes count from either end, numbers match as constants do."""
    if name in ("axis", "axes") and want is not None and found is not None:
        return _axes(node, want) == _axes(node, found)
    if isinstance(want, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(want) == len(found) and all(
            same_attribute(node, "", *pair) for pair in zip(want, found, strict=True)
        )
    if isinstance(want, float) and isinstance(found, (int, float)):
        return close(want, found)
    return bool(want == found)


def _axes(node: Node, axes: Any) -> list[int]:
    """Axes counted from 0 where the rank is known; in order where the order means something."""
    listed = [axes] if isinstance(axes, int) else list(axes)
    rank = node.inputs[0].rank if node.arity and node.inputs[0] is not None else None
    if rank is not None:
        rank += len(listed) if node.op == "Unsqueeze" else 0
        listed = [axis + rank if axis < 0 else axis for axis in listed]
    return listed if node.op == "Slice" else sorted(listed)
