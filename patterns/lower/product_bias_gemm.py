from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import is_quantized
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, like

Matrix = Annotated[Value, like(rank=2, dtype=("float32", "float64"))]


class ProductBiasToGemm(Rule):
    """A product of two matrices and a term, as Gemm.

    Why: the kernel adds while the result is in the cache, and takes an activation after it.
    Before: a·b + c, all of two dimensions; also com.microsoft.FusedMatMul, of transposed and scaled matrices
    After: Gemm(a, b, c)
    Safety: c broadcasts to the result, and does not widen it. Before a GELU the sum stays, since that takes the bias; a
    quantized product stays, too. With more dimensions the views around Gemm cost what it saves.
    """

    stage = "lower"
    priority = -10

    def pattern(self, op: Ops, a: Matrix, b: Matrix, c: Value, others: Attrs | None = None) -> Expr:
        return op.Add(op.MatMul(a, b) | op.ms.FusedMatMul(a, b, others=others), c)

    def where(self, a: Value, b: Value, others: Attrs | None, root: Value) -> Reason:
        assert a.shape is not None
        assert b.shape is not None
        attrs = others or {}
        if attrs.get("transBatchA") or attrs.get("transBatchB"):
            return "the kernel moves dimensions that a matrix does not have"
        whole = (a.shape[attrs.get("transA", 0)], b.shape[1 - attrs.get("transB", 0)])
        if root.shape != whole:
            return f"the term is not broadcast to {whole}"
        if any(reader.is_op("Gelu") for reader, _ in root.node.graph.consumers(root)):
            return "the GELU after it takes the bias"
        return not is_quantized(a, b) or "a quantized product"

    def rewrite(self, op: Builder, a: Value, b: Value, c: Value, others: Attrs | None) -> Value:
        read = {name: value for name, value in (others or {}).items() if not name.startswith("transBatch")}
        return op.Gemm(a, b, c, **read)
