"""What an instance of a pattern is before it is spelled: terms with shapes.

A term says what is computed; a sum, a product, a scaling and a number do not say yet how they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphopt.ir.dims import Shape


class Unsupported(Exception):
    """No instance of the pattern can be made; the message says what no generator knows."""


@dataclass(frozen=True, eq=False)
class Term:
    """A tensor of a shape and an element type, which every kind of term has."""

    shape: Shape
    dtype: int


@dataclass(frozen=True, eq=False)
class Leaf(Term):
    """What a variable is bound to: an input or a constant. `fill` is what every element is (None: random)."""

    name: str
    constant: bool = False
    fill: float | None = None


@dataclass(frozen=True, eq=False)
class Number(Term):
    """A constant of one element; its shape is () here, and may be written as [1]."""

    value: float


@dataclass(frozen=True, eq=False)
class Sizes(Term):
    """An int64 vector that says a shape, for a view of `source`."""

    target: Shape
    source: Shape


@dataclass(frozen=True, eq=False)
class Ints(Term):
    """An int64 vector of known elements."""

    elements: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Chain(Term):
    """A sum (`op` = Add) or product (Mul) of all operands."""

    op: str
    operands: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Scaled(Term):
    """x · factor."""

    x: Term
    factor: float


@dataclass(frozen=True, eq=False)
class Call(Term):
    """One operation. Axes count from 0 here. `outputs` shapes are those of all its outputs; `first` is the call that
    an expression of another output belongs to."""

    op: str
    domain: str
    operands: tuple[Term | None, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    outputs: int = 1
    first: Call | None = None


@dataclass(frozen=True)
class Base:
    """An instance before it is spelled. `sizes` are the dimensions' numbers, `symbolic` those that stay names."""

    roots: tuple[Term, ...]
    opset: int
    sizes: dict[str, int]
    symbolic: frozenset[str]
    reader: str
    keep_opset: bool
