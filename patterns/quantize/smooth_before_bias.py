from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.products import is_integer_product
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, numbers_of

Row = Annotated[Value, const(rank=1, dtype="float32")]


class SmoothBeforeBias(Rule):
    """What a product with a bias is smoothed by, before the bias.

    Why: there the scales of the product take it over.
    Before: (y + b) · s, y a product of integers
    After: y·s + b·s
    Safety: b and s are constant vectors of one length; nobody else reads the sum.
    """

    stage = "quantize"

    def pattern(self, op: Ops, y: Value, b: Row, s: Row) -> Expr:
        return op.Mul(op.Add(y, b), s)

    def where(self, y: Value, b: Value, s: Value) -> Reason:
        if b.shape != s.shape:
            return f"lengths {b.shape} and {s.shape}"
        return is_integer_product(y)

    def rewrite(self, op: Builder, y: Value, b: Value, s: Value) -> Value:
        bias = numbers_of(b).astype(np.float64) * numbers_of(s).astype(np.float64)
        return op.Add(op.Mul(y, s), op.const(bias, like=b, name="smooth_bias"))
