from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, constant_of, kernel, like, numbers_of

Floats = Annotated[Value, like(dtype="float32")]
Scale = Annotated[Value, const(rank=0, dtype="float32")]
Zero = Annotated[Value, const(rank=0, dtype="int8")]


class UnsignedIntegers(Rule):
    """An activation that is rounded to integers with a sign, and back.

    Why: training with quantization writes int8 for other devices. On x86 onnxruntime has kernels for uint8 alone, and
    leaves convolutions and sums of int8 in floats.
    Before: DequantizeLinear(QuantizeLinear(x, s, z), s, z) through int8
    After: DequantizeLinear(QuantizeLinear(x, s, z + 128), s, z + 128) through uint8
    Safety: the same numbers: all integers are 128 more, and saturate where they did. Nobody else reads them.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MatMulIntegerToFloat")
    keeps_inner = True

    def pattern(self, op: Ops, x: Floats, s: Scale, z: Zero) -> Expr:
        return op.DequantizeLinear(op.QuantizeLinear(x, s, z), s, z)

    def where(self, x: Value, root: Value) -> Reason:
        if constant_of(x) is not None:
            return "these are weights"
        integers = root.node.inputs[0]
        assert integers is not None
        readers = integers.node.graph.consumers(integers)
        alone = len(readers) == integers.uses and all(one.is_op("DequantizeLinear") for one, _ in readers)
        return alone or "the integers are read elsewhere as well"

    def rewrite(self, op: Builder, x: Value, s: Value, z: Value) -> Value:
        moved = op.const((numbers_of(z).astype(np.int16) + 128).astype(np.uint8), name="zero_point")
        return op.DequantizeLinear(op.QuantizeLinear(x, s, moved), s, moved)
