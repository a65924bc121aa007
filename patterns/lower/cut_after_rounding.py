from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel, like, numbers_of

Floats = Annotated[Value, like(dtype="float32")]
Scale = Annotated[Value, const(rank=0, dtype="float32")]
Zero = Annotated[Value, const(rank=0, dtype="uint8")]
_FOR_BYTES = 13


class CutAfterRounding(Rule):
    """A Relu between a convolution, or a sum, of integers and a grid that has negative numbers.

    Why: onnxruntime computes with integers from DequantizeLinear to QuantizeLinear, and takes a Relu between them for
    the end of the grid only where it is: else all of it stays float.
    Before: QuantizeLinear(Relu(y), s, z), y a Conv or an Add of DequantizeLinear, z > 0
    After: Clip(QuantizeLinear(y, s, z), z)
    Safety: exact: rounding keeps the order of numbers, and zero becomes z.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MatMulIntegerToFloat")

    def pattern(self, op: Ops, y: Floats, s: Scale, z: Zero) -> Expr:
        return op.QuantizeLinear(op.Relu(y), s, z)

    def where(self, y: Value, z: Value) -> Reason:
        if not numbers_of(z):
            return "the grid ends where the Relu cuts"
        if y.node.op not in ("Conv", "Add") or y.node.domain or y.uses > 1:
            return "it does not cut a convolution or a sum alone"
        operands = y.node.inputs[:2]
        integers = all(x is not None and x.node.is_op("DequantizeLinear") for x in operands)
        return integers or "what it cuts is not computed with integers"

    def rewrite(self, op: Builder, y: Value, s: Value, z: Value) -> Value:
        low = op.const(np.asarray(numbers_of(z)), name="zero_point")
        return op.since(_FOR_BYTES).Clip(op.QuantizeLinear(y, s, z), low)
