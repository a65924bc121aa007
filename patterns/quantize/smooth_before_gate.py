from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.products import is_linear
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, numbers_of

Row = Annotated[Value, const(rank=1, dtype="float32")]


class SmoothBeforeGate(Rule):
    """What a gated product, or one behind a Relu, is smoothed by, before the gate.

    Why: there the scales of the product take it over.
    Before: (a · y) · s, or Relu(y) · s, y a product with integer weights, or that and a bias
    After: a · (y·s), Relu(y·s)
    Safety: s is a positive number for each column of y, and nobody else reads what is in between.
    """

    stage = "quantize"

    def pattern(self, op: Ops, y: Value, s: Row, a: Value | None = None) -> Expr:
        return op.Mul(op.Mul(a, op.check(y, is_linear)), s) | op.Mul(op.Relu(op.check(y, is_linear)), s)

    def where(self, y: Value, s: Value) -> Reason:
        if y.shape is None or y.shape[-1:] != s.shape:
            return "the factors are not one for each column"
        return bool((numbers_of(s) > 0).all()) or "a factor is not positive"

    def rewrite(self, op: Builder, y: Value, s: Value, a: Value | None) -> Value:
        scaled = op.Mul(y, s)
        return op.Relu(scaled) if a is None else op.Mul(a, scaled)
