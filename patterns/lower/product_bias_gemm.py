from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import is_quantized
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, like

Left = Annotated[Value, like(dims=("M", "K"), dtype=("float32", "float64"))]
Right = Annotated[Value, like(dims=("K", "N"))]
Term = Annotated[Value, like(into=("M", "N"))]


class ProductBiasToGemm(Rule):
    """A product of two matrices and a term, as Gemm.

    Why: the kernel adds while the result is in the cache, and takes an activation after it.
    Before: a·b + c, all of two dimensions
    After: Gemm(a, b, c)
    Safety: c broadcasts to the result, and does not widen it. Before a GELU the sum stays, since that takes the bias; a
    quantized product stays, too. With more dimensions the views around Gemm cost what it saves.
    """

    stage = "lower"
    priority = -10

    def pattern(self, op: Ops, a: Left, b: Right, c: Term) -> Expr:
        return op.Add(op.MatMul(a, b), c)

    def where(self, a: Value, b: Value, root: Value) -> Reason:
        if any(reader.is_op("Gelu") for reader, _ in root.node.graph.consumers(root)):
            return "the GELU after it takes the bias"
        return not is_quantized(a, b) or "a quantized product"

    def rewrite(self, op: Builder, a: Value, b: Value, c: Value) -> Value:
        return op.Gemm(a, b, c)
