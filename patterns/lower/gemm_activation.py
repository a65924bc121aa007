from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import is_quantized
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, kernel, like


class GemmActivation(Rule):
    """A matrix product with a bias and the activation after it, as one kernel.

    Why: the activation is applied while the result is in the cache.
    Before: Relu(Gemm(a, b, c)); also Tanh, Sigmoid, LeakyRelu, Elu, HardSigmoid, Softplus, Softsign
    After: com.microsoft.FusedGemm(a, b, c, activation="Relu")
    Safety: the same formulas; the kernel is for float32. A quantized product has another kernel.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "FusedGemm")

    def pattern(
        self,
        op: Ops,
        a: Annotated[Value, like(dtype="float32")],
        b: Value,
        others: Attrs,
        alpha: Attr,
        beta: Attr,
        c: Value | None = None,
    ) -> Expr:
        y = op.Gemm(a, b, c, others=others)
        plain = op.Relu(y) | op.Tanh(y) | op.Sigmoid(y) | op.Softplus(y) | op.Softsign(y)
        return plain | op.LeakyRelu(y, alpha=alpha) | op.Elu(y, alpha=alpha) | op.HardSigmoid(y, alpha=alpha, beta=beta)

    def where(self, a: Value, b: Value) -> Reason:
        return not is_quantized(a, b) or "a quantized product"

    def rewrite(
        self,
        op: Builder,
        a: Value,
        b: Value,
        c: Value | None,
        others: Attrs,
        alpha: float | None,
        beta: float | None,
        root: Value,
    ) -> Value:
        activation = {"activation": root.node.op, "activation_alpha": alpha, "activation_beta": beta}
        return op.ms.FusedGemm(a, b, c, **others, **activation)
