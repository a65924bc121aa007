from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import kept, on_grids, result
from graphopt.rewrite import Attrs, Builder, Context, Expr, Ops, Reason, Rule, all_of, like

Floats = Annotated[Value, like(dtype="float32")]


class ActivationOfIntegers(Rule):
    """An activation function of an image on a grid, whose result is on one again.

    Why: LeakyRelu and Sigmoid become a table of 256 entries. The others are computed as floats, but the image that
    follows is made of bytes.
    Before: f(dq(x)), f of LeakyRelu, Sigmoid, Tanh, HardSigmoid, Elu, Gelu, Mish, Softplus, Resize
    that interpolates
    After: dq(q(f(dq(x))))
    Safety: the plan says so.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats, others: Attrs) -> Expr:
        tables = op.LeakyRelu(x, others=others) | op.Sigmoid(x, others=others)
        bounded = op.Tanh(x, others=others) | op.HardSigmoid(x, others=others)
        smooth = (
            op.Elu(x, others=others)
            | op.Gelu(x, others=others)
            | op.Mish(x, others=others)
            | op.Softplus(x, others=others)
        )
        return tables | bounded | smooth | op.Resize(x, ..., others=others)

    def where(self, ctx: Context, root: Value, x: Value) -> Reason:
        if root.node.op == "Resize" and root.node.attr("mode") == "nearest":
            return "it moves integers"
        return all_of(kept(ctx, root), on_grids(x))

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, others: Attrs) -> Value:
        return result(op, ctx, root, getattr(op, root.node.op)(x, *root.node.inputs[1:], **others))
