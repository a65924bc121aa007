from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.rotary import cache_of
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class RotaryTables(Rule):
    """Tables of a rotary embedding, for each row of each sequence.

    Why: one form for every rule that follows, shared by all layers; and exporters write tables of batch 1, with which
    onnxruntime rejects a batch of more than one sequence.
    Before: RotaryEmbedding(x, cos, sin, ids) with tables by position, or RotaryEmbedding(x, cos, sin) with (1, S, h)
    After: RotaryEmbedding(x, cos[ids], sin[ids]), or with both tables expanded to (B, S, h)
    Safety: the operator gathers by ids in the same way. Tables of batch 1 can only have been meant for all sequences.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Floats, c: Value, s: Value, given: Attrs, ids: Value | None = None) -> Expr:
        return op.RotaryEmbedding(x, c, s, ids, others=given)

    def where(self, x: Value, c: Value, s: Value, ids: Value | None) -> Reason:
        if not x.shape or not c.shape or c.shape != s.shape or not isinstance(c.shape[-1], int):
            return "the shape of a table is not known"
        if ids is not None:
            return (ids.rank == 2 and len(c.shape) == 2) or f"tables of {c.shape} for positions of {ids.shape}"
        return (len(c.shape) == 3 and c.shape[0] == 1 and x.shape[0] != 1) or "the tables are for each sequence"

    def rewrite(self, op: Builder, x: Value, c: Value, s: Value, given: Attrs, ids: Value | None) -> Value:
        cos, sin = (cache_of(op, t, x) if ids is None else op.Gather(t, ids, axis=0) for t in (c, s))
        return op.RotaryEmbedding(x, cos, sin, **given)
