"""From a pattern to an instance: the shape of the result is chosen, and pushed down through the operations."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from onnx.defs import OpSchema

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Shape, Size
from graphopt.ir.schema import first_version, onnx_schema, signature
from graphopt.rewrite import pattern as p
from graphopt.rewrite.blame import Mistake
from graphopt.testing.check import shapes
from graphopt.testing.check.choices import Choose, Rejected, plainest
from graphopt.testing.check.spell import spell
from graphopt.testing.check.terms import Base, Call, Chain, Ints, Leaf, Number, Scaled, Sizes, Term

OPSETS = (20, 17, 13, 11, 23)
_DTYPES = (dtypes.FLOAT, dtypes.FLOAT16, dtypes.DOUBLE)
_NUMBERS = (0.5, 1e-3, 1.702, 2.0, 30.0, 0.0, -1.0, 0.3, 1.0, -0.5)
_EPSILON = 1e-5
_FACTORS = (0.5, 2.0, 1.702, -1.0, 0.0, 0.3)
_RANKS = (3, 3, 2, 4, 1, 0)
_SIZES = (3, 4, 2, 5, 6, 7, 8, 9, 10, 11)
_READERS = ("", "LayerNormalization", "Neg")
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand"})
_SUMS = frozenset({"Add", "Max"})
_FILLS = frozenset({"Where"})
_SEVERAL = 2


Given = tuple[int, Shape] | float
"""What an author gives a variable: its element type and shape, or the value of a number."""


class Want(NamedTuple):
    """What a term is to be: of this shape, or, unless `exact`, of one that broadcasts to it."""

    shape: Shape
    dtype: int
    exact: bool = True


def grow(pattern: p.Pattern, choose: Choose, given: Mapping[str, Given] = MappingProxyType({})) -> Base:
    """An instance of `pattern`, as the choices say, with the types and numbers that are given for some variables.

    Raises: Rejected where the choices contradict each other, Unsupported where no choice leads to an instance.
    """
    opset = choose("opsets", OPSETS)
    grower = Grower(pattern, choose, opset, given)
    roots = grower.roots()
    names = [name for name in grower.sizes if name not in grower.fixed]
    symbolic = choose("symbols", [frozenset(), frozenset(names), frozenset(names[:1]), frozenset(names[1:])])
    return Base(
        tuple(roots),
        opset,
        grower.sizes,
        symbolic,
        choose("readers", _READERS),
        choose("opsets", (False, True)),
    )


class Grower:
    """Binds variables as it meets them. An expression that stands in several places is one term."""

    def __init__(self, pattern: p.Pattern, choose: Choose, opset: int, given: Mapping[str, Given]) -> None:
        self.choose = choose
        self.opset = opset
        self.dtype = dtypes.FLOAT
        self.sizes: dict[str, int] = {}
        self.fixed: set[str] = set()
        self.bound: dict[str, Any] = {}
        self.made: dict[p.Expr, Term] = {}
        self.named: dict[Any, Any] = {}
        self.leaves: list[Leaf] = []
        self.habits: dict[str, Any] = {}
        self._given = given
        self._pattern = pattern
        self._added, self._filled = _numbers_below(pattern, _SUMS), _numbers_below(pattern, _FILLS)
        self._views = any(isinstance(e, p.Op) and e.op in _VIEWS for root in pattern.roots for e in walk(root))

    def roots(self) -> list[Term]:
        self.dtype = dtype = self.choose("dtypes", _DTYPES)
        first = self._pattern.roots[0]
        if isinstance(first, p.EachUse):
            return self._uses(first, dtype)
        return [self._root(root, dtype) for root in self._pattern.roots]

    def _root(self, e: p.Expr, dtype: int) -> Term:
        while isinstance(e, p.Alt):
            e = self.choose("alternatives", e.branches)
        return self.grow(e, Want(self.natural(e), dtype))

    def _uses(self, e: p.EachUse, dtype: int) -> list[Term]:
        value = self._root(e.value, dtype)
        bound, made = self.bound, self.made
        uses = []
        for _ in range(self.choose("uses", range(1, 4))):
            self.bound, self.made = {**bound, e.seen.name: value}, dict(made)
            uses.append(self._root(e.use, dtype))
        return uses

    # ---- shapes ------------------------------------------------------------------------------------------------

    def size(self, number: int | None = None) -> Size:
        """A new dimension."""
        name = "abcdefghijklmnopqrstuvw"[len(self.sizes) % 23]
        self.sizes[name] = number or _SIZES[len(self.sizes) % len(_SIZES)]
        if number is not None:
            self.fixed.add(name)
        return dims.symbol(name)

    def number(self, size: Size) -> int:
        """A dimension as a number, which it then is in every spelling."""
        self.fixed.update(dims.symbols(size))
        return dims.evaluate(size, self.sizes)

    def parts(self, size: Size, count: int) -> list[int]:
        """Numbers whose sum is `size`. Raises: Rejected where it is too small."""
        whole = self.number(size)
        if whole < count:
            raise Rejected
        return [1] * (count - 1) + [whole - count + 1]

    def outputs(self, e: p.Op) -> int:
        """How many outputs the pattern knows of an operation, and one more where it may have more."""
        same = [
            o for root in self._pattern.roots for o in walk(root) if isinstance(o, p.Op) and o.identity is e.identity
        ]
        return max(o.index for o in same) + 1

    def some_shape(self, ranks: Sequence[int] = _RANKS) -> Shape:
        """A shape, perhaps with ones and equal dimensions; where the pattern has views, some are products."""
        shape: list[Size] = []
        kinds = ("plain", "product", "one", "same") if self._views else ("plain", "plain", "plain", "one", "same")
        for _ in range(self.choose("ranks", ranks)):
            match self.choose("ranks", kinds):
                case "product":
                    shape.append(dims.mul(self.size(), self.size(_SEVERAL)))
                case "one":
                    shape.append(1)
                case "same" if shape:
                    shape.append(shape[-1])
                case _:
                    shape.append(self.size())
        return tuple(shape)

    def known(self, e: p.Expr | None) -> Shape | None:
        """The shape of what `e` is bound to already; None where it is not."""
        match e:
            case p.Var(kind="value", name=name):
                bound = self.bound.get(name)
                return bound.shape if isinstance(bound, Term) else None
            case p.SuchAs(var=var):
                return self.known(var)
            case p.Op() if e.identity in self.made:
                return self.made[e.identity].shape
            case p.Chain() | p.Scaled() | p.Alt():
                found = [shape for child in p.children(e) if (shape := self.known(child)) is not None]
                return max(found, key=len, default=None)
        return None

    def natural(self, e: p.Expr) -> Shape:
        """A shape for a result of `e` that goes with what is bound already."""
        match e:
            case p.Op():
                return shapes.rule(e).natural(self, e)
            case p.Anchor(whole=inner) | p.Check(inner=inner):
                return self.natural(inner)
        found = (self.known(child) for child in walk(e)) if self.bound else iter(())
        return next((shape for shape in found if shape is not None), None) or self.some_shape()

    def _name(self, wanted: p.Dims, shape: Shape) -> None:
        """Takes `shape` for what an annotation calls `wanted`. Raises: Rejected where the names are other sizes."""
        head = wanted.index(...) if ... in wanted else len(wanted)
        tail = len(wanted) - head - 1
        if len(shape) < len(wanted) - 1 or (tail < 0 and len(shape) != len(wanted)):
            raise Rejected
        end = len(shape) - max(tail, 0)
        sizes = [*shape[:head], *shape[end:]] if tail >= 0 else shape
        if tail >= 0 and self.named.setdefault(..., shape[head:end]) != shape[head:end]:
            raise Rejected
        for want, size in zip([want for want in wanted if want is not ...], sizes, strict=True):
            if isinstance(want, int):
                self._set(size, want)
            elif want is not None and self.named.setdefault(want, size) != size:
                raise Rejected

    def _set(self, size: Size, number: int) -> None:
        """Makes a dimension a number. Raises: Rejected where it is another."""
        names = dims.symbols(size)
        if len(names) == 1 and not names & self.fixed and size == dims.symbol(min(names)):
            self.sizes[min(names)] = number
        if self.number(size) != number:
            raise Rejected

    # ---- expressions -------------------------------------------------------------------------------------------

    def grow(self, e: p.Expr, want: Want) -> Term:
        key = e.identity if isinstance(e, p.Op) else e
        if key in self.made:
            return self._again(e, self.made[key])
        term = self._grow(e, want)
        if not isinstance(e, (p.Var, p.Literal, p.SuchAs)):
            self.made[key] = term.first or term if isinstance(term, Call) else term
        return self._again(e, term)

    def _again(self, e: p.Expr, term: Term) -> Term:
        if isinstance(e, p.Op) and isinstance(term, Call) and e.index != term.index:
            return Call(term.shape, term.dtype, term.op, term.domain, (), {}, e.index, term.outputs, term)
        return term

    def _grow(self, e: p.Expr, want: Want) -> Term:
        match e:
            case p.Var():
                return self._variable(e, want)
            case p.Literal(value=value):
                return Number((), want.dtype, value)
            case p.Alt(branches=branches):
                return self.grow(self.choose("alternatives", branches), want)
            case p.Anchor(whole=inner) | p.Check(inner=inner):
                return self.grow(inner, want)
            case p.SuchAs(var=var, example=example):
                if var.name not in self.bound:
                    self.bound[var.name] = self.grow(example, want)
                return self._variable(var, want)
            case p.Scaled(x=x, factor=factor):
                scaled = self.grow(x, want)
                number = self.grow(factor, Want((), want.dtype))
                assert isinstance(number, Number)
                return Scaled(scaled.shape, scaled.dtype, scaled, number.value)
            case p.Chain(op=op, operands=operands):
                terms = self.elementwise(operands, want)
                return Chain(shapes.broadcast(t.shape for t in terms), want.dtype, op, tuple(terms))
            case p.Op():
                return shapes.rule(e).push(self, e, want)
        raise shapes.unsupported(e)

    def elementwise(self, operands: Sequence[p.Expr], want: Want) -> list[Term]:
        """Operands that are broadcast: one has the whole shape, others may have less of it."""
        able = [at for at, e in enumerate(operands) if shapes.allows(e, len(want.shape))]
        whole = self.choose("broadcasts", able or range(len(operands)))
        return [self.grow(e, Want(want.shape, want.dtype, want.exact and at == whole)) for at, e in enumerate(operands)]

    def _variable(self, e: p.Var, want: Want) -> Term:
        if e.kind == "factor":
            return Number((), want.dtype, self.choose("numbers", _FACTORS))
        if e.name not in self.bound:
            self.bound[e.name] = self._number(e.name, want.dtype) if e.kind == "number" else self._leaf(e, want)
        bound = self.bound[e.name]
        if not isinstance(bound, Term):
            raise Rejected
        if isinstance(bound, Number):
            return Number((), want.dtype, bound.value)
        fits = bound.shape == want.shape if want.exact else shapes.fits(bound.shape, want.shape)
        if e.name not in self._given and (bound.dtype != want.dtype or not fits):
            raise Rejected
        return bound

    def _number(self, name: str, dtype: int) -> Number:
        """The number that is given, or a moderate one; what is added may be an epsilon, what fills a mask −∞."""
        given = self._given.get(name)
        if isinstance(given, float):
            return Number((), dtype, given)
        numbers = list(_NUMBERS)
        if name in self._added:
            numbers[1:1] = [_EPSILON]
        if name in self._filled and dtype in dtypes.FLOATS:
            numbers += [-math.inf, float(np.finfo(dtypes.to_numpy(dtype)).min)]
        return Number((), dtype, self.choose("numbers", numbers))

    def _leaf(self, e: p.Var, want: Want) -> Leaf:
        c = e.constraint
        given = self._given.get(e.name)
        if isinstance(given, tuple):
            dtype, shape = given
            return Leaf(shape, dtype, e.name, c.constant)
        if c.dtype is not None and dtypes.NAMES[want.dtype] not in c.dtype:
            raise Rejected
        shape = self.choose("broadcasts", self._shapes(c, want))
        if c.dims is not None:
            self._name(c.dims, shape)
        constant = c.constant or self.choose("weights", (False,) * 7 + (True,))
        fill = self.choose("weights", (None, None, 1.0)) if c.constant else None
        same = [
            leaf for leaf in self.leaves if (leaf.shape, leaf.dtype, leaf.constant) == (shape, want.dtype, constant)
        ]
        leaf: Leaf = self.choose("shared", [Leaf(shape, want.dtype, e.name, constant, fill)] * 3 + same)
        self.leaves.append(leaf)
        return leaf

    def _shapes(self, c: p.Constraint, want: Want) -> list[Shape]:
        """The shapes that a variable may have where `want` is wanted."""
        rank = len(want.shape)
        ranks = list(range(rank + 1) if c.rank is None else (c.rank,) if isinstance(c.rank, int) else c.rank)
        if c.dims is not None:
            ranks = [r for r in ranks if shapes.has_rank(c.dims, r)]
        if want.exact:
            found = [want.shape] if rank in ranks else []
        else:
            found = [want.shape[rank - r :] for r in sorted(ranks, reverse=True) if r <= rank]
            ones = [(*want.shape[:at], 1, *want.shape[at + 1 :]) for at in range(rank) if rank in ranks]
            found = [*found[:1] * 3, *found, *(shape for shape in ones if shape not in found)]
            found = found if c.dims is None else found[:1]
        return found

    # ---- attributes and operands that no expression names --------------------------------------------------------

    def attributes(self, e: p.Op, **legal: Sequence[Any]) -> dict[str, Any]:
        """The attributes of an operation, as the pattern names them or, where it does not care, as `legal` has them."""
        version = max(self.opset, first_version(e.domain, e.op)) if not e.domain else 1
        known = signature(e.domain, e.op, version)
        found: dict[str, Any] = {}
        for name, want in e.attrs.items():
            default = known.attributes.get(name) if known else None
            found[name] = self._attribute(want, legal.get(name) or shapes.likely(name, default))
        if e.kept is not None:
            self.bound[e.kept.name] = True
        if known and (e.rest or e.kept):
            inputs = set(known.inputs)
            for name, default in known.attributes.items():
                if name not in found and (name in legal or default is not None) and name not in inputs:
                    found[name] = self.choose("attributes", legal.get(name) or shapes.likely(name, default))
        needed = legal if e.rest or e.kept else shapes.required(e.domain, e.op, version)
        for name, values in legal.items():
            if name in needed and name not in found:
                found[name] = self.choose("attributes", values)
        if isinstance(found.get("axes"), int):
            found["axes"] = [found["axes"]]
        return {name: value for name, value in found.items() if value is not None}

    def _attribute(self, want: Any, legal: Sequence[Any]) -> Any:
        if isinstance(want, p.Var):
            if want.name not in self.bound:
                self.bound[want.name] = self.choose("attributes", legal)
            return self.bound[want.name]
        if callable(want):
            good = [value for value in legal if want(value) is True]
            if not good:
                raise Rejected
            return self.choose("attributes", good)
        return want

    def again(self, what: str, generator: str, options: dict[str, Any]) -> Any:
        """One of `options`, most often the one that was taken for `what` before: exporters repeat themselves."""
        usual = self.habits.get(what)
        names = [*[usual] * (7 if usual in options else 0), *options]
        name = self.habits[what] = self.choose(generator, names)
        return options[name]

    def inferred(self, call: Call) -> Call:
        """`call` with the type that inference gives its result. Raises: Unsupported where it gives none."""
        sizes = {dims.evaluate(d, self.sizes): d for o in call.operands if o is not None for d in o.shape}
        self.fixed.update(self.sizes)
        base = Base((call,), self.opset, self.sizes, frozenset(), "", False)
        try:
            value = spell(base, plainest).graph.outputs[0]
        except Mistake as mistake:
            raise Rejected from mistake
        if not value.dtype or value.shape is None:
            raise shapes.unsupported(call)
        shape = tuple(sizes.get(size, size) if isinstance(size, int) else size for size in value.shape)
        return dataclasses.replace(call, shape=shape, dtype=value.dtype)

    def call(self, e: p.Op, operands: Iterable[Term | None], shape: Shape, dtype: int, attrs: dict[str, Any]) -> Call:
        slots = list(operands)
        while slots and slots[-1] is None:
            slots.pop()
        return Call(shape, dtype, e.op, e.domain, tuple(slots), attrs)

    def operand(self, e: p.Op, slot: int, want: Want) -> Term | None:
        """The operand in `slot`; None for one that is left out."""
        operand = e.operands[slot] if slot < len(e.operands) else None
        if operand is None:
            return None
        if (
            _optional(operand)
            and self._may_be_empty(e, slot)
            and not (isinstance(operand, p.Var) and operand.name in self.bound)
        ):
            taken = self.choose("alternatives", (True, False))
            if not taken:
                if isinstance(operand, p.Var):
                    self.bound[operand.name] = None
                return None
        if isinstance(operand, p.Var) and self.bound.get(operand.name, operand) is None:
            return None
        return self.grow(operand, want)

    def _may_be_empty(self, e: p.Op, slot: int) -> bool:
        schema = onnx_schema(e.domain, e.op, max(self.opset, first_version(e.domain, e.op)))
        return (
            schema is None
            or slot >= len(schema.inputs)
            or schema.inputs[slot].option == OpSchema.FormalParameterOption.Optional
        )

    def sizes_operand(self, e: p.Op, slot: int, target: Shape, source: Shape) -> Term:
        """The operand that says a shape: bound to a variable where the pattern has one."""
        made = Sizes((len(target),), dtypes.INT64, target, source)
        return self._generated(e, slot, made)

    def ints_operand(self, e: p.Op, slot: int, *elements: int) -> Term:
        return self._generated(e, slot, Ints((len(elements),), dtypes.INT64, elements))

    def _generated(self, e: p.Op, slot: int, made: Term) -> Term:
        operand = e.operands[slot] if slot < len(e.operands) else None
        if operand is None:
            return made
        if not isinstance(operand, p.Var) or operand.name in self.bound:
            raise shapes.unsupported(e)
        self.bound[operand.name] = made
        return made


def _optional(e: p.Expr) -> bool:
    return (isinstance(e, p.Var) and e.optional) or (isinstance(e, p.Alt) and any(map(_optional, e.branches)))


def _numbers_below(pattern: p.Pattern, ops: frozenset[str]) -> set[str]:
    """The numbers of a pattern that are operands of one of `ops`."""
    readers = [e for root in pattern.roots for e in walk(root) if isinstance(e, (p.Op, p.Chain)) and e.op in ops]
    operands = [child for e in readers for child in p.children(e)]
    return {e.name for e in operands if isinstance(e, p.Var) and e.kind == "number"}


@functools.lru_cache(4096)
def walk(e: p.Expr) -> tuple[p.Expr, ...]:
    """All parts of an expression, each once."""
    found: dict[p.Expr, None] = {}
    stack = [e]
    while stack:
        e = stack.pop()
        if e not in found:
            found[e] = None
            stack.extend(p.children(e))
    return tuple(found)
