from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.ir.tensor import Array
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel, numbers_of

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class PackQKV(Rule):
    """Query, key and value of one input as one product.

    Why: one product of three times the width keeps a wide machine busier than three, and reads its input once. Two CPU
    cores are busy anyway, and cutting the result apart costs more than that saves: a target's table says where it pays.
    Before: q = x·Wq + bq; k = x·Wk + bk; v = x·Wv + bv; Attention(heads(q), heads(k), heads(v))
    After: q, k, v = Split(x·[Wq Wk Wv] + [bq bk bv]); Attention(heads(q), heads(k), heads(v))
    Safety: each output column is the same dot product; nobody else reads the three products.
    """

    stage = "fuse"
    needs = kernel("ir", "PackedProjection")
    once = True

    def pattern(
        self, op: Ops, x: Value, wq: Matrix, wk: Matrix, wv: Matrix, bq: Vector, bk: Vector, bv: Vector
    ) -> Expr:
        q, k, v = op.MatMul(x, wq) + bq, op.MatMul(x, wk) + bk, op.MatMul(x, wv) + bv
        heads = [op.Transpose(op.Reshape(y, ...), ...) for y in (q, k, v)]
        return op.anchor(op.ir.Attention(*heads, ...), q, k, v)

    def where(self, wq: Value, wk: Value, wv: Value, bq: Value, bk: Value, bv: Value) -> Reason:
        fits = all(w.shape and b.shape == w.shape[1:] for w, b in ((wq, bq), (wk, bk), (wv, bv)))
        return fits or "a bias does not match its weights"

    def rewrite(
        self, op: Builder, x: Value, wq: Value, wk: Value, wv: Value, bq: Value, bk: Value, bv: Value
    ) -> tuple[Value, ...]:
        weights, biases = _join(wq, wk, wv), _join(bq, bk, bv)
        packed = op.Add(op.MatMul(x, op.const(weights, name="qkv_weight")), op.const(biases, name="qkv_bias"))
        return op.split(packed, [numbers_of(b).size for b in (bq, bk, bv)], axis=-1)


def _join(*parts: Value) -> Array:
    return np.concatenate([numbers_of(part) for part in parts], axis=-1)
