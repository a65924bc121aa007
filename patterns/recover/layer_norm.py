import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, kernel


class LayerNormFromParts(Rule):
    """Layer normalization over trailing axes, before its gain and bias.

    Why: seven passes over the activation become one.
    Before: d / √(mean(d²) + ε) with d = x − mean(x)
    After: LayerNormalization(x, 1, epsilon=ε)
    Safety: both means run over the same trailing axes and keep their dimensions; the normalized sizes are known.
    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")

    def pattern(self, op: Ops, x: Value, axes: Attr, eps: Number) -> Expr:
        d = x - op.ReduceMean(x, axes=axes, keepdims=1)
        variance = op.ReduceMean(op.prod(d, d), axes=axes, keepdims=1)
        deviation = op.Sqrt(variance + eps) | op.Pow(variance + eps, 0.5)
        return d / deviation | op.prod(d, op.Reciprocal(deviation)) | op.prod(d, 1.0 / deviation)

    def where(self, x: Value, axes: list[int] | None, eps: float) -> Reason:
        if x.shape is None or not axes:
            return "the axes or the rank are not known"
        trailing = sorted(a % len(x.shape) for a in axes)
        if trailing != list(range(len(x.shape) - len(axes), len(x.shape))):
            return f"axes {axes} are not the trailing ones"
        if not all(isinstance(size, int) and size > 0 for size in x.shape[trailing[0] :]):
            return "a normalized size is not known, or nothing"
        if x.dtype == dtypes.DOUBLE and float(np.float32(eps)) != eps:
            return f"an attribute cannot hold {eps} exactly"
        return (x.dtype in dtypes.FLOATS and eps > 0) or "epsilon is not positive"

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float) -> Value:
        assert x.shape is not None
        gain = op.const(np.ones([int(str(s)) for s in x.shape[-len(axes) :]]), like=x, name="ones")
        return op.LayerNormalization(x, gain, axis=-len(axes), epsilon=eps)
