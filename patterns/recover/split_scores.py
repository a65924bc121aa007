from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.clean.views import Groups, groups, viewed
from graphopt.rewrite import Builder, Expr, Factor, Number, Ops, Reason, Rule, like

Matrices = Annotated[Value, like(rank=3)]


class SplitScores(Rule):
    """Scores that are split into heads for their mask and merged again, split from the queries and keys on.

    Why: the views between the products hide attention.
    Before: w = Softmax(s·Reshape(q·kᵀ, (B, N, S, T)) + b), of which Reshape(w, (B·N, S, T)) meets the values; or
    (B, N·S, T), where heads share keys; factors and one or two biases optional
    After: the same with Reshape(q, (B, N, S, D))·Reshape(kᵀ, (B, N, D, T)), or with kᵀ as (B, 1, D, T)
    Safety: the view splits neighbours and nothing else; heads are a known number; shapes are equal as polynomials. No
    batch is repeated by the product.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        q: Matrices,
        kt: Matrices,
        v: Matrices,
        k: Factor,
        scale: Number | None = None,
        b: Value | None = None,
        more: Value | None = None,
    ) -> Expr:
        view = op.Reshape(op.MatMul(op.scaled(q, k) | q, op.scaled(kt, k) | kt), ...)
        plain = op.scaled(view, scale) | view
        weights = op.Softmax(op.sum(plain, b, more) | plain + b | plain, axis=-1)
        return op.anchor(op.MatMul(op.Reshape(weights, ...), v), view)

    def where(self, q: Value, kt: Value, root: Value) -> Reason:
        if q.shape is None or kt.shape is None or q.shape[0] != kt.shape[0]:
            return "one batch meets many"
        merged = viewed(root).shape
        return splits(groups(root.shape, merged), root) or f"{merged} becomes {root.shape}"

    def rewrite(self, op: Builder, q: Value, kt: Value, k: float, root: Value) -> Value | None:
        how = groups(root.shape, viewed(root).shape)
        if how is None or root.shape is None or q.shape is None:
            return None
        keys = op.transposed(beside(op, op.transposed(kt), how, root))
        return op.scaled(op.MatMul(op.reshape(q, (*root.shape[:-1], q.shape[-1])), keys), k)


def splits(how: Groups | None, split: Value) -> bool:
    """Whether batches or rows of matrices of rank 3 are split into heads, of which there is a known number."""
    if how is None or split.shape is None or len(how) != 3 or len(how[2]) != 1:
        return False
    heads = [split.shape[group[-1] if at == 0 else group[0]] for at, group in enumerate(how[:2]) if len(group) > 1]
    return len(heads) == 1 and isinstance(heads[0], int)


def beside(op: Builder, x: Value, how: Groups, split: Value) -> Value:
    """`x`, the second operand of a product of matrices of rank 3, for one whose first operand is split like this."""
    assert split.shape is not None
    assert x.shape is not None
    batches, rows, _ = how
    if len(batches) > 1:
        return op.reshape(x, (*split.shape[: len(batches)], *x.shape[1:]))
    return op.Unsqueeze(x, axes=list(range(1, len(rows))))
