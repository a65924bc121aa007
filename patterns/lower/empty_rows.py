"""Rows with no allowed key, for a kernel that makes nothing of them where the parts make something."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.ir.masks import never_empty
from graphopt.rewrite import Builder

_FAR = 48
"""Masks are made in a few dozen operations; of a longer history, anything is possible."""


def adds_to_lowest(bias: Value) -> bool:
    """Whether something may be added to the lowest half: the runtime's parts keep the sum in float32, rows differ."""
    pending = [bias]
    for _ in range(_FAR):
        if not pending:
            return False
        value = pending.pop()
        if value.dtype != bias.dtype or value.tensor is not None:
            continue
        if value.node.op in ("Add", "Sub", "Sum") and Fill.LOWEST in fills(value):
            return True
        pending += [x for x in value.node.inputs if x is not None]
    return True


def keep_empty_rows(op: Builder, bias: Value) -> Value:
    """A bias with which rows that have the lowest number throughout come out of the kernel as they do of the parts."""
    if Fill.LOWEST not in fills(bias) or never_empty(bias):
        return bias
    info = np.finfo(dtypes.to_numpy(bias.dtype))
    if bias.dtype == dtypes.FLOAT:
        # The kernel takes the lowest number for "not allowed at all"; the next above has the same weight, exp(−∞).
        above = np.nextafter(info.min, info.dtype.type(0))
        return op.Max(bias, op.const(above, like=bias, name="above_lowest"))
    # The runtime's parts add halves in float32, where the lowest of them swallows no score: nothing is masked at all.
    lowest, nothing = op.const(info.min, like=bias, name="lowest"), op.const(0.0, like=bias)
    return op.Where(op.Greater(op.ReduceMax(bias, axes=[-1]), lowest), bias, nothing)
