from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.packed import fits, packed
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class PackGate(Rule):
    """The gate of a feed-forward layer and what it gates, as one product.

    Why: as for queries, keys and values: one wide product reads its input once. A target's table says where it pays.
    Before: f(x·Wg + bg) · (x·Wu + bu), with f one of Swish, Gelu, Sigmoid, Relu, Tanh; each bias optional
    After: g, u = Split(x·[Wg Wu] + [bg bu]); f(g)·u
    Safety: each output column is the same dot product; nobody else reads the two products.
    Source: Shazeer, GLU Variants Improve Transformer, 2020.
    """

    stage = "fuse"
    needs = kernel("ir", "PackedProjection")
    once = True

    def pattern(
        self, op: Ops, x: Value, wg: Matrix, wu: Matrix, bg: Vector | None = None, bu: Vector | None = None
    ) -> Expr:
        g, u = (op.MatMul(x, w) + b | op.MatMul(x, w) for w, b in ((wg, bg), (wu, bu)))
        gate = op.Swish(g, ...) | op.Gelu(g, ...) | op.Sigmoid(g) | op.Relu(g) | op.Tanh(g)
        return op.anchor(op.Mul(gate, u), g, u)

    def where(self, wg: Value, wu: Value, bg: Value | None, bu: Value | None) -> Reason:
        return fits((wg, bg), (wu, bu))

    def rewrite(
        self, op: Builder, x: Value, wg: Value, wu: Value, bg: Value | None, bu: Value | None
    ) -> tuple[Value, ...]:
        return packed(op, x, (wg, bg), (wu, bu))
