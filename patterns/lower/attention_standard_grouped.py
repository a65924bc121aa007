from graphopt.ir import Value
from graphopt.patterns.lower.attention_standard import AttentionToStandard
from graphopt.rewrite import Context, Reason, kernel


class GroupedAttentionToStandard(AttentionToStandard):
    """The meaning `ir.Attention`, with heads that share keys, as the standard operator Attention.

    Why: where the kernel is slower than its parts, as in float16 on a CPU, it may still be faster than parts that
    repeat the keys and values for each head.
    Before: ir.Attention(q, k, v, bias) with more heads in q than in k
    After: Attention(q, k, v, mask), as AttentionToStandard writes it
    Safety: as there.
    """

    stage = "lower"
    needs = kernel("ir", "GroupedAttention")
    priority = 25

    def where(self, q: Value, k: Value, bias: Value | None, guard: int, ctx: Context) -> Reason:
        if q.shape is None or k.shape is None or q.shape[1] == k.shape[1]:
            return "no heads share keys"
        return super().where(q, k, bias, guard, ctx)
