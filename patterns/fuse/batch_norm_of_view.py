from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.batch_norms import affine, axis_before, inference_only, views_before
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class BatchNormOfView(Rule):
    """A batch normalization after views of a product by a constant, as a factor and a term before the views.

    Why: both go into the matrix, and into a bias, which come before the views.
    Before: BatchNormalization(view(x·m), γ, β, μ, σ²), with up to three of Transpose and Reshape as view
    After: view((x·m)·k + (β − μ·k)) with k = γ / √(σ² + ε)
    Safety: the channels are the columns of m, followed back through the views by their sizes. Inference only: the
    statistics are constants, and are not outputs. σ² + ε is positive.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        m: Matrix,
        gain: Vector,
        shift: Vector,
        mean: Vector,
        variance: Vector,
        eps: Attr,
        momentum: Attr,
    ) -> Expr:
        y = op.MatMul(x, m)
        one = op.Transpose(y, ...) | op.Reshape(y, ...)
        two = op.Transpose(one, ...) | op.Reshape(one, ...)
        three = op.Transpose(two, ...) | op.Reshape(two, ...)
        return op.BatchNormalization(one | two | three, gain, shift, mean, variance, epsilon=eps, momentum=momentum)

    def where(self, m: Value, variance: Value, eps: float, root: Value) -> Reason:
        views, axis = views_before(root), 1
        for view in views:
            before = axis_before(view, axis)
            if before is None:
                return "the channels are merged with other dimensions, or split"
            axis = before
        whole = views[-1].node.inputs[0]
        if whole is None or axis + 1 != whole.rank:
            return "the channels are not the columns of the matrix"
        if m.uses > 1:
            return "the weight has other uses and would be written twice"
        return inference_only(root, variance, eps)

    def rewrite(
        self, op: Builder, gain: Value, shift: Value, mean: Value, variance: Value, eps: float, root: Value
    ) -> Value:
        factor, term = affine(gain, shift, mean, variance, eps)
        views = views_before(root)
        y = views[-1].node.inputs[0]
        assert y is not None
        y = op.Add(op.Mul(y, op.const(factor, like=gain, name="factor")), op.const(term, like=gain, name="term"))
        for view in reversed(views):
            y = getattr(op, view.node.op)(y, *view.node.inputs[1 : view.node.arity], **view.node.attrs)
        return y
