from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, constant_of, kernel, like

Floats = Annotated[Value, like(dtype="float32")]
_BYTES = (dtypes.NUMBERS["uint8"], dtypes.NUMBERS["int8"])


class IntegerProduct(Rule):
    """A product of quantized matrices, as one kernel.

    Why: onnxruntime makes this kernel by itself, but not where it finds a bias first: of matrices it makes a float
    Gemm. Written so, the kernel takes the bias as well.
    Before: DequantizeLinear(a, s, z) · DequantizeLinear(b, S, Z)
    After: com.microsoft.MatMulIntegerToFloat(a, b, s, S, z, Z)
    Safety: bytes on both sides; a has one scale, b, a constant, one for all or one for each column. A product whose
    result is quantized has another kernel.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MatMulIntegerToFloat")
    keeps_inner = True
    priority = 10

    def pattern(
        self,
        op: Ops,
        a: Value,
        s: Floats,
        b: Value,
        t: Floats,
        z: Value | None = None,
        y: Value | None = None,
    ) -> Expr:
        left = op.DequantizeLinear(a, s, z, axis=lambda axis: True)
        return op.MatMul(left, op.DequantizeLinear(b, t, y, axis=lambda axis: True))

    def where(self, a: Value, s: Value, b: Value, t: Value, root: Value) -> Reason:
        if a.dtype not in _BYTES or b.dtype not in _BYTES:
            return "not bytes"
        if constant_of(a) is not None or constant_of(b) is None or b.rank != 2:
            return "not an activation times a constant matrix"
        if s.shape not in ((), (1,)):
            return "the activation has several scales"
        if t.shape not in ((), (1,)) and (t.shape != b.shape[1:] or root.node.inputs[1].node.attr("axis", 1) % 2 != 1):
            return "the weights have no scale for each column"
        readers = {reader.op for reader, _ in root.node.graph.consumers(root)}
        return "QuantizeLinear" not in readers or "the result is quantized"

    def rewrite(self, op: Builder, a: Value, s: Value, b: Value, t: Value, z: Value | None, y: Value | None) -> Value:
        return op.ms.MatMulIntegerToFloat(a, b, s, t, z, y)
