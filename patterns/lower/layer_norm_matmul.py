from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, const, kernel, like

Floats = Annotated[Value, like(dtype=("float16", "float32"))]
_GELU = kernel("ai.graphopt", "FusedMatMulAddGelu")


class LayerNormMatMul(Rule):
    """A layer normalization and the one product that reads it, as one operator.

    Why: a kernel that has both never writes the normalized rows to memory; without one the operator is a function of
    its parts.
    Before: LayerNormalization(x, g, b)·W over the last axis, b may be absent
    After: ai.graphopt.FusedLayerNormMatMul(x, g, b, W), with a b of zeros where there is none
    Safety: gain and bias have one number for each row of W, a constant matrix. Nobody else reads the normalization or
    its statistics: several products would each normalize anew. A product that a bias and GELU follow is left to
    FusedMatMulAddGelu where the target has that.
    """

    stage = "lower"
    needs = kernel("ai.graphopt", "FusedLayerNormMatMul")

    def pattern(
        self,
        op: Ops,
        x: Floats,
        g: Value,
        w: Annotated[Value, const(rank=2)],
        eps: Attr,
        b: Value | None = None,
    ) -> Expr:
        return op.MatMul(op.LayerNormalization(x, g, b, axis=-1, epsilon=eps), w)

    def where(self, x: Value, g: Value, b: Value | None, w: Value, root: Value, ctx: Context) -> Reason:
        assert w.shape is not None
        if any(v is not None and v.dtype != x.dtype for v in (g, b, w)):
            return "operands of several types"
        if any(v is not None and v.shape != w.shape[:1] for v in (g, b)):
            return "gain or bias is not a vector with a number for each row of the matrix"
        graph = root.node.graph
        sums = [reader for reader, _ in graph.consumers(root) if reader.is_op("Add")]
        activated = any(after.is_op("Gelu") for node in sums for after in graph.readers(node))
        return not (activated and ctx.has(_GELU, graph)) or "its product belongs to the GELU after it"

    def rewrite(self, op: Builder, x: Value, g: Value, b: Value | None, w: Value, eps: float) -> Value:
        bias = op.const(np.zeros(g.shape or ()), like=g, name="zeros") if b is None else b
        return op.FusedLayerNormMatMul(x, g, bias, w, epsilon=eps, domain="ai.graphopt")
