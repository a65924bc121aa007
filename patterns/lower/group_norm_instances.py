from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("float16", "float32"))]


class GroupNormToInstances(Rule):
    """Group normalization as an instance normalization of its groups.

    Why: onnxruntime has no kernel on the CPU, and takes twice as long for the parts that it expands the operator to.
    Before: GroupNormalization(x, g, b, num_groups=G) with a gain for each channel
    After: n·g + b with n = InstanceNormalization(Reshape(x, (N, G, -1)), 1, 0), in the shape of x
    Safety: an instance is what one group is; the channels are a known number.
    """

    stage = "lower"
    needs = kernel("ir", "GroupNormInstances")

    def pattern(self, op: Ops, x: Floats, g: Value, b: Value, groups: Attr, eps: Attr) -> Expr:
        return op.GroupNormalization(x, g, b, num_groups=groups, epsilon=eps)

    def where(self, x: Value, g: Value, b: Value) -> Reason:
        if x.shape is None or len(x.shape) < 3 or not isinstance(x.shape[1], int):
            return f"the channels are not known: {x.shape}"
        return g.shape == b.shape == x.shape[1:2] or "the gain is not one number for each channel"

    def rewrite(self, op: Builder, x: Value, g: Value, b: Value, groups: int, eps: float) -> Value:
        ones, zeros = (op.const(np.full(groups, number), like=x, name="groups") for number in (1.0, 0.0))
        n = op.InstanceNormalization(op.Reshape(x, op.ints(0, groups, -1)), ones, zeros, epsilon=eps)
        assert x.rank is not None
        gain, bias = (op.Unsqueeze(v, axes=list(range(1, x.rank - 1))) for v in (g, b))
        return op.Add(op.Mul(op.Reshape(n, op.Shape(x)), gain), bias)
