"""A compiler for ONNX graphs: recover what the author meant, fuse it, lower it, prove that nothing changed but speed.

Every name below is imported where it is first used, so that `import graphopt` loads nothing heavy.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.errors import GraphoptError
    from graphopt.ir import Value
    from graphopt.pipeline import Quantized, Result, bench, explain, find, fuse, load, quantize, save, verify
    from graphopt.rewrite import Expr, Ops, Rule, const

__version__ = "0.1.0"
__all__ = [
    "Expr",
    "GraphoptError",
    "Ops",
    "Quantized",
    "Result",
    "Rule",
    "Value",
    "bench",
    "const",
    "explain",
    "find",
    "fuse",
    "load",
    "quantize",
    "save",
    "verify",
]

_HOME = {
    "GraphoptError": "graphopt.errors",
    "Value": "graphopt.ir",
    **dict.fromkeys(["Expr", "Ops", "Rule", "const"], "graphopt.rewrite"),
    **dict.fromkeys(["Quantized", "Result", "bench", "explain", "find", "fuse"], "graphopt.pipeline"),
    **dict.fromkeys(["load", "quantize", "save", "verify"], "graphopt.pipeline"),
}


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the subpackage `graphopt.verify` would otherwise hide the function of the same name.
        if name not in _HOME or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'graphopt' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
