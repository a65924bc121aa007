"""What must stand in a result, and which rules would make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from graphopt.errors import GraphoptError, UnequalError, UsageError, near
from graphopt.ir import Model
from graphopt.ir.schema import signature
from graphopt.pipeline.meanings import MEANINGS, count_meanings, count_ops
from graphopt.rewrite import CompiledRule


@dataclass(frozen=True)
class Requirement:
    """How often a meaning, or an op, must stand in the result, how often it does, and the rules that make it."""

    name: str
    wanted: int
    found: int
    rules: tuple[str, ...]

    @property
    def met(self) -> bool:
        return self.found >= self.wanted

    def error(self, place: str) -> GraphoptError:
        """The same as an error for people, where it is not met by the model at `place`."""
        hint = f"made by {', '.join(self.rules)}" if self.rules else "no rule makes it"
        return UnequalError("GO083", f"{self.name}: {self.found}, required {self.wanted}", place, hint)


def requirement(name: str, wanted: int, model: Model, rules: Sequence[CompiledRule]) -> Requirement:
    """Whether `name`, a meaning or an op, stands `wanted` times in `model`, which `rules` were applied to.

    Raises: UsageError GO026 for a name that is neither.
    """
    ops = count_ops(model)
    meanings = set(MEANINGS.values())
    domain, _, op = name.rpartition(".")
    if name not in meanings and name not in ops and signature(domain, op, model.opset) is None:
        raise UsageError("GO026", f"no meaning or op is called '{name}'", "", near(name, meanings | ops.keys()))
    found = count_meanings(ops).get(name, 0) if name in meanings else ops[name]
    spellings = [spelling for spelling, meaning in MEANINGS.items() if meaning == name] or [name]
    simple = {spelling.rpartition(".")[2] for spelling in spellings}
    makers = tuple(rule.name for rule in rules if simple & _names_in(type(rule.rule).rewrite))
    return Requirement(name, wanted, found, makers)


def _names_in(function: Any) -> frozenset[str]:
    """The names that a function uses, and the functions of its own package that it calls: among them are the ops that a
    rewrite makes, `op.Gelu(x)`."""
    found: set[str] = set()
    seen: set[CodeType] = set()
    stack = [(function.__code__, function.__globals__)]
    while stack:
        code, scope = stack.pop()
        if code in seen:
            continue
        seen.add(code)
        found.update(code.co_names)
        stack.extend((const, scope) for const in code.co_consts if isinstance(const, CodeType))
        package = str(scope.get("__name__", "")).rpartition(".")[0]
        called = [scope.get(name) for name in code.co_names]
        stack.extend(
            (other.__code__, other.__globals__)
            for other in called
            if isinstance(other, FunctionType) and other.__module__.rpartition(".")[0] == package
        )
    return frozenset(found)
