from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, like

Ids = Annotated[Value, like(rank=2, dims=("B", "S"), dtype="int32")]


class LengthsFromEmbed(Rule):
    """The lengths that a kernel of embeddings counts in a mask for the attentions after it.

    Why: without them, the embeddings can be told from the mask.
    Before: the second output of com.microsoft.EmbedLayerNormalization(..., mask)
    After: how many elements of each row of the mask are 1
    Safety: it is that count; the other outputs stay as they are.
    """

    stage = "recover"
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        ids: Ids,
        words: Value,
        positions: Value,
        g: Value,
        b: Value,
        mask: Ids,
        eps: Attr,
        kind: Attr,
        segments: Value | None = None,
        kinds: Value | None = None,
        places: Value | None = None,
    ) -> Expr:
        tables = (words, positions, kinds, g, b)
        return op.ms.EmbedLayerNormalization(ids, segments, *tables, mask, places, epsilon=eps, mask_index_type=kind)[1]

    def where(self, root: Value) -> Reason:
        return root.uses > 0 or "nobody reads it"

    def rewrite(self, op: Builder, mask: Value) -> Value:
        ones = op.Cast(op.Equal(mask, op.const(1, like=mask)), to=dtypes.INT32)
        if mask.node.graph.opsets.get("", 1) < 13:
            return op.ReduceSum(ones, axes=[1], keepdims=0)
        return op.ReduceSum(ones, op.ints(1), keepdims=0)
