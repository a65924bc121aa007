from graphopt.ir import Value
from graphopt.patterns.clean.unmerge_batches import keeps_matrices
from graphopt.patterns.clean.views import groups, split_view
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class SumOfView(Rule):
    """A view that merges leading dimensions, moved behind the sum or the mask that reads it.

    Why: behind it, it meets the view that splits them again, or the product whose batches it merges.
    Before: Reshape(x, (B·N, S, T)) + b with x of shape (B, N, S, T); Where with the view in either branch
    After: Reshape(x + Reshape(b, (B, N, S, T)), (B·N, S, T)); what broadcasts over B·N stays as it is
    Safety: the view keeps the last two dimensions and nothing widens it; shapes are equal as polynomials.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        x: Value,
        b: Value | None = None,
        mask: Value | None = None,
        yes: Value | None = None,
        no: Value | None = None,
    ) -> Expr:
        view = op.Reshape(x, ...)
        return op.Add(view, b) | op.Where(mask, view, no) | op.Where(mask, yes, view)

    def where(
        self, x: Value, root: Value, b: Value | None, mask: Value | None, yes: Value | None, no: Value | None
    ) -> Reason:
        if not keeps_matrices(x.shape, root.shape) or groups(x.shape, root.shape) is None:
            return f"{x.shape} becomes {root.shape}"
        return None not in [v.shape for v in (b, mask, yes, no) if v is not None] or "the shapes are not known"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        root: Value,
        b: Value | None,
        mask: Value | None,
        yes: Value | None,
        no: Value | None,
    ) -> Value:
        how = groups(x.shape, root.shape)
        assert how is not None
        assert x.shape is not None
        assert root.shape is not None
        b, mask, yes, no = (v and split_view(op, v, how, x.shape) for v in (b, mask, yes, no))
        whole = op.Add(x, b) if b is not None else op.Where(mask, yes or x, no or x)
        return op.reshape(whole, root.shape)
