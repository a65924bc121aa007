"""Patterns: expressions over values, as a matcher reads them. An author writes them in `graphopt.rewrite.language`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import EllipsisType
from typing import Any

from graphopt.errors import near
from graphopt.ir import Value
from graphopt.ir.node import qualified
from graphopt.ir.schema import history
from graphopt.rewrite.blame import Mistake

Reason = bool | str
Dims = tuple["str | int | EllipsisType | None", ...]


def refusal(allowed: Reason, otherwise: str) -> str:
    """The reason why not; `otherwise` where there is none but False, empty where it is True."""
    if isinstance(allowed, str):
        return allowed or otherwise
    return "" if allowed else otherwise


def all_of(*reasons: Reason) -> Reason:
    """True where all of `reasons` are, else the first that says why not."""
    return next((reason for reason in reasons if reason is not True), True)


@dataclass(frozen=True)
class Constraint:
    """What a variable's value must be: its dimensions, or those it must broadcast `into` without widening them.

    Dimensions unify: the same name is the same size wherever it stands, `...` the same leading sizes; None is any size.
    If `shared`, the last of two or more leading sizes may be 1 beside those that were met before.
    """

    constant: bool = False
    rank: int | tuple[int, ...] | None = None
    dtype: frozenset[str] | None = None
    dims: Dims | None = None
    into: Dims | None = None
    shared: bool = False


class Expr:
    """Part of a pattern."""

    def __add__(self, other: Operand) -> Expr:
        return Chain("Add", (*_flat("Add", self), *_flat("Add", expr(other))))

    def __radd__(self, other: Operand) -> Expr:
        return expr(other) + self

    def __mul__(self, other: Operand) -> Expr:
        return Chain("Mul", (*_flat("Mul", self), *_flat("Mul", expr(other))))

    def __rmul__(self, other: Operand) -> Expr:
        return expr(other) * self

    def __sub__(self, other: Operand) -> Expr:
        return self + -other if isinstance(other, (int, float)) else Op("Sub", "", (self, expr(other)))

    def __rsub__(self, other: Operand) -> Expr:
        return Op("Sub", "", (expr(other), self))

    def __truediv__(self, other: Operand) -> Expr:
        return self * (1.0 / other) if isinstance(other, (int, float)) else Op("Div", "", (self, expr(other)))

    def __rtruediv__(self, other: Operand) -> Expr:
        return Op("Div", "", (expr(other), self))

    def __or__(self, other: Operand) -> Expr:
        return Alt((*_branches(self), *_branches(expr(other))))

    def __pow__(self, other: Operand) -> Expr:
        return Op("Pow", "", (self, expr(other)))


# A parameter of `pattern` is a Var at run time; rules annotate it with what `rewrite` gets, a Value.
Operand = Expr | Value | float | int | None


@dataclass(frozen=True, eq=False)
class Var(Expr):
    name: str
    kind: str = "value"
    constraint: Constraint = field(default_factory=Constraint)
    optional: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Literal(Expr):
    value: float

    def __str__(self) -> str:
        return f"{self.value:.7g}"


@dataclass(frozen=True, eq=False)
class Op(Expr):
    """An operation. `index` is which of its outputs this expression means; `rest`: other operands and attributes
    that are not named do not matter; `kept`: a variable that stands for the attributes that are not named."""

    op: str
    domain: str
    operands: tuple[Expr | None, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    whole: Op | None = None
    rest: bool = False
    kept: Var | None = None

    def __getitem__(self, output: int | str) -> Op:
        """Another output of the same operation, by position or by the name its schema has for it."""
        index = _output_index(self, output) if isinstance(output, str) else output
        return dataclasses.replace(self, index=index, whole=self.whole or self)

    @property
    def identity(self) -> Op:
        """Expressions for outputs of one operation share it."""
        return self.whole or self

    def __str__(self) -> str:
        attrs = [f"{name}={value}" for name, value in self.attrs.items() if not callable(value)]
        return f"{qualified(self.domain, self.op)}({', '.join([*map(str, self.operands), *attrs])})"


@dataclass(frozen=True, eq=False)
class Chain(Expr):
    """A sum (`op` = Add) or product (`op` = Mul) of two or more operands, in any order and bracketing."""

    op: str
    operands: tuple[Expr, ...]

    def __str__(self) -> str:
        return "(" + (" + " if self.op == "Add" else " * ").join(map(str, self.operands)) + ")"


@dataclass(frozen=True, eq=False)
class Scaled(Expr):
    """`x * k` or `x / (1/k)` for a constant number k."""

    x: Expr
    factor: Expr

    def __str__(self) -> str:
        return f"scaled({self.x}, {self.factor})"


@dataclass(frozen=True, eq=False)
class Alt(Expr):
    branches: tuple[Expr, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.branches))


@dataclass(frozen=True, eq=False)
class Check(Expr):
    """`inner`, if `allowed` says True of its value, else a reason: part of the search, unlike `where`."""

    inner: Expr
    allowed: Callable[[Value], Reason]

    def __str__(self) -> str:
        return str(self.inner)


@dataclass(frozen=True, eq=False)
class Captured(Expr):
    """A value that a subgraph captures, and that is `outer` in the scope around it. What is matched there stays."""

    outer: Expr

    def __str__(self) -> str:
        return f"captured({self.outer})"


@dataclass(frozen=True, eq=False)
class SuchAs(Expr):
    """The variable `var`, whatever it is; `example` is what a condition on it may allow, for who makes instances."""

    var: Var
    example: Expr

    def __str__(self) -> str:
        return str(self.var)


@dataclass(frozen=True, eq=False)
class EachUse(Expr):
    """Every consumer of `value`, each matching `use` (in which `value` is the variable `seen`): all of them or none."""

    value: Expr
    seen: Var
    use: Expr

    def __str__(self) -> str:
        return f"each_use({self.value}, {self.seen} → {self.use})"


@dataclass(frozen=True, eq=False)
class Anchor(Expr):
    """`parts` of `whole` are what is replaced; the rest of `whole` only says where they stand, and stays."""

    whole: Expr
    parts: tuple[Expr, ...]

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.parts))} in {self.whole}"


def expr(value: Operand) -> Expr:
    if isinstance(value, Expr):
        return value
    if isinstance(value, (int, float)):
        return Literal(float(value))
    raise TypeError(f"{value!r} cannot stand in a pattern: use a variable, a number or op.Name(...)")


def _output_index(e: Op, name: str) -> int:
    names = [output.name for schema in history(e.domain, e.op)[-1:] for output in schema.outputs]
    if name not in names:
        raise Mistake(f"{e.op} has no output '{name}'", near(name, names), "pattern")
    return names.index(name)


def _flat(op: str, e: Expr) -> tuple[Expr, ...]:
    return e.operands if isinstance(e, Chain) and e.op == op else (e,)


def _branches(e: Expr) -> tuple[Expr, ...]:
    return e.branches if isinstance(e, Alt) else (e,)


@dataclass(frozen=True)
class Pattern:
    """A pattern as it was read: its roots, its variables by name, and the expressions that an anchor replaces."""

    roots: tuple[Expr, ...]
    variables: dict[str, Var]
    parts: frozenset[Expr] = frozenset()

    @cached_property
    def depth(self) -> int:
        """How many nodes lie between a root and the farthest value that the pattern looks at, at most."""
        return max(_depth(root) for root in self.roots)

    @cached_property
    def size(self) -> int:
        """How many nodes a match has, at most; what it sees through, and uses of `each_use`, are not counted."""
        return sum(_size(root) for root in self.roots)

    @cached_property
    def spread(self) -> tuple[Var, ...]:
        """The variables that must broadcast into dimensions."""
        return tuple(var for var in self.variables.values() if var.constraint.into is not None)

    @cached_property
    def sideways(self) -> bool:
        """Whether a match has nodes that do not lie behind its first root."""
        return len(self.roots) > 1 or isinstance(self.roots[0], EachUse)


def names_in(pattern: Pattern) -> set[str]:
    """The variables that stand somewhere in a pattern."""
    found: set[str] = set()
    stack: list[Any] = list(pattern.roots)
    while stack:
        match part := stack.pop():
            case Var(name=name):
                found.add(name)
            case Scaled(factor=factor):
                stack.append(factor)
            case Op(attrs=attrs, kept=kept):
                stack.extend([*attrs.values(), kept])
        stack.extend(children(part))
    return found


def children(e: Expr) -> tuple[Expr, ...]:
    """The parts an expression is made of."""
    match e:
        case Op(operands=operands):
            return tuple(o for o in operands if o is not None)
        case Chain(operands=operands):
            return operands
        case Scaled(x=x):
            return (x,)
        case EachUse(value=value, use=use):
            return (value, use)
        case Check(inner=inner) | Captured(outer=inner):
            return (inner,)
        case SuchAs(var=var, example=example):
            return (var, example)
        case Anchor(whole=whole):
            return (whole,)
        case Alt(branches=branches):
            return branches
    return ()


def own(e: Expr) -> int:
    """How many nodes `e` is, without its operands."""
    match e:
        case Op() | Scaled():
            return 1
        case Chain(operands=operands):
            return len(operands) - 1
    return 0


def _depth(e: Expr) -> int:
    below = [_depth(child) for child in children(e)]
    return own(e) + (sum(below) if isinstance(e, EachUse) else max(below, default=0))


def _size(e: Expr) -> int:
    return own(e) + (max if isinstance(e, Alt) else sum)(map(_size, children(e)))


def may_lack(e: Expr | None) -> bool:
    """Whether an operand may be missing: one that is left out, an optional variable."""
    match e:
        case None | Var(optional=True):
            return True
        case Alt(branches=branches):
            return any(map(may_lack, branches))
    return False


def root_ops(e: Expr) -> set[tuple[str, str]]:
    """(domain, op) of the nodes that a match of `e` can be rooted at."""
    match e:
        case Op(op=op, domain=domain):
            return {(domain, op)}
        case Chain(op=op):
            return {("", op), ("", "Sub"), ("", "Sum")} if op == "Add" else {("", op), ("", "Div")}
        case Scaled():
            return {("", "Mul"), ("", "Div")}
        case EachUse(value=inner) | Check(inner=inner):
            return root_ops(inner)
        case Anchor(whole=whole):
            return root_ops(whole)
        case Alt(branches=branches):
            return set().union(*map(root_ops, branches))
    return set()
