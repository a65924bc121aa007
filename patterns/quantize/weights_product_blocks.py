from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.patterns.quantize.products import finished, linear, planned, recipe_of, smoothed
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, const, kernel, like
from graphopt.rewrite.nbits import BLOCK, nbits_operands

Floats = Annotated[Value, like(dtype="float32")]
Matrix = Annotated[Value, const(rank=2, dtype="float32")]


class WeightsProductInBlocks(Rule):
    """A product of an activation with constant weights, of which only the weights are integers, as one kernel.

    Why: onnxruntime makes this kernel of DequantizeLinear and MatMul by itself, but not of weights that several
    products read, and chooses how exactly it computes.
    Before: x·W, or Gemm(x, W, c)
    After: com.microsoft.MatMulNBits(x, W', S), and + c, with W' = round(W / S), S a number for each block of a column
    Safety: the plan says so. The kernel takes blocks of 16, 32, 64, 128 or 256; of a number for each column it has the
    same in every block.
    """

    stage = "quantize"
    needs = kernel("com.microsoft", "MatMulNBits")
    priority = 10

    def pattern(self, op: Ops, x: Floats, w: Matrix, turned: Attr, c: Value | None = None) -> Expr:
        return linear(op, x, w, c, turned)

    def where(self, ctx: Context, root: Value) -> Reason:
        recipe = ctx.recipe(root)
        if recipe is not None and recipe.weights.block not in (0, 16, 32, 64, 128, 256):
            return f"the kernel has no blocks of {recipe.weights.block}"
        return planned(ctx, root, "weights")

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, turned: int | None, c: Value | None) -> Value:
        recipe = recipe_of(ctx, root)
        weights, summed = recipe.weights, 1 if turned else 0
        packed, scales, zeros = nbits_operands(weights, summed)
        y = op.ms.MatMulNBits(
            smoothed(op, x, recipe),
            op.const(packed, name=weights.name),
            op.const(scales, name="weights_scale"),
            None if zeros is None else op.const(zeros, name="weights_zero_point"),
            K=weights.values.shape[summed],
            N=weights.values.shape[1 - summed],
            bits=dtypes.bits(weights.values.dtype),
            block_size=weights.block or BLOCK,
            accuracy_level=recipe.accuracy_level,
        )
        return finished(op, y, recipe, c)
