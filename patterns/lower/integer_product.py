from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.integers import takes_bytes, without_sign
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, kernel, like

Scale = Annotated[Value, like(dtype="float32")]
Matrix = Annotated[Value, const(rank=2, dtype=("uint8", "int8"))]


class IntegerProduct(Rule):
    """A product of quantized matrices, as one kernel.

    Why: onnxruntime makes this kernel by itself, but not where it finds a bias first: of matrices it makes a float
    Gemm. Written so, the kernel takes the bias as well.
    Before: DequantizeLinear(a, s, z) · DequantizeLinear(b, t, y)
    After: com.microsoft.MatMulIntegerToFloat(a, b, s, t, z, y); of a = QuantizeLinear(x, s, z) with a sign, on x86 a
    kernel ten times as slow, a' = QuantizeLinear(x, s, z + 128) without one
    Safety: bytes on both sides; a has one scale, b, a constant, one for all or one for each column. a' is a + 128,
    saturated where a is. A product whose result is quantized has another kernel.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MatMulIntegerToFloat")
    keeps_inner = True
    priority = 10

    def pattern(
        self,
        op: Ops,
        a: Value,
        s: Scale,
        b: Matrix,
        t: Scale,
        axis: Attr,
        z: Value | None = None,
        y: Value | None = None,
    ) -> Expr:
        left = op.DequantizeLinear(a, s, z, axis=lambda axis: True)
        return op.MatMul(left, op.DequantizeLinear(b, t, y, axis=axis))

    def where(self, a: Value, s: Value, b: Value, t: Value, axis: int | None, root: Value) -> Reason:
        return takes_bytes(a, s, b, t, axis, 1, root)

    def rewrite(self, op: Builder, a: Value, s: Value, b: Value, t: Value, z: Value | None, y: Value | None) -> Value:
        a, z = without_sign(op, a, z)
        return op.ms.MatMulIntegerToFloat(a, b, s, t, z, y)
