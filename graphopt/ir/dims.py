"""Symbolic dimensions: integers, names, and polynomials over names with integer coefficients.

A dimension is an `int` or a `Dim`. Arithmetic keeps a canonical form, so two dimensions that are written
differently but are the same polynomial compare equal: `2*(a+b) == b*2 + a + a`. A result that is constant is an `int`.
What is not a polynomial (a quotient that does not divide) is one opaque atom. No polynomial grows without end: what
would have more than `MOST_TERMS` terms, or a term of more than `MOST_FACTORS` names, is `TooLarge`.
"""

from __future__ import annotations

import ast
import itertools
import math
import warnings
from collections.abc import Iterable, Mapping

Monomial = tuple[str, ...]

MOST_TERMS = 256
MOST_FACTORS = 64
_MOST_STEPS = 4096
_LONGEST_TEXT = 400
_LARGEST = 2**63 - 1


class TooLarge(ArithmeticError):
    """A polynomial has more terms, or more factors, than are followed."""


class Dim:
    """A polynomial that is not constant: a sorted tuple of (monomial, coefficient)."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        parts = []
        for names, factor in self.terms:
            names_text = "*".join(names)
            parts.append(names_text if factor == 1 and names else "*".join(filter(None, (str(factor), names_text))))
        return " + ".join(parts)

    __repr__ = __str__


Size = int | Dim
Shape = tuple[Size, ...]


def _terms(a: Size) -> dict[Monomial, int]:
    if isinstance(a, int):
        return {(): a} if a else {}
    return dict(a.terms)


def _size(terms: dict[Monomial, int]) -> Size:
    kept = {names: factor for names, factor in terms.items() if factor}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    if len(kept) > MOST_TERMS or any(len(names) > MOST_FACTORS for names in kept):
        raise TooLarge(f"a size of {len(kept)} terms")
    return Dim(tuple(sorted(kept.items())))


def symbol(name: str) -> Dim:
    """The dimension called `name`."""
    return Dim((((name,), 1),))


def add(a: Size, b: Size) -> Size:
    """a + b. Raises: TooLarge."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    terms = _terms(a)
    for names, factor in _terms(b).items():
        terms[names] = terms.get(names, 0) + factor
    return _size(terms)


def mul(a: Size, b: Size) -> Size:
    """a · b. Raises: TooLarge."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    terms: dict[Monomial, int] = {}
    rows, columns = _terms(a), _terms(b)
    if len(rows) * len(columns) > _MOST_STEPS:
        raise TooLarge(f"a product of {len(rows)} and {len(columns)} terms")
    for left, p in rows.items():
        for right, q in columns.items():
            names = tuple(sorted(left + right))
            terms[names] = terms.get(names, 0) + p * q
    return _size(terms)


def sub(a: Size, b: Size) -> Size:
    """a - b"""
    return add(a, mul(b, -1))


def divide(a: Size, b: Size) -> Size | None:
    """a / b where b divides a as polynomials and b is one monomial; None where that is not so or not known."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if a == 0:
        return 0
    divisor = _terms(b)
    if len(divisor) != 1:
        return 1 if a == b else None
    ((names, factor),) = divisor.items()
    result: dict[Monomial, int] = {}
    for left, p in _terms(a).items():
        rest = list(left)
        for name in names:
            if name not in rest:
                return None
            rest.remove(name)
        if p % factor:
            return None
        result[tuple(rest)] = p // factor
    return _size(result)


def floordiv(a: Size, b: Size) -> Size:
    """⌊a / b⌋, an opaque atom where it is not exact."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return a // b
    exact = divide(a, b)
    # In brackets, so that it still says what it is as a factor: `2*((a)//(b))`.
    return symbol(f"(({a})//({b}))") if exact is None else exact


def product(sizes: Iterable[Size]) -> Size:
    """The number of elements of a shape. Raises: TooLarge."""
    result: Size = 1
    for size in sizes:
        result = mul(result, size)
    return result


def symbols(a: Size) -> set[str]:
    """The names that `a` is made of."""
    return set() if isinstance(a, int) else {name for names, _ in a.terms for name in names}


def evaluate(a: Size, numbers: Mapping[str, int]) -> int:
    """`a` where each name is that number. Raises: KeyError for a name that has none."""
    if isinstance(a, int):
        return a
    return sum(factor * math.prod(numbers[name] for name in names) for names, factor in a.terms)


class Unknowns:
    """Makes fresh dimensions, each different from every other."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def fresh(self) -> Dim:
        return symbol(f"?{next(self._count)}")


def parse(text: str) -> Size:
    """The dimension that a `dim_param` says: `batch`, `2*s0 + 1`; any other text is one opaque name.

    So is a text that is too long to be an expression, says too large a polynomial, or a number that no size can be.
    """
    if text.isidentifier() or len(text) > _LONGEST_TEXT:
        return symbol(text)
    try:
        with warnings.catch_warnings():
            # Python has its doubts about `1if N`; a name may be anything.
            warnings.simplefilter("ignore")
            size = _from_ast(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return symbol(text)
    return symbol(text) if isinstance(size, int) and not 0 <= size <= _LARGEST else size


def _from_ast(tree: ast.expr) -> Size:
    match tree:
        case ast.Name(id=name):
            return symbol(name)
        case ast.Constant(value=int(value)):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return mul(_from_ast(inner), -1)
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _from_ast(left), _from_ast(right)
            match operator:
                case ast.Add():
                    return add(a, b)
                case ast.Sub():
                    return sub(a, b)
                case ast.Mult():
                    return mul(a, b)
                case ast.FloorDiv():
                    return floordiv(a, b)
    raise ValueError("not a polynomial")
