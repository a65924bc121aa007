from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Maybe, Ops, Reason, Rule, kernel, like

Ids = Annotated[Value, like(rank=2, dims=("B", "S"), dtype="int32")]
Places = Annotated[Value, like(rank=2, dtype="int32")]
Table = Annotated[Value, like(rank=2, dims=(None, "H"))]
Vector = Annotated[Value, like(rank=1, dims=("H",))]


class LayerNormFromEmbed(Rule):
    """Embeddings, their sum and the layer normalization after it, apart, and the lengths that a mask counts beside.

    Why: the parts are seen, and on CPU they are faster than the kernel.
    Before: com.microsoft.EmbedLayerNormalization(ids, segments, words, positions, kinds, g, b, mask, places), and its
    second output
    After: LayerNormalization(words[ids] + positions[places] + kinds[segments], g, b), with places 0, 1, ... where none
    are given, and without segments where there are none; how many elements of each row of the mask are 1
    Safety: the sum is not read, and the lengths only where there is a mask.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        ids: Ids,
        words: Table,
        positions: Table,
        g: Vector,
        b: Vector,
        eps: Attr,
        kind: Attr,
        segments: Ids | None = None,
        kinds: Table | None = None,
        mask: Ids | None = None,
        places: Places | None = None,
    ) -> Expr:
        operands = (ids, segments, words, positions, kinds, g, b, mask, places)
        norm = op.ms.EmbedLayerNormalization(*operands, epsilon=eps, mask_index_type=kind)
        return norm | norm[1]

    def where(self, segments: Maybe, kinds: Maybe, mask: Maybe, root: Value) -> Reason:
        if not root.uses or any(output.uses for output in root.node.outputs[1 if mask is None else 2 :]):
            return "the sum is read, or lengths without a mask, or nothing"
        return (segments is None) == (kinds is None) or "segments without their table, or the other way round"

    def rewrite(
        self,
        op: Builder,
        ids: Value,
        words: Value,
        positions: Value,
        g: Value,
        b: Value,
        eps: float,
        segments: Maybe,
        kinds: Maybe,
        mask: Maybe,
        places: Maybe,
        root: Value,
    ) -> Value:
        if root.index == 1 and mask is not None:
            ones = op.Cast(op.Equal(mask, op.const(1, like=mask)), to=dtypes.INT32)
            return op.ReduceSum(ones, axes=[1], keepdims=0)
        if places is None:
            rows = op.Slice(positions, op.ints(0), op.size(ids, 1), op.ints(0))
        else:
            rows = op.Gather(positions, places)
        parts = [op.Gather(words, ids), rows]
        if segments is not None and kinds is not None:
            parts.append(op.Gather(kinds, segments))
        return op.LayerNormalization(op.sum(*parts), g, b, axis=-1, epsilon=eps)
