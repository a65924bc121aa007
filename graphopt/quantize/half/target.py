"""A target as a model of halves sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from graphopt.targets import NOT_SLOWER, KernelEntry, Target

_BEARABLE: Final = 1.5
"""What a native kernel may cost beside parts that are widened: the attention of a small model, not all of a layer."""


def native_halves(target: Target) -> Target:
    """`target`, where kernels that compute with halves themselves are taken even if they are somewhat slower.

    Their parts are widened to float32 at run time, which takes twice the memory that halves were chosen for.
    """
    return replace(target, kernels={key: _preferred(row) for key, row in target.kernels.items()})


def _preferred(row: KernelEntry) -> KernelEntry:
    if row.runs.get("float16") != "native" or not isinstance(row.cost, dict):
        return row
    if not NOT_SLOWER < max(row.cost_of("float16", 1), row.cost_of("float16", 1 << 30)) <= _BEARABLE:
        return row
    return replace(row, cost={**row.cost, "float16": NOT_SLOWER})
