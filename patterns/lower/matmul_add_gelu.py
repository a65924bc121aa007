from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, kernel, like

Floats = Annotated[Value, like(dtype=("float16", "float32"))]


class MatMulAddGelu(Rule):
    """A linear layer and the GELU after it, as one operator.

    Why: a kernel that has all three adds the bias and applies GELU while the product is still in cache; without one the
    operator is a function of its parts.
    Before: Gelu(x·W + b), exact or by tanh
    After: ai.graphopt.FusedMatMulAddGelu(x, W, b)
    Safety: W is a constant matrix, b a constant vector with one number for each of its columns, so that adding it does
    not widen the product. A quantized weight is no constant, and its product stays.
    """

    stage = "lower"
    needs = kernel("ai.graphopt", "FusedMatMulAddGelu")
    # Before BiasGelu, which would leave the product alone.
    priority = 20

    def pattern(
        self,
        op: Ops,
        x: Floats,
        w: Annotated[Value, const(rank=2)],
        b: Annotated[Value, const(rank=1)],
        form: Attr,
    ) -> Expr:
        return op.Gelu(op.MatMul(x, w) + b | op.Gemm(x, w, b), approximate=form)

    def where(self, x: Value, w: Value, b: Value) -> Reason:
        assert w.shape is not None
        if not x.dtype == w.dtype == b.dtype:
            return "operands of several types"
        return b.shape == w.shape[1:] or f"the bias {b.shape} does not match the columns of {w.shape}"

    def rewrite(self, op: Builder, x: Value, w: Value, b: Value, form: str) -> Value:
        return op.FusedMatMulAddGelu(x, w, b, approximate=None if form == "none" else form, domain="ai.graphopt")
