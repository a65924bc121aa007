from typing import Annotated

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, constant_of, numbers_of

Bias = Annotated[Value, const(rank=1)]


class AddConstants(Rule):
    """Two constant vectors added one after the other are one.

    Why: folding leaves a bias beside the one that was there.
    Before: (x + b) + c
    After: x + (b + c)
    Safety: vectors of one length, added in float64; floats only.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, b: Bias, c: Bias) -> Expr:
        return op.sum(x, b, c)

    def where(self, x: Value, b: Value, c: Value) -> Reason:
        if constant_of(x) is not None or b.dtype not in dtypes.FLOATS:
            return "not an activation"
        return b.shape == c.shape or f"lengths {b.shape} and {c.shape}"

    def rewrite(self, op: Builder, x: Value, b: Value, c: Value) -> Value:
        both = numbers_of(b).astype(np.float64) + numbers_of(c).astype(np.float64)
        return op.Add(x, op.const(both, like=b, name="bias"))
