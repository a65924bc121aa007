from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const

Integers = Annotated[Value, const()]


class TransposeOfIntegers(Rule):
    """Quantized weights that are transposed as floats, transposed as integers.

    Why: a product is one of integers only where it reads what was dequantized; and the integers are a constant.
    Before: Transpose(DequantizeLinear(w, s, z, axis), perm)
    After: DequantizeLinear(Transpose(w, perm), s, z, axis'), axis' = where perm has axis
    Safety: element by element the same; no scales for blocks.
    """

    stage = "clean"

    def pattern(self, op: Ops, w: Integers, s: Value, perm: Attr, axis: Attr, z: Value | None = None) -> Expr:
        return op.Transpose(op.DequantizeLinear(w, s, z, axis=axis), perm=perm)

    def where(self, w: Value, s: Value) -> Reason:
        return (w.rank is not None and s.rank in (0, 1)) or "the ranks are not known"

    def rewrite(
        self, op: Builder, w: Value, s: Value, z: Value | None, perm: list[int] | None, axis: int | None
    ) -> Value:
        assert w.rank is not None
        turned = perm if perm is not None else list(reversed(range(w.rank)))
        moved = None if axis is None or s.rank == 0 else turned.index(axis % w.rank)
        return op.DequantizeLinear(op.Transpose(w, perm=perm), s, z, axis=moved)
