"""Attention in its standard, contrib and internal forms. B: batch, N: heads, K: key/value heads, S, T: positions."""

from __future__ import annotations

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Shape
from graphopt.ir.inference.outs import Out, Outs, Table, operand, same, shape_of
from graphopt.ir.inference.sizes import Part, Partial
from graphopt.ir.node import Node

_Four = tuple[Part, Part, Part, Part]
_UNKNOWN: _Four = (None, None, None, None)


def _add(a: Part, b: Part) -> Part:
    return None if a is None or b is None else dims.add(a, b)


def _split(shape: Shape | None, heads: int | None) -> _Four:
    """(B, heads, positions, size of a head) of a tensor that is that, or (B, positions, hidden)."""
    if shape is not None and len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    if shape is not None and len(shape) == 3 and heads:
        return shape[0], heads, shape[1], dims.divide(shape[2], heads)
    return _UNKNOWN


def _present(past: Shape | None, new: _Four, has_past: bool) -> Partial:
    """What a cache holds after `new` was appended."""
    if not has_past:
        return new
    return (*new[:2], _add(past[2], new[2]) if past is not None and len(past) == 4 else None, new[3])


def internal(node: Node) -> Outs:
    q, dtype = shape_of(node, 0), operand(node, 0).dtype
    k, v = _split(shape_of(node, 1), None), _split(shape_of(node, 2), None)
    y = (*q[:3], v[3]) if q is not None and len(q) == 4 else (None,) * 4
    keys = _present(shape_of(node, 4), k, node.input(4) is not None)
    values = _present(shape_of(node, 5), v, node.input(5) is not None)
    return [Out(dtype, y), Out(dtype, keys), Out(dtype, values)]


def standard(node: Node) -> Outs:
    """Attention-23 and later: (Q, K, V, mask, past_key, past_value, ...) → Y, present_key, present_value, scores."""
    query = operand(node, 0)
    heads, shared = node.attr("q_num_heads"), node.attr("kv_num_heads")
    q, k, v = _split(query.shape, heads), _split(shape_of(node, 1), shared), _split(shape_of(node, 2), shared)
    y: Partial | None = (*q[:3], v[3])
    if query.shape is None:
        y = None
    elif len(query.shape) == 3:
        y = (q[0], q[2], dims.mul(v[3], heads) if v[3] is not None and heads else None)
    keys = _present(shape_of(node, 4), k, node.input(4) is not None)
    values = _present(shape_of(node, 5), v, node.input(5) is not None)
    return [
        Out(query.dtype, y),
        Out(operand(node, 1).dtype, keys),
        Out(operand(node, 2).dtype, values),
        Out(query.dtype, (*q[:3], keys[2])),
    ]


def multi_head(node: Node) -> Outs:
    """com.microsoft MultiHeadAttention, query (B, S, hidden) or packed with keys and values as (B, S, N, 3, D)."""
    query, heads = operand(node, 0), node.attr("num_heads")
    q = query.shape
    if q is None:
        return [Out(query.dtype, (None, None, None))]
    if len(q) == 5:
        whole = (q[0], q[2], q[1], q[4])
        return [Out(query.dtype, (q[0], q[1], dims.mul(q[2], q[4]))), *[Out(query.dtype, whole)] * 2]
    k, v = _keys_and_values(node, heads)
    hidden = dims.mul(v[3], heads) if v[3] is not None and heads else None
    keys = _present(shape_of(node, 6), k, node.input(6) is not None)
    values = _present(shape_of(node, 7), v, node.input(7) is not None)
    return [
        Out(query.dtype, (q[0], q[1], hidden)),
        Out(query.dtype, keys),
        Out(query.dtype, values),
        Out(query.dtype, (q[0], heads, q[1], keys[2])),
    ]


def _keys_and_values(node: Node, heads: int | None) -> tuple[_Four, _Four]:
    key = shape_of(node, 1)
    if key is not None and len(key) == 5:
        packed = key[0], key[2], key[1], key[4]
        return packed, packed
    return _split(key, heads), _split(shape_of(node, 2), heads)


def packed(node: Node) -> Outs:
    """com.microsoft Attention: input (B, S, hidden), weights (hidden, 3·hidden) → y, present (2, B, N, past + S, D)."""
    value, weights, heads = operand(node, 0), shape_of(node, 1), node.attr("num_heads")
    if value.shape is None or len(value.shape) != 3:
        return [Out(value.dtype, (None, None, None))]
    batch, positions, _ = value.shape
    given = node.attr("qkv_hidden_sizes")
    hidden: Part = given[2] if given else dims.divide(weights[1], 3) if weights is not None else None
    size = dims.divide(hidden, heads) if hidden is not None and heads else None
    past = shape_of(node, 4)
    total: Part = positions
    if node.input(4) is not None:
        total = _add(past[3], positions) if past is not None and len(past) == 5 else None
    return [Out(value.dtype, (batch, positions, hidden)), Out(value.dtype, (2, batch, heads, total, size))]


def embed_layer_norm(node: Node) -> Outs:
    """com.microsoft EmbedLayerNormalization: ids (B, S), word embeddings (V, hidden) → y, mask_index, embedding_sum."""
    ids, words = operand(node, 0), operand(node, 2)
    if ids.shape is None or words.shape is None:
        return [Out(words.dtype, (None, None, None)), Out(dtypes.INT32, (None,))]
    y = Out(words.dtype, (*ids.shape, words.shape[-1]))
    return [y, Out(dtypes.INT32, ids.shape[:1]), y]


TABLE: Table = {
    ("", "Attention"): standard,
    ("", "RotaryEmbedding"): same,
    ("ir", "Attention"): internal,
    ("com.microsoft", "Attention"): packed,
    ("com.microsoft", "EmbedLayerNormalization"): embed_layer_norm,
    ("com.microsoft", "MultiHeadAttention"): multi_head,
    ("com.microsoft", "RotaryEmbedding"): same,
}
