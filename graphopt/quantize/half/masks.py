"""What is added to the scores of an attention, in half precision.

A mask says "not allowed" by a number that half precision does not hold, mostly −3.4e38. As a Cast it would become −∞,
and a row without any allowed key NaN where it was the mean of all values. So a fill becomes the lowest half, at its
source, where later proofs can see it; and queries of rows that are masked throughout become 0, which gives all keys
one weight as the fill did, in which scores were lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from graphopt.ir import IR_DOMAIN, Node, Tensor, Value, dtypes
from graphopt.ir.fills import is_indicator
from graphopt.ir.masks import never_empty
from graphopt.quantize.half.choice import MASK_SLOT
from graphopt.quantize.half.reach import LARGEST, VIEWS, Reach
from graphopt.quantize.half.types import Types, clamped_tensor, made_after

_SWALLOWS: Final = -(2.0**28)
"""Below this, two neighbouring float32 numbers are 32 apart: a score that is added is lost."""
_DEEP: Final = 32
"""Masks are made in a few dozen operations; what is behind is clamped as a whole."""


@dataclass
class Masks:
    """The half forms of masks, each made once. `assume_rows`: it is promised that no row is masked throughout."""

    types: Types
    reach: Reach
    assume_rows: bool = False
    _clamped: dict[Value, Value] = field(default_factory=dict)
    _allowed: dict[Value, Value] = field(default_factory=dict)

    def settle(self, node: Node, mask: Value) -> None:
        """Gives `node`, an attention that becomes half, its mask as halves."""
        q = node.inputs[0]
        assert q is not None
        peak, form = self.reach.peak(mask), self.clamped(mask)
        fills = peak is not None and peak > LARGEST and node.domain == IR_DOMAIN
        # The proof is one for halves: to it, −1e9 is as good a number as any in float32.
        if fills and not self.assume_rows and not never_empty(form):
            node.graph.set_input(node, 0, self._zeroed(node, q, mask))
        node.graph.set_input(node, MASK_SLOT, form)

    def clamped(self, mask: Value, depth: int = _DEEP) -> Value:
        """`mask` as halves, for readers in its scope."""
        outer = mask.resolved
        if outer not in self._clamped:
            self._clamped[outer] = self._made(outer, depth - 1)
        form = self._clamped[outer]
        return form if form.node.graph is mask.node.graph else mask.node.graph.capture(form)

    def _made(self, mask: Value, depth: int) -> Value:
        """The half form of a mask of its own scope."""
        if mask.dtype != dtypes.FLOAT:
            return mask
        node, stem = mask.node, f"{mask.name}_half"
        if mask.tensor is not None:
            return node.graph.add_constant(clamped_tensor(mask.tensor, -LARGEST), stem)
        rule = _RULES.get(node.op) if depth and not node.domain else None
        made = rule(self, mask, depth) if rule is not None else None
        return made if made is not None else self._bounded(mask)

    def _view(self, mask: Value, depth: int) -> Value | None:
        node = mask.node
        (x, *others) = node.inputs[: node.arity]
        assert x is not None
        operands = [self.clamped(x, depth), *others]
        return made_after(mask, node.op, operands, dict(node.attrs), f"{mask.name}_half", node.version)

    def _choice(self, mask: Value, depth: int) -> Value | None:
        condition, a, b = mask.node.inputs[:3]
        assert a is not None
        assert b is not None
        operands = [condition, self.clamped(a, depth), self.clamped(b, depth)]
        return made_after(mask, "Where", operands, {}, f"{mask.name}_half", mask.node.version)

    def _fill(self, mask: Value, depth: int) -> Value | None:
        value = mask.node.attr("value")
        if not isinstance(value, Tensor):
            return None
        filled = Tensor.of(clamped_tensor(value, -LARGEST).numpy())
        stem = f"{mask.name}_half"
        return made_after(mask, "ConstantOfShape", mask.node.inputs[:1], {"value": filled}, stem, mask.node.version)

    def _scaled(self, mask: Value, depth: int) -> Value | None:
        """c · x for x of 0 and 1."""
        a, b = mask.node.inputs[:2]
        assert a is not None
        assert b is not None
        for c, x in ((a, b), (b, a)):
            if c.tensor is not None and np.isfinite(c.tensor.numpy()).all() and is_indicator(x):
                operands = [self.clamped(c, depth), self.types.half(x)]
                return made_after(mask, "Mul", operands, {}, f"{mask.name}_half", mask.node.version)
        return None

    def _bounded(self, mask: Value) -> Value:
        """Any other mask as it is, but for numbers that half precision does not hold; −∞ stays."""
        graph, stem = mask.node.graph, f"{mask.name}_bounded"
        low, high = (graph.add_constant(np.float32(bound), "bound") for bound in (-LARGEST, LARGEST))
        inner = made_after(mask, "Min", [mask, high], {}, stem)
        inner = made_after(inner, "Max", [inner, low], {}, stem)
        endless = made_after(inner, "IsInf", [mask], {}, f"{mask.name}_endless")
        inner = made_after(endless, "Where", [endless, mask, inner], {}, stem)
        return self.types.half(inner)

    def _zeroed(self, node: Node, q: Value, mask: Value) -> Value:
        """The queries of `node`, 0 in rows that are masked throughout."""
        allowed = self._rows(mask)
        perm = [0, 2, 1, 3] if q.node.is_op("Transpose") and q.node.attr("perm") == [0, 2, 1, 3] else None
        inner = q.node.inputs[0] if perm is not None else q
        assert inner is not None
        graph = node.graph
        zero = self.types.half(graph.add_constant(np.float32(0), "zero"))
        if perm is None:
            return graph.add_op("Where", [allowed, self.types.half(q), zero], outputs=["kept_rows"], before=node).output
        # Before the heads are put apart, so that kernels that want them together find them so.
        turned = graph.add_op("Transpose", [allowed], {"perm": perm}, outputs=["allowed_rows"], before=node)
        operands = [turned.output, self.types.half(inner), zero]
        kept = graph.add_op("Where", operands, outputs=["kept_rows"], before=node)
        return graph.add_op("Transpose", [kept.output], {"perm": perm}, outputs=["kept_rows"], before=node).output

    def _rows(self, mask: Value) -> Value:
        """(·, ·, S, 1): whether a row of the mask has a key that is not swallowed."""
        if mask not in self._allowed:
            graph, wide = mask.node.graph, mask
            if mask.rank is not None and mask.rank < 4:
                axes = list(range(4 - mask.rank))
                wide = _with_axes(mask, "Unsqueeze", mask, axes, 13)
            top = _with_axes(wide, "ReduceMax", wide, [-1], 18)
            cut = graph.add_constant(np.float32(_SWALLOWS), "swallows")
            self._allowed[mask] = made_after(top, "Greater", [top, cut], {}, "allowed_rows")
        return self._allowed[mask]


def _with_axes(place: Value, op: str, x: Value, axes: list[int], since: int) -> Value:
    """`op` over `axes`, which are an operand from opset `since` on, and an attribute before."""
    graph = x.node.graph
    if graph.opsets.get("", 1) >= since:
        operand = graph.add_constant(np.array(axes, np.int64), "axes")
        return made_after(place, op, [x, operand], {}, f"{x.name}_{op.lower()}")
    return made_after(place, op, [x], {"axes": axes}, f"{x.name}_{op.lower()}")


_RULES: Final[dict[str, Callable[[Masks, Value, int], Value | None]]] = {
    **dict.fromkeys(VIEWS, Masks._view),
    "Where": Masks._choice,
    "ConstantOfShape": Masks._fill,
    "Mul": Masks._scaled,
}
