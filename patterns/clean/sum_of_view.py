from graphopt.ir import Shape, Value, dims
from graphopt.patterns.clean.unmerge_batches import keeps_matrices
from graphopt.patterns.clean.views import groups, split_view, viewed
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class SumOfView(Rule):
    """A view that merges leading dimensions, moved behind the sum or the mask that reads it.

    Why: behind it, it meets the view that splits them again, or the product whose batches it merges.
    Before: Reshape(x, (B·N, S, T)) + b with x of shape (B, N, S, T); Where with the view in either branch
    After: Reshape(x + Reshape(b, (B, N, S, T)), (B·N, S, T)); what broadcasts over B·N stays as it is
    Safety: the view keeps the last two dimensions and nothing widens those it merges; shapes are equal as polynomials.
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
        view = op.check(op.Reshape(x, ...), _merges)
        return op.Add(view, b) | op.Where(mask, view, no) | op.Where(mask, yes, view)

    def where(
        self, x: Value, root: Value, b: Value | None, mask: Value | None, yes: Value | None, no: Value | None
    ) -> Reason:
        others = [v.shape for v in (b, mask, yes, no) if v is not None]
        if x.shape is None or root.shape is None or None in others:
            return "the shapes are not known"
        batch = _merged(x.shape)[0]
        batches = {size for shape in (*others, root.shape) for size in (shape or ())[:-2]}
        return (len(root.shape) == 3 and batches <= {1, batch}) or f"{x.shape} becomes {root.shape}"

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
        assert x.shape is not None
        assert root.shape is not None
        how = groups(x.shape, _merged(x.shape))
        assert how is not None
        b, mask, yes, no = (v and split_view(op, v, how, x.shape) for v in (b, mask, yes, no))
        whole = op.Add(x, b) if b is not None else op.Where(mask, yes or x, no or x)
        return op.reshape(whole, root.shape)


def _merges(view: Value) -> Reason:
    """Whether this Reshape merges the leading dimensions, and keeps the last two."""
    shape = viewed(view).shape
    return keeps_matrices(shape, view.shape) or f"{shape} becomes {view.shape}"


def _merged(shape: Shape) -> Shape:
    return (dims.product(shape[:-2]), *shape[-2:])
