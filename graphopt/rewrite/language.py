"""What a rule's `pattern` method is written in, and how it is read.

Parameters of `pattern` are variables; `op.Name(...)` is an operation; `+` and `*` are sums and products in any order
and bracketing; `a | b` are alternatives; a number is a constant. Annotations constrain a variable:

    x: Value                                   anything
    w: Annotated[Value, const(rank=2)]         a constant matrix
    b: Annotated[Value, const(rank=1)] | None = None     may be absent: the slot is empty, or the branch not taken
    k: Number                                  a constant with one element; `rewrite` gets it as a float
    s: Factor                                  the product of the constants it stands for, 1 where for none
    axis: Attr                                 the value of an attribute; `rewrite` gets it as it is

An attribute that an operation leaves out must have its schema's default, unless its last operand is `...`:
`op.Dropout(x, ...)` says that other operands and attributes do not matter.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from graphopt.ir import IR_DOMAIN, Value
from graphopt.ir.schema import MICROSOFT
from graphopt.rewrite.blame import Mistake
from graphopt.rewrite.pattern import (
    Anchor,
    Captured,
    Chain,
    Check,
    Constraint,
    Dims,
    EachUse,
    Expr,
    Literal,
    Op,
    Pattern,
    Reason,
    Scaled,
    SuchAs,
    Var,
    expr,
    root_ops,
)
from graphopt.rewrite.vocabulary import check_operation


@dataclass(frozen=True)
class Kind:
    """What a variable stands for, when not for a value."""

    name: str


Number = Annotated[float, Kind("number")]
Factor = Annotated[float, Kind("factor")]
Attr = Annotated[Any, Kind("attribute")]
Attrs = Annotated[dict[str, Any], Kind("attributes")]
Maybe = Value | None
"""What `where` and `rewrite` get of a variable that may be absent."""


def const(
    rank: int | tuple[int, ...] | None = None,
    dtype: str | Iterable[str] | None = None,
    dims: Dims | None = None,
    into: Dims | None = None,
) -> Constraint:
    """A value whose numbers are known: an initializer or a Constant node, never an overridable initializer.

    For the rest, as `like`.
    """
    return Constraint(True, rank, _dtypes(dtype), dims, into)


def like(
    rank: int | tuple[int, ...] | None = None,
    dtype: str | Iterable[str] | None = None,
    dims: Dims | None = None,
    into: Dims | None = None,
    shared: bool = False,
) -> Constraint:
    """A value of this rank, of one of these element types, with these dimensions, or one that broadcasts into them.

    `dims=(..., "S", 64)`: any leading dimensions, some size S, 64. Names and `...` mean the same in all parameters; if
    `shared`, the last leading size may be 1 instead, as of one head of keys that all heads of queries read.
    """
    return Constraint(False, rank, _dtypes(dtype), dims, into, shared)


def _dtypes(dtype: str | Iterable[str] | None) -> frozenset[str] | None:
    return None if dtype is None else frozenset([dtype] if isinstance(dtype, str) else dtype)


class Ops:
    """Names operations in a pattern: `op.MatMul(x, w)`.

    Contrib operators take `domain="com.microsoft"`, or are reached as `op.ms.BiasGelu`; our own as `op.ir.Attention`.
    """

    def __init__(self, domain: str = "") -> None:
        self._domain = domain

    @property
    def ms(self) -> Ops:
        return Ops(MICROSOFT)

    @property
    def ir(self) -> Ops:
        return Ops(IR_DOMAIN)

    def scaled(self, x: Any, k: Any) -> Expr:
        """`x * k` or `x / (1/k)`."""
        return Scaled(expr(x), expr(k))

    def each_use(self, value: Any, use: Callable[[Any], Any]) -> Expr:
        """All consumers of `value`: `op.each_use(op.Relu(x), lambda y: op.MatMul(y, w))`.

        They are the roots, in order; a variable that stands only in `use` is bound to a list, one item for each.
        """
        seen = Var("the value used")
        return EachUse(expr(value), seen, expr(use(seen)))

    def anchor(self, whole: Any, *parts: Any) -> Expr:
        """Finds `whole`, replaces only `parts` of it, which are operations: they are the roots, in order."""
        for part in parts:
            if not isinstance(part, Expr) or isinstance(part, (Var, Literal)):
                raise TypeError(f"{part} is not an operation: it cannot be replaced")
        return Anchor(expr(whole), parts)

    def check(self, inner: Any, allowed: Callable[[Value], Reason]) -> Expr:
        """`inner` where `allowed(value)` is True; else it answers the reason, and another way to match is tried."""
        return Check(expr(inner), allowed)

    def such_as(self, x: Any, example: Any) -> Expr:
        """The variable `x`, of which `where` asks more than a pattern can say; `example` is what it may be.

        An example has no part in a match. `check_rule` makes instances of it; its own variables are None in a rule.
        """
        return SuchAs(x, expr(example))

    def captured(self, outer: Any) -> Expr:
        """A value from the scope around a subgraph, which is `outer` there; nothing else looks across scopes."""
        return Captured(expr(outer))

    def sum(self, *operands: Any) -> Expr:
        """The sum of all operands."""
        return Chain("Add", tuple(map(expr, operands)))

    def prod(self, *operands: Any) -> Expr:
        """The product of all operands."""
        return Chain("Mul", tuple(map(expr, operands)))

    def __getattr__(self, name: str) -> Callable[..., Op]:
        if name.startswith("_"):
            raise AttributeError(name)

        def make(*operands: Any, domain: str = self._domain, others: Any = None, **attrs: Any) -> Op:
            rest = bool(operands) and operands[-1] is ...
            operands = operands[:-1] if rest else operands
            check_operation(domain, name, len(operands), attrs)
            found = tuple(None if o is None else expr(o) for o in operands)
            return Op(name, domain, found, attrs, rest=rest, kept=others)

        return make


def read_pattern(function: Callable[..., Any]) -> Pattern:
    """Calls a `pattern` method with one variable for each parameter after `op`.

    Raises: Mistake when it returns something else than an operation or a tuple of operations; whatever it raises.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    variables = {p.name: _variable(p, hints.get(p.name, Any)) for p in parameters}
    result = function(Ops(), **variables)
    roots = result if isinstance(result, tuple) else (result,)
    if not roots or not all(isinstance(root, Expr) and root_ops(root) for root in roots):
        hint = "return op.Name(...), a sum or product, alternatives, or a tuple of these"
        raise Mistake(f"the pattern returns {result}, not an operation", hint)
    parts = frozenset(part for root in roots if isinstance(root, Anchor) for part in root.parts)
    return Pattern(cast(tuple[Expr, ...], roots), variables, parts)


def _variable(parameter: inspect.Parameter, hint: Any) -> Var:
    optional = parameter.default is None
    constraint, kind = Constraint(), "value"
    for part in (hint, *typing.get_args(hint)):
        for extra in getattr(part, "__metadata__", ()):
            if isinstance(extra, Constraint):
                constraint = extra
            elif isinstance(extra, Kind):
                kind = extra.name
    return Var(parameter.name, kind, constraint, optional)
