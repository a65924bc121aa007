from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.ir.tensor import Array
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, numbers_of

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class FoldNormIntoProducts(Rule):
    """The gain and bias of a layer normalization, folded into the products after it.

    Why: the normalization has nothing left to multiply, and a scale of one is where quantization puts its own.
    Before: y = LayerNormalization(x, g, b); y·W₁, y·W₂, ...
    After: n = LayerNormalization(x, 1); n·(diag(g)·W₁) + b·W₁, ...
    Safety: every consumer is a product with a constant; in a post-norm model the residual is a consumer too, and
    nothing happens. New weights are computed in float64.
    """

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, g: Vector, axis: Attr, eps: Attr, w: Matrix, b: Vector | None = None) -> Expr:
        return op.each_use(op.LayerNormalization(x, g, b, axis=axis, epsilon=eps), lambda y: op.MatMul(y, w))

    def where(self, g: Value, b: Value | None, w: list[Value]) -> Reason:
        if b is None and (numbers_of(g) == 1).all():
            return "there is nothing to fold"
        if any(v is not None and v.shape != (w[0].shape or ())[:1] for v in (g, b)):
            return "the gain or the bias is broadcast"
        return all(m.uses == 1 for m in w) or "a weight has other uses and would be written twice"

    def rewrite(
        self, op: Builder, x: Value, g: Value, b: Value | None, w: list[Value], axis: int, eps: float
    ) -> tuple[Value, ...]:
        gain = _float64(g)
        n = op.LayerNormalization(x, op.const(np.ones(gain.shape), like=g, name="ones"), axis=axis, epsilon=eps)
        products = []
        for m in w:
            product = op.MatMul(n, op.const(gain[:, None] * _float64(m), like=m, name=m.name))
            shift = None if b is None else op.const(_float64(b) @ _float64(m), like=m, name="folded_bias")
            products.append(product if shift is None else op.Add(product, shift))
        return tuple(products)


def _float64(value: Value) -> Array:
    return numbers_of(value).astype(np.float64)
