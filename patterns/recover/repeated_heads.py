from graphopt.ir import Value
from graphopt.patterns.recover.repetition import Once, once
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule


class RepeatedHeads(Rule):
    """Attention over heads of keys and values that were repeated, one copy for each query head that reads them.

    Why: the copies are as large as all keys of the cache times the size of a group, and are written for every token.
    Before: ir.Attention(q, repeat(k), repeat(v)), each head G times in a row
    After: ir.Attention(q, k, v), where query head h reads head h // G
    Safety: each head is followed by its own copies (a tiled order is refused), as many of the keys as of the values.
    Source: Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, 2023.
    """

    stage = "recover"

    def pattern(self, op: Ops, q: Value, k: Value, v: Value, attrs: Attrs, bias: Value | None = None) -> Expr:
        return op.ir.Attention(q, k, v, bias, others=attrs)

    def where(self, k: Value, v: Value) -> Reason:
        keys, values = once(k, 1), once(v, 1)
        for found in (keys, values):
            if isinstance(found, str):
                return found
        same = isinstance(keys, Once) and isinstance(values, Once) and keys.copies == values.copies
        return same or "the keys are not repeated as often as the values"

    def rewrite(
        self, op: Builder, q: Value, k: Value, v: Value, attrs: dict[str, object], bias: Value | None
    ) -> Value | None:
        keys, values = once(k, 1), once(v, 1)
        if isinstance(keys, str) or isinstance(values, str):
            return None
        return op.ir.Attention(q, keys.write(op), values.write(op), bias, **attrs)
