"""A rule: what to look for, when it may be taken, and what to put in its place. One rule, one file, one page."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from graphopt.errors import RuleError, near
from graphopt.ir import Graph, Value, dtypes
from graphopt.ir.node import qualified
from graphopt.rewrite.blame import Mistake, hint_of, line_of, raised_in, said
from graphopt.rewrite.language import read_pattern
from graphopt.rewrite.pattern import Pattern, Reason, names_in, refusal, root_ops
from graphopt.rewrite.plan import Grid, Plan, Recipe

Stage = Literal["clean", "recover", "fuse", "quantize", "lower"]
STAGES: tuple[Stage, ...] = ("clean", "recover", "fuse", "quantize", "lower")


@dataclass(frozen=True)
class Kernel:
    """A kernel that a rule needs the target to have."""

    domain: str
    op: str

    def __str__(self) -> str:
        return qualified(self.domain, self.op)


def kernel(domain: str, op: str) -> Kernel:
    """`needs = kernel("com.microsoft", "BiasGelu")`: the rule is tried only where the target has it.

    Of several, `needs = (kernel(...), kernel(...))`, one is enough.
    """
    return Kernel(domain, op)


@dataclass(frozen=True)
class Context:
    """What a rule may ask for besides its match: the target, promises about inputs, whether the opset must stay, and
    what quantization decided, if anything is quantized."""

    target: Any = None
    assume: frozenset[str] = field(default_factory=frozenset)
    keep_opset: bool = False
    plan: Plan | None = None

    def recipe(self, root: Value) -> Recipe | None:
        """How the product that ends in `root` is to be computed; None: as it stands."""
        return self.plan.recipe(root) if self.plan is not None else None

    def grid(self, value: Value) -> Grid | None:
        """The grid on which an activation may stay integer between two operators; None: it is not to."""
        return self.plan.grid(value) if self.plan is not None else None

    def has(self, needed: Kernel, graph: Graph, **at: Any) -> bool:
        """Whether the target has a kernel, and `graph` may contain it; without a target everything is there.

        `at` says for which type and size, and whether it must be faster: as `Target.has` takes it.
        """
        if self.target is None:
            return True
        opset = graph.opsets.get("", 1) if self.keep_opset else None
        return bool(self.target.has(needed.domain, needed.op, opset, **at))


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
    """A rule with its pattern and its signatures read, once.

    Raises: RuleError GO060 for a pattern that cannot be read, GO061 for a rule that is not of the form, each with the
    line where that is.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.name = type(rule).__name__
        self.stage = rule.stage
        self.needs = rule.needs if isinstance(rule.needs, tuple) else (rule.needs,)
        self._check_form()
        self.pattern = self._read()
        self._where, self._rewrite = self._wanted("where"), self._wanted("rewrite")

    # ---- what can be wrong with it -------------------------------------------------------------------------------

    def _check_form(self) -> None:
        if self.stage not in STAGES:
            raise self._error(f"{self.name} is for no stage: '{self.stage}'", near(str(self.stage), STAGES))
        if not isinstance(self.rule.priority, int):
            raise self._error(f"the priority of {self.name} is {self.rule.priority!r}", "give an integer")
        for method in ("pattern", "rewrite", "where"):
            if not callable(getattr(self.rule, method, None)):
                hint = f"define it, or make {self.name} a class without `stage` if it is only a base of rules"
                raise self._error(f"{self.name} has no method '{method}'", hint)
        for needed in self.needs:
            if not isinstance(needed, Kernel):
                hint = 'write needs = kernel("com.microsoft", "BiasGelu")'
                raise self._error(f"what {self.name} needs is {needed!r}, not a kernel", hint)

    def _read(self) -> Pattern:
        """The pattern; read twice, since what differs then would differ between two runs as well."""
        try:
            pattern, again = read_pattern(self.rule.pattern), read_pattern(self.rule.pattern)
        except (Exception, SystemExit) as error:
            message = f"the pattern of {self.name} cannot be read: {said(error)}"
            hint = hint_of(error, "it is called with a variable for each parameter, and nothing is known of these yet")
            raise self._error(message, hint, "pattern", error) from error
        if list(map(str, pattern.roots)) != list(map(str, again.roots)):
            message = f"the pattern of {self.name} is {pattern.roots[0]}, and when read again {again.roots[0]}"
            raise self._error(message, "let it depend on nothing that changes: chance, time, a counter", "pattern")
        unused = ", ".join(sorted(pattern.variables.keys() - names_in(pattern)))
        if unused:
            message = f"the pattern of {self.name} takes {unused}, and returns nothing that has it"
            raise self._error(message, "use every parameter, or leave it out", "pattern")
        return pattern

    def _wanted(self, method: str) -> set[str]:
        """The names that `method` asks for, all of which are bound."""
        wanted = set(inspect.signature(getattr(self.rule, method)).parameters)
        known = {*self.pattern.variables, "ctx", "root", *(("op",) if method == "rewrite" else ())}
        unknown = sorted(wanted - known)
        if unknown:
            message = f"'{method}' of {self.name} asks for {', '.join(unknown)}, which its pattern does not bind"
            raise self._error(message, near(unknown[0], known), method)
        return wanted

    def _error(self, message: str, hint: str, method: str = "", error: BaseException | None = None) -> RuleError:
        return RuleError("GO060" if method == "pattern" else "GO061", message, self.place_of(error, method), hint)

    # ---- where it stands -----------------------------------------------------------------------------------------

    @property
    def place(self) -> str:
        """File and line of the rule."""
        return line_of(type(self.rule)) or type(self.rule).__module__

    def place_of(self, error: BaseException | None = None, method: str = "") -> str:
        """File and line where the rule raised `error`; where it did not, those of the method that is to blame."""
        method = method or getattr(error, "method", "")
        line = raised_in(error, type(self.rule)) or line_of(getattr(self.rule, method, None))
        return line or self.place

    # ---- what the engine asks of it ------------------------------------------------------------------------------

    @cached_property
    def roots(self) -> list[tuple[str, str]]:
        """(domain, op) of nodes that the first root can be."""
        return sorted(root_ops(self.pattern.roots[0]))

    def runs_in(self, graph: Graph, ctx: Context) -> bool:
        """Whether the target has a kernel that the rule needs, and `graph` may contain it."""
        return not self.needs or any(ctx.has(kernel, graph) for kernel in self.needs)

    def why_not(self, bindings: dict[str, Any], root: Value, ctx: Context) -> str:
        """Why the rule does not want a match; empty where it does. Raises: Mistake where `where` returns None."""
        lacking = self._lacking(root, ctx) if self.needs else ""
        if lacking:
            return lacking
        allowed: Reason | None = self._ask("where", self._where, {**bindings, "ctx": ctx, "root": root})
        if not isinstance(allowed, (bool, str, np.bool_)):
            raise Mistake(f"where returns {allowed!r}", "return True, or the reason why not as text", "where")
        return refusal(allowed, "the rule's condition")

    def _lacking(self, root: Value, ctx: Context) -> str:
        """Why no kernel that the rule needs is worth it for a value of this type and size; empty where one is.

        Where several operators become one kernel, it has to be faster; where one gets another name, not slower.
        """
        graph, dtype = root.node.graph, dtypes.NAMES.get(root.dtype) if root.dtype else None
        sizes = [size for size in root.shape or (None,) if isinstance(size, int)]
        elements = math.prod(sizes) if root.shape is not None and len(sizes) == len(root.shape) else None
        at = {"dtype": dtype, "elements": elements, "gain": self.stage in ("fuse", "lower") and self.pattern.size > 1}
        if any(ctx.has(one, graph, **at) for one in self.needs):
            return ""
        return f"the target has no kernel {' or '.join(map(str, self.needs))} that pays in {dtype or 'an unknown type'}"

    def rewrite(self, op: Any, bindings: dict[str, Any], root: Value, ctx: Context) -> tuple[Value, ...] | None:
        """The values to put in place of the roots; None when the rule declines."""
        result = self._ask("rewrite", self._rewrite, {**bindings, "op": op, "ctx": ctx, "root": root})
        return result if result is None or isinstance(result, tuple) else (result,)

    def _ask(self, method: str, wanted: Iterable[str], given: dict[str, Any]) -> Any:
        try:
            return getattr(self.rule, method)(**{name: given[name] for name in wanted})
        except SystemExit as error:
            mistake = Mistake(f"{method} ends the program", "return None, or a reason", method)
            raise mistake.with_traceback(error.__traceback__) from error
