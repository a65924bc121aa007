"""Writing an instance as a graph: orders, bracketings, Mul or Div, forms of constants, plain copies, signs of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt.ir import Model, Shape, Tensor, Value, dims, dtypes
from graphopt.ir.dims import Size
from graphopt.ir.infer import infer_node
from graphopt.ir.schema import attribute_default
from graphopt.ir.text.constants import seeded
from graphopt.rewrite import Builder
from graphopt.rewrite.leaves import COMMUTATIVE
from graphopt.testing.check.choices import Choose, Rejected
from graphopt.testing.check.shapes import required
from graphopt.testing.check.terms import Base, Call, Chain, Ints, Leaf, Number, Scaled, Sizes, Term


def spell(base: Base, choose: Choose) -> Model:
    """A graph that computes `base`, written as the choices say. Raises: Rejected where it cannot be written."""
    speller = _Speller(base, choose)
    for root in base.roots:
        value = speller.value(root)
        if base.reader:
            value = speller.read_by(base.reader, value)
        if value.node.is_source:
            raise Rejected
        speller.graph.add_slot(speller.graph.output, value)
    return speller.model


class _Speller:
    """A term that several others read is written once."""

    def __init__(self, base: Base, choose: Choose) -> None:
        self.base = base
        self.choose = choose
        self.model = Model.empty(base.opset)
        self.graph = self.model.graph
        self.builder = Builder(self.graph, self.graph.output)
        self._numbers = {name: size for name, size in base.sizes.items() if name not in base.symbolic}
        self._values: dict[Term, Value] = {}
        self._seed = 0

    # ---- values ------------------------------------------------------------------------------------------------

    def value(self, term: Term) -> Value:
        found = self._values.get(term)
        if found is None:
            found = self._values[term] = self._written(term)
        return found

    def read(self, term: Term) -> Value:
        """`term` as an operand, perhaps through a plain copy."""
        return self.copied(self.value(term))

    def copied(self, value: Value) -> Value:
        match self.choose("copies", ("", "", "", "", "Identity", "Cast")):
            case "Identity":
                return self.builder.Identity(value)
            case "Cast" if value.dtype:
                return self.builder.Cast(value, to=value.dtype)
        return value

    def _written(self, term: Term) -> Value:
        match term:
            case Leaf():
                return self._leaf(term)
            case Number(value=number):
                return self.number(number, term.dtype, 0)
            case Sizes():
                return self.constant(Tensor.of(self._target(term), dtypes.INT64), "shape")
            case Ints(elements=elements):
                return self.constant(Tensor.of(list(elements), dtypes.INT64), "ints")
            case Scaled(x=x, factor=factor):
                return self._combined("Mul", x, Number((), term.dtype, factor))
            case Chain():
                return self._chain(term)
            case Call():
                return self._call(term)
        raise TypeError(term)

    def _leaf(self, leaf: Leaf) -> Value:
        shape = self._shape(leaf.shape)
        if not leaf.constant:
            return self.graph.add_input(self.model.ledger.fresh(leaf.name), leaf.dtype, shape)
        sizes = tuple(self._number(size) for size in leaf.shape)
        if leaf.fill is not None:
            data = Tensor.of(np.full(sizes, leaf.fill), leaf.dtype)
        elif leaf.dtype in dtypes.FLOATS or leaf.dtype == dtypes.BOOL:
            self._seed += 1
            data = seeded(leaf.dtype, sizes, self._seed)
        else:
            data = Tensor.of(np.ones(sizes), leaf.dtype)
        return self.constant(data, leaf.name)

    def constant(self, data: Tensor, name: str) -> Value:
        """An initializer or a Constant node."""
        if self.choose("constants", (False, True)):
            node = self.graph.add_op("Constant", [], {"value": data})
            infer_node(node)
            return node.output
        return self.graph.add_constant(data, name)

    def number(self, number: float, dtype: int, rank: int) -> Value:
        """A constant of one element beside an operand of `rank`: a scalar, or where that is no scalar, [1]."""
        shape = (1,) if rank and self.choose("constants", (False, True)) else ()
        with np.errstate(over="ignore"):
            data = np.full(shape, number).astype(dtypes.to_numpy(dtype))
        return self.constant(Tensor.of(data), "constant")

    # ---- sums and products -------------------------------------------------------------------------------------

    def _chain(self, term: Chain) -> Value:
        left = list(term.operands)
        operands: list[Term | Value] = []
        while left:
            operands.append(left.pop(self.choose("orders", range(len(left)))))
        if term.op == "Add" and self.choose("orders", (False,) * 5 + (True,)):
            return self._made("Sum", [self._operand(operand, len(term.shape)) for operand in operands])
        while len(operands) > 1:
            at = self.choose("orders", range(len(operands) - 1))
            operands[at : at + 2] = [self._combined(term.op, operands[at], operands[at + 1])]
        (whole,) = operands
        assert isinstance(whole, Value)
        return whole

    def _combined(self, op: str, a: Term | Value, b: Term | Value) -> Value:
        """a ∘ b, either way round; a number may be subtracted or divided by instead."""
        if isinstance(a, Number) and not isinstance(b, Number):
            a, b = b, a
            swapped = not self.choose("orders", (False, True))
        else:
            swapped = self.choose("orders", (False, True))
        x = self._operand(a, _rank(b))
        if isinstance(b, Number):
            inverse = _inverse(op, b.value, b.dtype)
            if inverse is not None and self.choose("inverses", (False, True)):
                k = self.copied(self.number(inverse, b.dtype, x.rank or 0))
                return self._made("Sub" if op == "Add" else "Div", [x, k])
        inverted = _inverted(op, b)
        if inverted is not None and self.choose("inverses", (False, True)):
            return self._made("Sub" if op == "Add" else "Div", [x, self.read(inverted)])
        y = self._operand(b, x.rank or 0)
        return self._made(op, [y, x] if swapped else [x, y])

    def _operand(self, operand: Term | Value, beside: int) -> Value:
        if isinstance(operand, Value):
            return self.copied(operand)
        if isinstance(operand, Number):
            return self.copied(self.number(operand.value, operand.dtype, beside))
        return self.read(operand)

    # ---- operations --------------------------------------------------------------------------------------------

    def _call(self, term: Call) -> Value:
        if term.first is not None:
            return self.value(term.first).node.outputs[term.index]
        if term.op == "Split":
            assert isinstance(term.operands[0], Term)
            sizes = term.operands[1]
            assert isinstance(sizes, Ints)
            whole = self.read(term.operands[0])
            return self.builder.split(whole, sizes.elements, self._axis(term.attrs.get("axis", 0), whole.rank or 0))[0]
        rank = max((len(o.shape) for o in term.operands if o is not None), default=0)
        slots = [None if o is None else self._operand(o, rank) for o in term.operands]
        if term.op in COMMUTATIVE and not term.domain and self.choose("orders", (False, True)):
            slots.reverse()
        attrs = self._attributes(term)
        made: Value = getattr(self.builder, term.op)(*slots, domain=term.domain, outputs=term.outputs, **attrs)
        return made

    def _attributes(self, term: Call) -> dict[str, Any]:
        """The attributes, axes from either end; one that has its default may be left out."""
        operand = term.operands[0]
        rank = len(operand.shape) if operand is not None else 0
        rank = len(term.shape) if term.op == "Unsqueeze" else rank
        found = dict(term.attrs)
        for name in ("axis", "axes"):
            if name in found and term.op != "Flatten":
                found[name] = self._axis(found[name], rank)
        version = self.graph.opsets.get(term.domain, 1)
        needed = required(term.domain, term.op, version)
        for name, value in term.attrs.items():
            default = attribute_default(term.domain, term.op, version, name)
            if (
                default is not None
                and value == default
                and name not in needed
                and self.choose("defaults", (True, False))
            ):
                del found[name]
        return found

    def _axis(self, axes: Any, rank: int) -> Any:
        """Axes counted from the front or the end."""
        back = self.choose("axes", (False, True))
        if isinstance(axes, int):
            return axes - rank if back else axes
        return [axis - rank if back else axis for axis in axes]

    def _made(self, op: str, slots: Sequence[Value | None]) -> Value:
        value: Value = getattr(self.builder, op)(*slots)
        return value

    def read_by(self, reader: str, value: Value) -> Value:
        """What reads a root, so that the root is no graph output."""
        if reader == "LayerNormalization":
            if value.dtype not in dtypes.FLOATS or not value.rank or value.shape is None:
                raise Rejected
            last = value.shape[-1]
            if not isinstance(last, int):
                raise Rejected
            gain = self.graph.add_constant(seeded(value.dtype, (last,), 99), "gain")
            # With an epsilon of 1 the smallest difference before it stays small.
            return self.builder.LayerNormalization(value, gain, epsilon=1.0)
        return self._made(reader, [value])

    # ---- sizes -------------------------------------------------------------------------------------------------

    def _number(self, size: Size) -> int:
        """A dimension as a number. Raises: Rejected for one that stays a name."""
        try:
            return dims.evaluate(size, self._numbers)
        except KeyError:
            raise Rejected from None

    def _shape(self, shape: Shape) -> Shape:
        """A shape, with the numbers of the dimensions that do not stay names."""
        return tuple(_partial(size, self._numbers) for size in shape)

    def _target(self, sizes: Sizes) -> list[int]:
        """The shape that a view asks for: numbers, 0 for a name in its place, one −1. Raises: Rejected for two."""
        found = []
        source = self._shape(sizes.source)
        for axis, size in enumerate(self._shape(sizes.target)):
            copied = axis < len(source) and source[axis] == size
            found.append(size if isinstance(size, int) else 0 if copied else -1)
        if found.count(-1) > 1:
            raise Rejected
        return found


def _rank(operand: Term | Value) -> int:
    return (operand.rank or 0) if isinstance(operand, Value) else len(operand.shape)


def _inverse(op: str, number: float, dtype: int) -> float | None:
    """What is subtracted or divided by instead, if its type has it."""
    if op == "Add":
        return -number
    if number == 0 or not math.isfinite(number):
        return None
    limits = np.finfo(dtypes.to_numpy(dtype))
    return 1 / number if float(limits.tiny) <= abs(1 / number) <= float(limits.max) else None


def _inverted(op: str, operand: Term | Value) -> Term | None:
    """What is subtracted, or divided by, where Neg or Reciprocal would be added or multiplied with."""
    match operand:
        case Call(op="Neg", operands=(Term() as inner,)) if op == "Add":
            return inner
        case Call(op="Reciprocal", operands=(Term() as inner,)) if op == "Mul":
            return inner
        case Call(op="Div", operands=(Number(value=1.0), Term() as inner)) if op == "Mul":
            return inner
    return None


def _partial(size: Size, numbers: dict[str, int]) -> Size:
    """`size` with the numbers that are known put in."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for names, factor in size.terms:
        term: Size = factor
        for name in names:
            term = dims.mul(term, numbers.get(name, dims.symbol(name)))
        total = dims.add(total, term)
    return total
