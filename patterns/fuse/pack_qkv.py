from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.packed import fits, packed
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class PackQKV(Rule):
    """Query, key and value of one input as one product.

    Why: one product of the whole width keeps a wide machine busier than three, and reads its input once. Two CPU
    cores are busy anyway, and cutting the result apart costs more than that saves: a target's table says where it pays.
    Before: q = x·Wq + bq; k = x·Wk + bk; v = x·Wv + bv; Attention(heads(q), heads(k), heads(v)), each bias optional
    After: q, k, v = Split(x·[Wq Wk Wv] + [bq bk bv]), with zeros for a bias that is not there
    Safety: each output column is the same dot product; nobody else reads the three products.
    """

    stage = "fuse"
    needs = kernel("ir", "PackedProjection")
    once = True

    def pattern(
        self,
        op: Ops,
        x: Value,
        wq: Matrix,
        wk: Matrix,
        wv: Matrix,
        bq: Vector | None = None,
        bk: Vector | None = None,
        bv: Vector | None = None,
    ) -> Expr:
        q, k, v = (op.MatMul(x, w) + b | op.MatMul(x, w) for w, b in ((wq, bq), (wk, bk), (wv, bv)))
        heads = [op.Transpose(op.Reshape(y, ...), ...) for y in (q, k, v)]
        return op.anchor(op.ir.Attention(*heads, ...), q, k, v)

    def where(self, wq: Value, wk: Value, wv: Value, bq: Value | None, bk: Value | None, bv: Value | None) -> Reason:
        return fits((wq, bq), (wk, bk), (wv, bv))

    def rewrite(
        self,
        op: Builder,
        x: Value,
        wq: Value,
        wk: Value,
        wv: Value,
        bq: Value | None,
        bk: Value | None,
        bv: Value | None,
    ) -> tuple[Value, ...]:
        return packed(op, x, (wq, bq), (wk, bk), (wv, bv))
