import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.ir.facts import Fill, fills
from graphopt.patterns.lower.masks import whole_mask
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class AttentionToStandard(Rule):
    """The meaning `ir.Attention` as the standard operator Attention.

    Why: the fastest attention kernel of the CPU provider, in the standard domain.
    Before: ir.Attention(q, k, v, bias)
    After: Attention(q, k, v, mask), with mask = max(bias, the number above the lowest) where the fill is the lowest
    Safety: a row with no allowed key is 0 in the runtime's kernel. That is the source's result only behind a guard with
    a fill of −∞; with a finite fill the source's weights are uniform, and stay so when the fill is not the lowest
    number itself; a fill that is not proved, or −∞ without a guard (NaN), makes no match.
    """

    stage = "lower"
    needs = kernel("", "Attention")
    priority = 30

    def pattern(
        self, op: Ops, q: Value, k: Value, v: Value, scale: Attr, guard: Attr, bias: Value | None = None
    ) -> Expr:
        return op.ir.Attention(q, k, v, bias, scale=scale, guard=guard)

    def where(self, q: Value, bias: Value | None, guard: int) -> Reason:
        if bias is None:
            return True
        found = fills(bias)
        if Fill.OTHER in found:
            return "what the mask holds is not proved"
        if Fill.NEGATIVE_INFINITY in found and (not guard or Fill.LOWEST in found):
            return "a fully masked row is NaN in the model, and 0 in the kernel"
        return True

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value, bias: Value | None, scale: float) -> Value:
        if bias is not None:
            bias = whole_mask(op, _above_lowest(op, bias), q, k)
        return op.Attention(q, k, v, bias, scale=scale)


def _above_lowest(op: Builder, bias: Value) -> Value:
    """The kernel takes the lowest number for "not allowed at all"; the number above it has the same weight, exp(−∞)."""
    if Fill.LOWEST not in fills(bias):
        return bias
    info = np.finfo(dtypes.to_numpy(bias.dtype))
    return op.Max(bias, op.const(np.nextafter(info.min, info.dtype.type(0)), like=bias, name="above_lowest"))
