from typing import Annotated

import numpy as np

from graphopt.ir import Tensor, Value
from graphopt.patterns.quantize.convolutions import biased
from graphopt.patterns.quantize.integers import Integers as Bytes
from graphopt.patterns.quantize.integers import Scale, Zero, alone, grid_of, image_of, kept, on_grids, result
from graphopt.patterns.quantize.products import as_floats
from graphopt.rewrite import (
    Attr,
    Builder,
    Context,
    Expr,
    Integers,
    Ops,
    Reason,
    Recipe,
    Rule,
    all_of,
    const,
    numbers_of,
)

Vector = Annotated[Value, const(rank=1, dtype="float32")]


class NormOfIntegers(Rule):
    """A batch normalization of an image on a grid that no convolution takes up, with the Relu or Clip after it.

    Why: as a convolution of each channel by itself, with a kernel of one weight, it has an integer kernel.
    Before: act(γ·(dq(x) − μ)/√(σ² + ε) + β), with k = γ/√(σ² + ε)
    After: dq(q(Conv(dq(x), dq(±127), dq(b)))), of one group for each channel, scales |k|/127, and b for β − k·μ
    Safety: the plan says so. Each weight is exact: a scale of its own. An act that cuts more than half a step
    away from the ends of the grid stays.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        x: Bytes,
        s: Scale,
        z: Zero,
        gamma: Vector,
        beta: Vector,
        mean: Vector,
        variance: Vector,
        epsilon: Attr,
        momentum: Attr,
        low: Attr,
        high: Attr,
    ) -> Expr:
        image = op.DequantizeLinear(x, s, z)
        y = op.BatchNormalization(image, gamma, beta, mean, variance, epsilon=epsilon, momentum=momentum)
        return op.Relu(y) | op.Clip(y, min=low, max=high) | y

    def where(self, ctx: Context, root: Value) -> Reason:
        return all_of(kept(ctx, root), alone(ctx, root), on_grids(image_of(root)))

    def rewrite(
        self,
        op: Builder,
        ctx: Context,
        root: Value,
        gamma: Value,
        beta: Value,
        mean: Value,
        variance: Value,
        epsilon: float,
    ) -> Value | None:
        x = image_of(root)
        grid = grid_of(x)
        if grid is None:
            return None
        scale, shift, middle, spread = (numbers_of(v).astype(np.float64) for v in (gamma, beta, mean, variance))
        k = scale / np.sqrt(spread + epsilon)
        signs = np.where(k < 0, -127, 127).astype(np.int8).reshape(-1, *(1,) * ((x.rank or 0) - 1))
        steps = np.where(k == 0, 1e-30, np.abs(k) / 127).astype(np.float32)
        recipe = Recipe("static", Integers(Tensor.of(signs), Tensor.of(steps), axis=0))
        weights, bias = biased(op, op.const(shift - k * middle, like=x), recipe, grid)
        return result(op, ctx, root, op.Conv(x, as_floats(op, weights), bias, group=len(k)))
