"""Operators of the domain `ai.graphopt`: fused ones that no standard or contrib operator says.

One is a file in `kernels/`, found here as rules are: by the name of the package. Its meaning is that of its bodies,
graphs of standard operators that any runtime can run in its place (`graphopt.ir.bodies` writes them into models).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Final

from graphopt.ir.tensor import Array

DOMAIN: Final = "ai.graphopt"
_PACKAGE: Final = "graphopt.kernels"


@dataclass(frozen=True)
class Body:
    """What an operator does, in standard operators.

    `text` are statements of the text form that compute `y`, written in the standard opset `opset`; `@name` is an
    attribute. It serves models of that opset and newer ones, with operands of one of `types`.
    """

    opset: int
    text: str
    types: tuple[str, ...] = ("float32", "float16")

    @cached_property
    def attributes(self) -> frozenset[str]:
        """The attributes that it knows; of the others it knows the default only."""
        return frozenset(re.findall(r"@(\w+)", self.text))


@dataclass(frozen=True, eq=False)
class FusedOp:
    """An operator with one output, `y`; all operands and `y` are of one type.

    `attributes` have a default each. `bodies` stand in the order of their opsets, the newest last; a newer one takes
    all that an older one takes. `reference` is the same function of NumPy arrays in float64, attributes by name.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    bodies: tuple[Body, ...]
    reference: Callable[..., Array]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def oldest(self, attributes: Mapping[str, Any], dtype: str) -> int | None:
        """The oldest opset in which operands of `dtype` (empty: unknown) with `attributes` have a body, or None."""
        special = {name for name, value in attributes.items() if value != self.attributes.get(name)}
        fitting = (b.opset for b in self.bodies if special <= b.attributes and (not dtype or dtype in b.types))
        return next(fitting, None)

    def body(self, opset: int) -> Body | None:
        """The newest body that a model of the standard opset `opset` may have."""
        return next((body for body in reversed(self.bodies) if body.opset <= opset), None)


@cache
def fused_ops() -> Mapping[str, FusedOp]:
    """The operators of the domain, by name."""
    package = importlib.import_module(_PACKAGE)
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{_PACKAGE}.{name}") for name in names]
    return {one.name: one for module in modules for one in vars(module).values() if isinstance(one, FusedOp)}
