from graphopt.ir import Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.ir.masks import never_empty
from graphopt.patterns.lower.empty_rows import adds_to_lowest, keep_empty_rows
from graphopt.patterns.lower.heads import (
    Mask,
    heads_apart,
    mask_known,
    merge_heads,
    sizes_known,
    split_heads,
    whole_mask,
)
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, kernel


class AttentionToStandard(Rule):
    """The meaning `ir.Attention` as the standard operator Attention.

    Why: the fastest attention kernel of the CPU provider, in the standard domain.
    Before: ir.Attention(q, k, v, bias)
    After: Attention(q, k, v, mask), with mask = max(bias, the number above the lowest) where the fill is the lowest, or
    in float16 0 where all of a row is; heads that share keys stay so, and a cap is the kernel's
    Safety: a row with no allowed key is 0 in the runtime's kernel. That is the source's result only behind a guard with
    a fill of −∞; with a finite fill the source's weights are uniform, and stay so when the fill is not the lowest
    number itself; a fill that is not proved, or −∞ without a guard (NaN), makes no match, unless there are no such
    rows, by proof, as in a causal mask, or by promise. In float16 a fill takes some digits of the scores, or all, and
    nothing may be added to the lowest. The kernel caps before it adds the mask, as `ir.Attention` does.
    """

    stage = "lower"
    needs = kernel("", "Attention")
    priority = 30

    def pattern(
        self, op: Ops, q: Value, k: Value, v: Value, scale: Attr, cap: Attr, guard: Attr, wide: Attr, bias: Mask = None
    ) -> Expr:
        return op.ir.Attention(q, k, v, bias, scale=scale, cap=cap, guard=guard, softmax_dtype=wide)

    def where(self, q: Value, k: Value, bias: Value | None, guard: int, ctx: Context) -> Reason:
        if q.dtype == dtypes.DOUBLE:
            return "the kernel takes no float64"
        if 0 in (*(q.shape or ()), *(k.shape or ())):
            return "the kernel takes no empty operand"
        if bias is None:
            return True
        found = Fill.ORDINARY if "no-empty-rows" in ctx.assume else fills(bias)
        if Fill.OTHER in found:
            return "what the mask holds is not proved"
        if never_empty(bias):
            return mask_known(bias, q, k)
        if q.dtype != dtypes.FLOAT and (Fill.LOW in found or (Fill.LOWEST in found and adds_to_lowest(bias))):
            return "the weights of a fully masked row depend on how the scores are rounded"
        if Fill.NEGATIVE_INFINITY in found and (not guard or Fill.LOWEST in found):
            return "a fully masked row is NaN in the model, and 0 in the kernel"
        return mask_known(bias, q, k)

    def rewrite(
        self, op: Builder, q: Value, k: Value, v: Value, bias: Mask, scale: float, cap: float, wide: int
    ) -> Value:
        mask = None if bias is None else whole_mask(op, keep_empty_rows(op, bias), q, k)
        attrs = {"scale": scale, "softcap": cap or None, "softmax_precision": wide or None}
        if not (all(map(heads_apart, (q, k, v))) and sizes_known(q, k, v) is True):
            return op.Attention(q, k, v, mask, **attrs)
        # Operands of rank 3 save the kernel three copies.
        assert q.shape is not None
        assert k.shape is not None
        flat = [merge_heads(op, x) for x in (q, k, v)]
        y = op.Attention(*flat, mask, q_num_heads=q.shape[1], kv_num_heads=k.shape[1], **attrs)
        return split_heads(op, y, q, v)
