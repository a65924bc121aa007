from graphopt.ir import Value
from graphopt.patterns.quantize.integers import Integers, Scale, Zero, image_of, kept, on_grids, result
from graphopt.rewrite import Attrs, Builder, Context, Expr, Ops, Reason, Rule, all_of


class ActivationOfIntegers(Rule):
    """An activation function of an image on a grid, whose result is on one again.

    Why: LeakyRelu and Sigmoid become a table of 256 entries. The others are computed as floats, but the image that
    follows is made of bytes.
    Before: f(dq(x)), f of LeakyRelu, Sigmoid, Tanh, Elu, Gelu, Mish, Softplus, Resize
    that interpolates
    After: dq(q(f(dq(x))))
    Safety: the plan says so.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, x: Integers, s: Scale, z: Zero, others: Attrs) -> Expr:
        y = op.DequantizeLinear(x, s, z)
        tables = op.LeakyRelu(y, others=others) | op.Sigmoid(y, others=others)
        bounded = op.Tanh(y, others=others)
        smooth = (
            op.Elu(y, others=others)
            | op.Gelu(y, others=others)
            | op.Mish(y, others=others)
            | op.Softplus(y, others=others)
        )
        return tables | bounded | smooth | op.Resize(y, ..., others=others)

    def where(self, ctx: Context, root: Value) -> Reason:
        if root.node.op == "Resize" and root.node.attr("mode") == "nearest":
            return "it moves integers"
        return all_of(kept(ctx, root), on_grids(image_of(root)))

    def rewrite(self, op: Builder, ctx: Context, root: Value, others: Attrs) -> Value:
        return result(op, ctx, root, getattr(op, root.node.op)(*root.node.inputs, **others))
