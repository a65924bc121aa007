from graphopt.ir import Value, dims
from graphopt.patterns.clean.unmerge_batches import keeps_matrices
from graphopt.patterns.clean.views import groups, merged_view, viewed
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class ViewOfSum(Rule):
    """Scores that get their bias in a view that splits dimensions, with the bias viewed as the scores are.

    Why: windows and rows of an image get masks and biases in such a view, which hides attention.
    Before: Softmax(Reshape(Reshape(x, (B, W, N, S, T)) + b, (B·W, N, S, T))), or + b + c
    After: Softmax(Reshape(x, (B·W, N, S, T)) + Reshape(b, (B·W, N, S, T))), after b + c; b is written out where it
    broadcasts over B or W only
    Safety: the outer view merges neighbours and nothing else, and the sum is as large as x; shapes are equal as
    polynomials.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, b: Value, c: Value | None = None) -> Expr:
        view = op.Reshape(x, ...)
        scores = op.Reshape(op.sum(view, b, c) | op.sum(view, b), ...)
        return op.anchor(op.Softmax(scores, axis=-1), scores)

    def where(self, x: Value, b: Value, c: Value | None, root: Value) -> Reason:
        shape = viewed(root).shape
        if x.shape is None or root.shape is None or dims.product(x.shape) != dims.product(root.shape):
            return f"{x.shape} is widened to {root.shape}"
        if groups(shape, root.shape) is None or keeps_matrices(shape, root.shape):
            return f"{shape} becomes {root.shape}"
        return None not in [v.shape for v in (b, c) if v is not None] or "the shapes are not known"

    def rewrite(self, op: Builder, x: Value, b: Value, c: Value | None, root: Value) -> Value:
        split = viewed(root).shape
        how = groups(split, root.shape)
        assert how is not None
        assert split is not None
        assert root.shape is not None
        # Sizes at run time are those of the view, which costs nothing.
        view = op.reshape(x, split)
        return op.Add(op.reshape(x, root.shape), merged_view(op, b if c is None else op.Add(b, c), how, view))
