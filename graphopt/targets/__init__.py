"""Targets are data: which fused kernels exist, from which opset, and what they cost beside their parts.

A table is a JSON file in `tables/`, or one that a user names. `fuse` never times anything, so its output is the same on
every machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError, near

_TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class KernelEntry:
    """One row of a table.

    `since` is the first opset version that has the operator (contrib operators: 1), `cost` its time divided by that of
    its parts, `status` measured, or assumed for rows that were never run.
    """

    domain: str
    op: str
    since: int = 1
    cost: float = 1.0
    status: str = "measured"
    note: str = ""


@dataclass(frozen=True)
class Target:
    """A place where models run. `opset` is the newest standard opset it loads."""

    name: str
    opset: int
    provider: str
    kernels: dict[tuple[str, str], KernelEntry] = field(default_factory=dict)

    def has(self, domain: str, op: str, opset: int | None = None) -> bool:
        """Whether the kernel is there and pays; with `opset`, whether a model of that opset may contain it."""
        entry = self.kernels.get((domain, op))
        if entry is None or entry.cost > 1.0:
            return False
        return opset is None or bool(domain) or entry.since <= opset


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


def target_names() -> list[str]:
    """The built-in targets."""
    return sorted(path.stem for path in _TABLES.glob("*.json"))


@cache
def _built_in(name: str) -> Target:
    return _read(_TABLES / f"{name}.json")


def _read(path: Path) -> Target:
    try:
        table: dict[str, Any] = json.loads(path.read_text())
        entries = [KernelEntry(**row) for row in table["kernels"]]
        return Target(table["name"], table["opset"], table["provider"], {(e.domain, e.op): e for e in entries})
    except OSError as error:
        raise UsageError("GO013", f"the target table cannot be read: {error.strerror}", str(path)) from error
    except (ValueError, TypeError, KeyError) as error:
        hint = "see docs/targets.md for the form of a table"
        raise UsageError("GO013", f"not a target table: {error}", str(path), hint) from error
