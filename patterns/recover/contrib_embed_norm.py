from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like

Ids = Annotated[Value, like(rank=2, dims=("B", "S"), dtype="int32")]
Places = Annotated[Value, like(rank=2, dtype="int32")]
Table = Annotated[Value, like(rank=2, dims=(None, "H"))]
Vector = Annotated[Value, like(rank=1, dims=("H",))]


class LayerNormFromEmbed(Rule):
    """Embeddings, their sum and the layer normalization after it, apart.

    Why: the parts are seen, and on CPU they are faster than the kernel.
    Before: com.microsoft.EmbedLayerNormalization(ids, segments, words, positions, kinds, g, b, mask, places)
    After: LayerNormalization(words[ids] + positions[places] + kinds[segments], g, b), with places 0, 1, ... where none
    are given, and without segments where there are none
    Safety: the sum is not read.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")

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
        tables = (words, positions, kinds, g, b)
        return op.ms.EmbedLayerNormalization(ids, segments, *tables, mask, places, epsilon=eps, mask_index_type=kind)

    def where(self, segments: Value | None, kinds: Value | None) -> Reason:
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
        segments: Value | None,
        kinds: Value | None,
        places: Value | None,
    ) -> Value:
        if places is None:
            rows = op.Slice(positions, op.ints(0), op.size(ids, 1), op.ints(0))
        else:
            rows = op.Gather(positions, places)
        total = op.Add(op.Gather(words, ids), rows)
        if segments is not None:
            assert kinds is not None
            total = op.Add(total, op.Gather(kinds, segments))
        return op.LayerNormalization(total, g, b, axis=-1, epsilon=eps)
