from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import (
    Integers,
    Scale,
    Zero,
    alone,
    computed,
    grid_of,
    kept,
    on_grids,
    result,
    rounded_constant,
)
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, all_of, const, constant_of

Constant = Annotated[Value, const(dtype="float32")]


class SumOfIntegers(Rule):
    """A sum or a product of two images on grids, or of one and a constant, with the Relu or Clip after it.

    Why: between a dequantization of its operands and a quantization of its result the runtime adds bytes; residuals,
    gates and excitations keep a network from going back to floats.
    Before: act(dq(a) + dq(b)); also Mul, and one operand that is constant
    After: dq(q(dq(a) + dq(b))), the grid of the result being the plan's; a constant has a grid of its own
    Safety: the plan says so. An act that cuts more than half a step away from the ends of the grid stays.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        a: Integers,
        s: Scale,
        z: Zero,
        low: Attr,
        high: Attr,
        b: Integers | None = None,
        t: Scale | None = None,
        u: Zero | None = None,
        c: Constant | None = None,
    ) -> Expr:
        first, second = op.DequantizeLinear(a, s, z), op.DequantizeLinear(b, t, u) | c
        y = op.Add(first, second) | op.Mul(first, second)
        return op.Relu(y) | op.Clip(y, min=low, max=high) | y

    def where(self, ctx: Context, root: Value) -> Reason:
        images = [x for x in _operands(root) if constant_of(x) is None]
        return all_of(kept(ctx, root), alone(ctx, root), on_grids(*images), _are_finite(_operands(root)))

    def rewrite(self, op: Builder, ctx: Context, root: Value) -> Value | None:
        first, second = _operands(root)
        grid = grid_of(first) or grid_of(second)
        if grid is None:
            return None
        a, b = (rounded_constant(op, x, grid) if constant_of(x) is not None else x for x in (first, second))
        return result(op, ctx, root, op.Add(a, b) if computed(root).node.op == "Add" else op.Mul(a, b))


def _are_finite(operands: list[Value]) -> Reason:
    numbers = [tensor.numpy() for x in operands if (tensor := constant_of(x)) is not None]
    return all(np.isfinite(one).all() for one in numbers) or "a constant holds NaN or infinities: no grid has them"


def _operands(root: Value) -> list[Value]:
    return [x for x in computed(root).node.inputs if x is not None]
