from graphopt.ir import Value
from graphopt.patterns.recover.repetition import once
from graphopt.rewrite import Attrs, Builder, Expr, Maybe, Ops, Reason, Rule


class RepeatedHeads(Rule):
    """Attention over heads of keys and values that were repeated, one copy for each query head that reads them.

    Why: the copies are as large as all keys of the cache times the size of a group, and are written for every token.
    Before: ir.Attention(q, repeat(k), repeat(v)), each head G times in a row: Expand, Tile, Gather or Concat, with or
    without a dimension of its own, before transposes and a rotation as well
    After: ir.Attention(q, k, v), where query head h reads head h // G
    Safety: each head is followed by its own copies (a tiled order is refused), as many of the keys as of the values.
    Source: Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, 2023.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, q: Value, k: Value, v: Value, attrs: Attrs, bias: Maybe = None, x: Maybe = None, y: Maybe = None
    ) -> Expr:
        keys, values = op.such_as(k, op.Expand(x, ...)), op.such_as(v, op.Expand(y, ...))
        return op.ir.Attention(q, keys, values, bias, others=attrs)

    def where(self, k: Value, v: Value) -> Reason:
        keys, values = once(k, 1), once(v, 1)
        if isinstance(keys, str) or isinstance(values, str):
            return keys if isinstance(keys, str) else str(values)
        return keys.copies == values.copies or "the keys are not repeated as often as the values"

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value, attrs: Attrs, bias: Maybe) -> Value | None:
        keys, values = once(k, 1), once(v, 1)
        if isinstance(keys, str) or isinstance(values, str):
            return None
        return op.ir.Attention(q, keys.write(op), values.write(op), bias, **attrs)
