from graphopt.ir import Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.patterns.lower.heads import merge_heads
from graphopt.patterns.recover.given_attention import added, apart, heads_known, scale_of, triangle
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, all_of, kernel


class AttentionFromStandard(Rule):
    """The standard operator Attention, as an exporter or an earlier run wrote it.

    Why: what stands around it (rotary embedding, packed projections, masks) is seen, and the target chooses its kernel.
    Before: Attention(q, k, v, mask), with heads in a dimension of their own or not
    After: ir.Attention(q, k, v, bias), of a boolean mask bias = mask ? 0 : −∞, of a causal one (j ≤ i ? 0 : −∞)
    Safety: a row with no allowed key is 0 in the runtime's kernel: a guard for −∞, and no match for the lowest number,
    or where it is not proved what a mask of floats holds. The scores are not read.
    """

    stage = "recover"
    needs = (kernel("", "Attention"), kernel("com.microsoft", "MultiHeadAttention"))

    def pattern(self, op: Ops, q: Value, k: Value, v: Value, given: Attrs, mask: Value | None = None) -> Expr:
        return op.Attention(q, k, v, mask, others=given)

    def where(self, q: Value, k: Value, v: Value, given: Attrs, mask: Value | None) -> Reason:
        known = all_of(*map(heads_known, (q, k, v), _heads(given)))
        if known is not True:
            return known
        if q.dtype == dtypes.DOUBLE or given.get("softmax_precision") not in (None, 0, dtypes.FLOAT):
            return "the softmax is not in float32"
        if given.get("scale", 1.0) <= 0:
            return f"the scale is {given['scale']}"
        return _mask_known(mask, q, k)

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value, given: Attrs, mask: Value | None) -> Value:
        bias, guard = _bias(op, mask, q)
        if given.get("is_causal"):
            bias, guard = added(op, bias, triangle(op, q, k)), 1
        operands = [apart(op, x, heads) for x, heads in zip((q, k, v), _heads(given), strict=True)]
        attrs = {"cap": given.get("softcap") or None, "softmax_dtype": given.get("softmax_precision") or None}
        scale = scale_of(q, given.get("q_num_heads"), given.get("scale"))
        y = op.ir.Attention(*operands, bias, scale=scale, guard=guard, **attrs)
        return y if q.rank == 4 else merge_heads(op, y)


def _heads(given: Attrs) -> tuple[int | None, int | None, int | None]:
    """How many heads queries, keys and values have, where they are merged."""
    shared = given.get("kv_num_heads")
    return given.get("q_num_heads"), shared, shared


def _mask_known(mask: Value | None, q: Value, k: Value) -> Reason:
    if mask is None:
        return True
    assert k.shape is not None
    if mask.shape is None or mask.shape[-1:] not in ((1,), (k.shape[-2],)):
        return "the mask may be shorter than the keys"
    if mask.dtype == dtypes.BOOL:
        return True
    found = fills(mask)
    if (Fill.LOWEST | Fill.OTHER) & found:
        return "what the mask holds is not proved, or it is the lowest number"
    return Fill.LOW not in found or q.dtype == dtypes.FLOAT or "a fill that takes digits of the scores"


def _bias(op: Builder, mask: Value | None, like: Value) -> tuple[Value | None, int]:
    """What is added to the scores, and whether a row of −∞ is guarded."""
    if mask is None or mask.dtype != dtypes.BOOL:
        return mask, int(mask is not None and Fill.NEGATIVE_INFINITY in fills(mask))
    return op.Where(mask, op.const(0.0, like=like), op.const(float("-inf"), like=like)), 1
