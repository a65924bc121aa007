from typing import Any

from graphopt.ir import Value
from graphopt.patterns.recover.repetition import Once, once
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule


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
    keeps_inner = True

    def pattern(self, op: Ops, q: Value, k: Value, v: Value, attrs: Attrs, bias: Value | None = None) -> Expr:
        keys, values = (op.Expand(x, ...) | x for x in (k, v))
        return op.ir.Attention(q, keys, values, bias, others=attrs)

    def where(self, root: Value) -> Reason:
        keys, values = _keys_and_values(root)
        if isinstance(keys, str) or isinstance(values, str):
            return keys if isinstance(keys, str) else str(values)
        return keys.copies == values.copies or "the keys are not repeated as often as the values"

    def rewrite(self, op: Builder, q: Value, attrs: Any, bias: Value | None, root: Value) -> Value | None:
        keys, values = _keys_and_values(root)
        if isinstance(keys, str) or isinstance(values, str):
            return None
        return op.ir.Attention(q, keys.write(op), values.write(op), bias, **attrs)


def _keys_and_values(root: Value) -> tuple[Once | str, Once | str]:
    _, k, v = root.node.inputs[:3]
    assert k is not None
    assert v is not None
    return once(k, 1), once(v, 1)
