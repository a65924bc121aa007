"""How a wanted shape is pushed down through a rotary embedding, (B, N, S, D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.ir import dtypes
from graphopt.ir.dims import Shape
from graphopt.rewrite import pattern as p
from graphopt.testing.check.choices import Rejected
from graphopt.testing.check.terms import Term

if TYPE_CHECKING:
    from graphopt.testing.check.grow import Grower, Want


def natural(g: Grower, e: p.Op) -> Shape:
    return g.known(e.operands[0]) or g.some_shape((4,))


def rotary(g: Grower, e: p.Op, want: Want) -> Term:
    """Tables for each row of each sequence, now and then for all sequences, or for positions where ids are given."""
    if len(want.shape) != 4:
        raise Rejected
    batch, _, rows, width = want.shape
    lanes = g.number(width)
    if lanes % 2:
        raise Rejected
    attrs = g.attributes(e, interleaved=(0, 1), num_heads=(None,), rotary_embedding_dim=(0, 2))
    x = g.operand(e, 0, want._replace(exact=True))
    ids = g.operand(e, 3, want._replace(shape=(batch, rows), dtype=dtypes.INT64, exact=True))
    each = (g.size(),) if ids is not None else (g.choose("broadcasts", (batch, batch, 1)), rows)
    half = (attrs.get("rotary_embedding_dim") or lanes) // 2
    tables = [g.operand(e, slot, want._replace(shape=(*each, half), exact=True)) for slot in (1, 2)]
    return g.call(e, [x, *tables, ids], want.shape, want.dtype, attrs)
