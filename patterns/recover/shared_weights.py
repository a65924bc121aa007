from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, like

Matrices = Annotated[Value, like(dims=(..., None, None))]


class SharedWeights(Rule):
    """Weights of attention that several values meet, as weights that meet all values side by side.

    Why: attention has one product behind its softmax; the weights are computed, and read, once.
    Before: w·v₁, w·v₂, ... with w = Softmax(s·(q·kᵀ) + b); scale, one or two biases and a guard
    against NaN optional
    After: Split(w·[v₁ v₂ ...])
    Safety: columns of a product are those of its second operand; the values differ in these alone, and nobody else
    reads the weights.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        q: Value,
        kt: Value,
        v: Matrices,
        scale: Number | None = None,
        b: Value | None = None,
        more: Value | None = None,
        zero: Number | None = None,
    ) -> Expr:
        product = op.MatMul(q, kt)
        plain = op.scaled(product, scale) | product
        weights = op.Softmax(op.sum(plain, b, more) | plain + b | plain, axis=-1)
        guarded = op.Where(op.IsNaN(weights), zero, weights) | weights
        return op.each_use(guarded, lambda w: op.MatMul(w, v))

    def where(self, v: list[Value]) -> Reason:
        if len(v) < 2:
            return "one product reads the weights"
        rows = {value.shape[:-1] if value.shape else None for value in v}
        known = all(value.shape and isinstance(value.shape[-1], int) for value in v)
        return (len(rows) == 1 and known) or "the values differ in more than their columns"

    def rewrite(self, op: Builder, v: list[Value], root: Value) -> tuple[Value, ...]:
        weights = root.node.inputs[0]
        assert weights is not None
        whole = op.MatMul(weights, op.Concat(*v, axis=-1))
        return op.split(whole, [int(str((value.shape or ())[-1])) for value in v], axis=-1)
