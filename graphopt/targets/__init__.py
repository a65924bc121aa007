"""Targets are data: which fused kernels exist, from which opset, and what they cost beside their parts.

A table is a JSON file in `tables/`, or one that a user names. `fuse` never times anything, so its output is the same on
every machine.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError, near
from graphopt.files import open_regular
from graphopt.ir.fused import DOMAIN, fused_ops

_TABLES = Path(__file__).parent / "tables"


PAYS = 0.95
"""What a kernel may cost beside the parts that it replaces: where the gain is smaller, the plain form wins."""
NOT_SLOWER = 1.05
"""What it may cost where it is another name of what stands there: kernels are timed to a few percent."""
SMALL = 1 << 17
"""How many elements the value that a kernel makes has at most in the size class `small`; above, it is `large`."""

Cost = float | dict[str, float | dict[str, float]] | None


@dataclass(frozen=True)
class KernelEntry:
    """One row of a table.

    `since` is the first opset version that has the operator (contrib operators: 1). `cost` is its time divided by that
    of its parts: a number; or numbers by element type, a type that is not there costing what float32 does; each of them
    a number, or numbers by size class, `small` and `large`. None: never timed, and used. `runs` says how by element
    type: native, cast (to float32 and back), expanded (into the parts, at load), absent. `status` is measured, or
    assumed for rows that were never run.
    """

    domain: str
    op: str
    since: int = 1
    cost: Cost = None
    runs: dict[str, str] = field(default_factory=dict)
    status: str = "measured"
    note: str = ""

    def cost_of(self, dtype: str | None = None, elements: int | None = None) -> float:
        """The cost on values of this type and number of elements; of an unknown type the least, of an unknown size the
        mean. 0 where it was never timed, infinite where there is no kernel."""
        if dtype is None:
            return min(self.cost_of(one, elements) for one in self.runs or ("float32",))
        if self.runs.get(dtype) == "absent":
            return math.inf
        by_size = self.cost.get(dtype, self.cost.get("float32", 0.0)) if isinstance(self.cost, dict) else self.cost
        if not isinstance(by_size, dict):
            return by_size or 0.0
        if elements is None:
            return sum(by_size.values()) / len(by_size)
        return by_size["small" if elements <= SMALL else "large"]


@dataclass(frozen=True)
class Target:
    """A place where models run. `opset` is the newest standard opset it loads."""

    name: str
    opset: int
    provider: str
    kernels: dict[tuple[str, str], KernelEntry] = field(default_factory=dict)

    def has(
        self,
        domain: str,
        op: str,
        opset: int | None = None,
        dtype: str | None = None,
        elements: int | None = None,
        gain: bool = False,
    ) -> bool:
        """Whether the kernel is there and not slower than its parts, or with `gain` faster, for values of this type and
        size where they are given.

        With `opset`, whether a model of that opset may contain it.
        """
        entry = self.kernels.get((domain, op))
        if entry is None or entry.cost_of(dtype, elements) > (PAYS if gain else NOT_SLOWER):
            return False
        return opset is None or entry.since <= opset


def target_named(name: str) -> Target:
    """The built-in target `name`, or the one in the table file `name`.

    Raises: UsageError GO013 when there is none, or the file is not a table.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    known = target_names()
    if name not in known:
        raise UsageError("GO013", f"no target is called '{name}'", "", near(name, known))
    return _built_in(name)


def with_functions(target: Target) -> Target:
    """`target` with the fused ops of `ai.graphopt`, which run anywhere as functions; its own rows for them stay."""
    rows = {(DOMAIN, op): KernelEntry(DOMAIN, op, status="assumed") for op in fused_ops()}
    return replace(target, kernels=rows | target.kernels)


def without(target: Target, ops: Collection[str]) -> Target:
    """`target` without these ops of `ai.graphopt`."""
    gone = {(DOMAIN, op) for op in ops}
    return replace(target, kernels={key: row for key, row in target.kernels.items() if key not in gone})


def target_names() -> list[str]:
    """The built-in targets."""
    return sorted(path.stem for path in _TABLES.glob("*.json"))


@cache
def _built_in(name: str) -> Target:
    return _read(_TABLES / f"{name}.json")


def _read(path: Path) -> Target:
    try:
        file, _ = open_regular(path, links=True)
        with os.fdopen(file, encoding="utf-8") as stream:
            table: dict[str, Any] = json.load(stream)
        entries = [KernelEntry(**row) for row in table["kernels"]]
        for key, kind in (("name", str), ("opset", int), ("provider", str)):
            if type(table[key]) is not kind:
                raise ValueError(f"its {key} is {table[key]!r}")
        return Target(table["name"], table["opset"], table["provider"], {(e.domain, e.op): e for e in entries})
    except OSError as error:
        raise UsageError("GO013", f"the target table cannot be read: {error.strerror}", str(path)) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        hint = "see docs/targets.md for the form of a table"
        raise UsageError("GO013", f"not a target table: {error}", str(path), hint) from error
