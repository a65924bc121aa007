"""A rule: what to look for, when it may be taken, and what to put in its place. One rule, one file, one page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from graphopt.errors import RuleError, near
from graphopt.ir import Graph, Value
from graphopt.rewrite.pattern import Pattern, Reason, root_ops, trace

Stage = Literal["clean", "recover", "fuse", "lower"]
STAGES: tuple[Stage, ...] = ("clean", "recover", "fuse", "lower")


@dataclass(frozen=True)
class Kernel:
    """A kernel that a rule needs the target to have."""

    domain: str
    op: str

    def __str__(self) -> str:
        return f"{self.domain}.{self.op}" if self.domain else self.op


def kernel(domain: str, op: str) -> Kernel:
    """`needs = kernel("com.microsoft", "BiasGelu")`: the rule is tried only where the target has it.

    Of several, `needs = (kernel(...), kernel(...))`, one is enough.
    """
    return Kernel(domain, op)


@dataclass(frozen=True)
class Context:
    """What a rule may ask for besides its match: the target, promises about inputs, whether the opset must stay."""

    target: Any = None
    assume: frozenset[str] = field(default_factory=frozenset)
    keep_opset: bool = False

    def has(self, needed: Kernel, graph: Graph) -> bool:
        """Whether the target has a kernel, and `graph` may contain it; without a target everything is there."""
        if self.target is None:
            return True
        opset = graph.opsets.get("", 1) if self.keep_opset else None
        return bool(self.target.has(needed.domain, needed.op, opset))


class Rule:
    """Base class of rules.

    A subclass has `stage`, a docstring that is its page (what, why, before, after, safety), and the methods
    `pattern(self, op, ...)`, `where(self, ...)` (optional) and `rewrite(self, op, ...)`. Parameters of `pattern` are
    its variables; `where` and `rewrite` name those they want, and `ctx` (a Context) and `root` (the matched value) if
    they want these. `where` returns True or the reason why not; `rewrite` returns the new value (a tuple for several
    roots; one that is to stay is returned as it is), or None to decline. A rule holds no state.
    """

    stage: ClassVar[Stage]
    needs: ClassVar[Kernel | tuple[Kernel, ...]] = ()
    once: ClassVar[bool] = False
    keeps_inner: ClassVar[bool] = False
    """Inner values that somebody else reads do not forbid the match, their nodes stay: for rules about views, where the
    replacement costs no more than the root alone did."""
    priority: ClassVar[int] = 0
    """Among rules with the same root the higher one is tried first."""

    # Each rule has its own parameters, so no signature can stand here.
    pattern: Any
    rewrite: Any
    where: Any = staticmethod(lambda: True)


class CompiledRule:
    """A rule with its pattern traced and its signatures read, once."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.name = type(rule).__name__
        self.stage = rule.stage
        if self.stage not in STAGES:
            hint = near(self.stage, STAGES)
            raise RuleError("GO061", f"{self.name} is for no stage: '{self.stage}'", self.place, hint)
        for method in ("pattern", "rewrite"):
            if not callable(getattr(rule, method, None)):
                raise RuleError("GO061", f"{self.name} has no method '{method}'", self.place)
        needs = rule.needs
        self.needs = needs if isinstance(needs, tuple) else (needs,)
        try:
            self.pattern: Pattern = trace(rule.pattern)
        except Exception as error:
            raise RuleError("GO060", f"the pattern of {self.name} cannot be read: {error}", self.place) from error
        self._where = _wanted(rule.where)
        self._rewrite = _wanted(rule.rewrite)
        unknown = (self._where | self._rewrite) - self.pattern.variables.keys() - {"op", "ctx", "root"}
        if unknown:
            message = f"{self.name} asks for {', '.join(sorted(unknown))}, which its pattern does not bind"
            raise RuleError("GO061", message, self.place)

    @property
    def place(self) -> str:
        """File and line of the rule."""
        kind = type(self.rule)
        try:
            return f"{inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]}"
        except (OSError, TypeError):
            return kind.__module__

    @cached_property
    def roots(self) -> list[tuple[str, str]]:
        """(domain, op) of nodes that the first root can be."""
        return sorted(root_ops(self.pattern.roots[0]))

    def where(self, bindings: dict[str, Any], root: Value, ctx: Context) -> Reason:
        """True, or the reason why not."""
        given = {**bindings, "ctx": ctx, "root": root}
        allowed: Reason = self.rule.where(**{name: given[name] for name in self._where})
        return allowed

    def rewrite(self, op: Any, bindings: dict[str, Any], root: Value, ctx: Context) -> tuple[Value, ...] | None:
        """The values to put in place of the roots; None when the rule declines."""
        given = {**bindings, "op": op, "ctx": ctx, "root": root}
        rewrite: Callable[..., Any] = self.rule.rewrite
        result = rewrite(**{name: given[name] for name in self._rewrite})
        return result if result is None or isinstance(result, tuple) else (result,)


def _wanted(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)
