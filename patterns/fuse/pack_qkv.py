from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, constant_of

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class PackQKV(Rule):
    """Query, key and value of one input as one product.

    Why: one product of three times the width keeps the cores busier than three, and reads its input once.
    Before: Attention(heads(x·Wq + bq), heads(x·Wk + bk), heads(x·Wv + bv))
    After: q, k, v = Split(x·[Wq Wk Wv] + [bq bk bv]); Attention(heads(q), heads(k), heads(v))
    Safety: the products and sums are read by this attention alone; each output column is the same dot product.
    """

    stage = "fuse"
    once = True

    def pattern(
        self, op: Ops, x: Value, wq: Matrix, wk: Matrix, wv: Matrix, bq: Vector, bk: Vector, bv: Vector,
        sq: Value, sk: Value, sv: Value, pq: Attr, pk: Attr, pv: Attr, scale: Attr, guard: Attr, bias: Value | None = None,
    ) -> Expr:  # fmt: skip
        q = op.Transpose(op.Reshape(op.MatMul(x, wq) + bq, sq), perm=pq)
        k = op.Transpose(op.Reshape(op.MatMul(x, wk) + bk, sk), perm=pk)
        v = op.Transpose(op.Reshape(op.MatMul(x, wv) + bv, sv), perm=pv)
        return op.ir.Attention(q, k, v, bias, scale=scale, guard=guard)

    def where(self, wq: Value, wk: Value, wv: Value, bq: Value, bk: Value, bv: Value) -> Reason:
        if wq is wk or wk is wv or wq is wv:
            return "two of the products are the same"
        fits = all(w.shape and b.shape == w.shape[1:] for w, b in ((wq, bq), (wk, bk), (wv, bv)))
        return fits or "a bias does not match its weights"

    def rewrite(
        self, op: Builder, x: Value, wq: Value, wk: Value, wv: Value, bq: Value, bk: Value, bv: Value,
        sq: Value, sk: Value, sv: Value, pq: list[int], pk: list[int], pv: list[int],
        scale: float, guard: int, bias: Value | None,
    ) -> Value:  # fmt: skip
        weights, biases = _join(wq, wk, wv), _join(bq, bk, bv)
        packed = op.Add(op.MatMul(x, op.const(weights, name="qkv_weight")), op.const(biases, name="qkv_bias"))
        widths = op.ints(*(int(str(b.shape[0])) for b in (bq, bk, bv) if b.shape))
        q, k, v = op.Split(packed, widths, axis=-1, outputs=3)
        q, k, v = (op.Transpose(op.Reshape(y, s), perm=p) for y, s, p in ((q, sq, pq), (k, sk, pk), (v, sv, pv)))
        return op.ir.Attention(q, k, v, bias, scale=scale, guard=guard)  # type: ignore[no-any-return]


def _join(*parts: Value) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    tensors = [constant_of(part) for part in parts]
    return np.concatenate([t.numpy() for t in tensors if t is not None], axis=-1)
