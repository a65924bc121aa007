from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, const, constant_of, numbers_of


class GemmTransposed(Rule):
    """A transposed Gemm, written the other way round.

    Why: the kernel reads either layout of its operands; a copy of the result goes.
    Before: Transpose(Gemm(a, b, c))
    After: Gemm(b, a, cᵀ) with transA and transB exchanged and turned over
    Safety: (αab + βc)ᵀ = αbᵀaᵀ + βcᵀ. A constant b stays where it is: the runtime packs constants on the right only.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        a: Value,
        b: Value,
        left: Attr,
        right: Attr,
        others: Attrs,
        c: Annotated[Value, const(rank=(0, 1, 2))] | None = None,
    ) -> Expr:
        gemm = op.Gemm(a, b, c, transA=left, transB=right, others=others)
        return op.Transpose(gemm, perm=lambda perm: perm is None or perm == [1, 0])

    def where(self, b: Value) -> Reason:
        return constant_of(b) is None or "the right operand is a constant"

    def rewrite(self, op: Builder, a: Value, b: Value, c: Value | None, left: int, right: int, others: Attrs) -> Value:
        turned = None if c is None else op.const(np.atleast_2d(numbers_of(c)).T, like=c, name="turned")
        return op.Gemm(b, a, turned, transA=1 - right, transB=1 - left, **others)
