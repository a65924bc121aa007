import math
from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import can_normalize, is_wide, one_over, one_over_root, total
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, all_of, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class L2NormFromParts(Rule):
    """Division by the Euclidean norm over trailing axes of n elements, as a root mean square normalization.

    Why: three or four passes over the tensor become one.
    Before: x / √(Σx² + ε), by division or by any spelling of 1/√; or x / ReduceL2(x)
    After: RMSNormalization(x, 1/√n, epsilon=ε/n)
    Safety: Σx² is n times the mean. Without ε a row of zeros is NaN before and after. With a lower end for the norm,
    as in x / max(‖x‖, ε), the function is another one.
    """

    stage = "recover"
    needs = (kernel("", "RMSNormalization"), kernel("", "SimplifiedLayerNormalization"))

    def pattern(
        self, op: Ops, x: Floats, axes: Attr, eps: Number | None = None, wide: Attr = None, narrow: Attr = None
    ) -> Expr:
        square = total(op, op.prod(x, x), axes, wide, narrow) | op.ReduceSumSquare(x, axes=axes, keepdims=1)
        inverse = one_over_root(op, square + eps | square) | one_over(op, op.ReduceL2(x, axes=axes, keepdims=1))
        return op.prod(x, inverse)

    def where(self, x: Value, axes: list[int] | None, eps: float | None, wide: int | None) -> Reason:
        known = all(isinstance(size, int) for size in (x.shape or ())[-len(axes or ()) :])
        sized = known or "a normalized size is not known"
        return all_of(is_wide(x, wide), can_normalize(x, axes, 1.0 if eps is None else eps), sized)

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float | None) -> Value:
        assert x.shape is not None
        sizes = [int(str(size)) for size in x.shape[-len(axes) :]]
        count = math.prod(sizes)
        gain = op.const(np.full(sizes, count**-0.5), like=x, name="gain")
        return op.RMSNormalization(x, gain, axis=-len(axes), epsilon=(eps or 0.0) / count)
