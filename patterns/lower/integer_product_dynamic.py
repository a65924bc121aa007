from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel, like

Bytes = Annotated[Value, like(dtype=("uint8", "int8"))]
Number = Annotated[Value, like(dims=(), dtype="float32")]
Zero = Annotated[Value, like(dims=(), dtype=("uint8", "int8"))]
Matrix = Annotated[Value, const(rank=2, dtype=("uint8", "int8"))]
Row = Annotated[Value, const(rank=(0, 1), dtype="float32")]


class IntegerProductDynamic(Rule):
    """A product of an activation that is quantized at run time, as one kernel.

    Why: onnxruntime makes this kernel by itself, but not where two products have equal scales. Written so, the kernel
    takes the bias as well.
    Before: float(MatMulInteger(q, W, z, Z)) · s · S
    After: com.microsoft.MatMulIntegerToFloat(q, W, s, S, z, Z)
    Safety: s and z are one number each; S is one, or one for each column.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MatMulIntegerToFloat")
    priority = 10

    def pattern(
        self,
        op: Ops,
        q: Bytes,
        w: Matrix,
        s: Number,
        columns: Row,
        z: Zero | None = None,
        zero: Value | None = None,
    ) -> Expr:
        return op.prod(op.Cast(op.MatMulInteger(q, w, z, zero), to=dtypes.FLOAT), s, columns)

    def where(self, w: Value, columns: Value) -> Reason:
        assert w.shape is not None
        return columns.shape in ((), (1,), w.shape[1:]) or "the weights have no scale for each column"

    def rewrite(
        self, op: Builder, q: Value, w: Value, s: Value, columns: Value, z: Value | None, zero: Value | None
    ) -> Value:
        return op.ms.MatMulIntegerToFloat(q, w, s, columns, z, zero)
