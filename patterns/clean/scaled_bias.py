import math

from graphopt.ir import Value, dtypes
from graphopt.patterns.recover.scores import is_score
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, constant_of


class ScaledBias(Rule):
    """Scores that are scaled together with their bias, as scaled scores and a scaled bias.

    Why: attention scales the product, and adds the bias to that.
    Before: k·(A·B + b) or k·(A·B + b + c), with A and B both computed
    After: k·(A·B) + k·b, k·(A·B) + k·(b + c)
    Safety: floats; k scales, so that k·b is a normal number where b is. In a fully masked row a large fill rounds the
    scores, and that must stay: k is a power of 2, or b and c are products and small numbers.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, y: Value, b: Value, k: Number, c: Value | None = None) -> Expr:
        product = op.MatMul(x, y)
        return op.scaled(op.sum(product, b, c) | op.sum(product, b), k)

    def where(self, x: Value, y: Value, b: Value, k: float, c: Value | None, root: Value) -> Reason:
        if b.dtype not in dtypes.FLOATS or constant_of(x) is not None or constant_of(y) is not None:
            return "not a product of two activations"
        if None in (root.shape, x.shape, y.shape, b.shape) or not 2**-7 <= abs(k) <= 2**7:
            return f"the shapes are not known, or {k:g} is not a scale"
        exact = abs(math.frexp(k)[0]) == 0.5
        return exact or all(is_score(x) for x in (b, c) if x is not None) or "a mask may round the scores otherwise"

    def rewrite(self, op: Builder, x: Value, y: Value, b: Value, k: float, c: Value | None) -> Value:
        b = b if c is None else op.Add(b, c)
        return op.Add(op.scaled(op.MatMul(x, y), k), op.scaled(b, k))
