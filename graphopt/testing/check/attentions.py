"""How a wanted shape is pushed down through attention, and the embeddings before it, as kernels have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Shape, Size
from graphopt.rewrite import pattern as p
from graphopt.testing.check.choices import Rejected
from graphopt.testing.check.terms import Call, Term

if TYPE_CHECKING:
    from graphopt.testing.check.grow import Grower, Want

_SCALES = (0.5, 0.125, 1.0)


def natural(g: Grower, e: p.Op) -> Shape:
    return g.some_shape((3, 4) if not e.domain else (3,))


def standard(g: Grower, e: p.Op, want: Want) -> Term:
    """Attention(q, k, v, mask), with heads apart or merged."""
    positions = g.size()
    if len(want.shape) == 4:
        batch, heads, rows, width = want.shape
        inner = g.size()
        shapes: list[Shape] = [(rows, inner), (positions, inner), (positions, width)]
        shapes = [(batch, heads, *shape) for shape in shapes]
        attrs = g.attributes(e, scale=_SCALES, q_num_heads=(None,), kv_num_heads=(None,), is_causal=(0,))
    else:
        batch, heads, rows, width = _merged(g, want)
        inner = dims.mul(heads, g.choose("attributes", (2, 4)))
        shapes = [(batch, rows, inner), (batch, positions, inner), (batch, positions, width)]
        attrs = g.attributes(e, scale=_SCALES, q_num_heads=(heads,), kv_num_heads=(heads,), is_causal=(0,))
    terms = [g.operand(e, at, want._replace(shape=shape, exact=True)) for at, shape in enumerate(shapes)]
    mask = want._replace(shape=(batch, heads, rows, positions), exact=True)
    return g.call(e, [*terms, g.operand(e, 3, mask)], want.shape, want.dtype, attrs)


def multi_head(g: Grower, e: p.Op, want: Want) -> Term:
    """com.microsoft MultiHeadAttention(q, k, v, b, padding, bias) on merged heads, without a padding mask."""
    batch, heads, rows, width = _merged(g, want)
    positions = g.choose("shared", (rows, g.size()))
    inner = dims.mul(heads, g.choose("attributes", (2, 4)))
    attrs = g.attributes(e, num_heads=(heads,), scale=_SCALES, mask_filter_value=(-100.0,), unidirectional=(0,))
    sizes = [(batch, rows, inner), (batch, positions, inner), (batch, positions, width)]
    terms = [g.operand(e, at, want._replace(shape=shape, exact=True)) for at, shape in enumerate(sizes)]
    vector = (dims.add(dims.add(inner, inner), width),)
    terms.append(g.operand(e, 3, want._replace(shape=vector, exact=True)))
    bias = want._replace(shape=(batch, heads, rows, positions), exact=True)
    return g.call(e, [*terms, None, g.operand(e, 5, bias)], want.shape, want.dtype, attrs)


def packed(g: Grower, e: p.Op, want: Want) -> Term:
    """com.microsoft Attention(x, w, b, padding, past, bias), without a padding mask."""
    batch, heads, rows, width = _merged(g, want)
    inner = g.size()
    number = g.number(width)
    attrs = g.attributes(
        e,
        num_heads=(heads,),
        scale=_SCALES,
        mask_filter_value=(-100.0,),
        unidirectional=(0,),
        qkv_hidden_sizes=(None, [2 * heads, 2 * heads, number]),
    )
    columns = sum(attrs.get("qkv_hidden_sizes") or [number] * 3)
    shapes = [(batch, rows, inner), (inner, columns), (columns,)]
    terms = [g.operand(e, at, want._replace(shape=shape, exact=True)) for at, shape in enumerate(shapes)]
    bias = want._replace(shape=(batch, heads, rows, rows), exact=True)
    return g.call(e, [*terms, None, None, g.operand(e, 5, bias)], want.shape, want.dtype, attrs)


def embeddings(g: Grower, e: p.Op, want: Want) -> Term:
    """com.microsoft EmbedLayerNormalization of ids (B, S), with tables of (?, H)."""
    if len(want.shape) != 3:
        raise Rejected
    *ids, hidden = want.shape
    many = dims.add(ids[1], 1)
    shapes = [ids, ids, (g.size(), hidden), (many, hidden), (g.size(), hidden), (hidden,), (hidden,), ids, ids]
    attrs = g.attributes(e, mask_index_type=(0,))
    terms = []
    for at, shape in enumerate(shapes):
        dtype = dtypes.INT32 if shape is ids else want.dtype
        terms.append(g.operand(e, at, want._replace(shape=tuple(shape), dtype=dtype, exact=True)))
    while terms and terms[-1] is None:
        terms.pop()
    return Call(want.shape, want.dtype, e.op, e.domain, tuple(terms), attrs, 0, max(2, g.outputs(e)))


def _merged(g: Grower, want: Want) -> tuple[Size, int, Size, Size]:
    """(B, N, S, N·E) of a wanted (B, S, N·E)."""
    if len(want.shape) != 3:
        raise Rejected
    batch, rows, width = want.shape
    number = g.number(width)
    return batch, g.choose("attributes", [n for n in (2, 1, 3) if number % n == 0]), rows, width
