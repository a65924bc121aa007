"""Forms of regions: what is left of one when names, and what its weights hold, are taken away.

Layers of one make differ in nothing else. Whether a rewrite is right for every input is a matter of the form; whether
it computed and joined the weights of this layer rightly shows on any input.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from graphopt.ir import Node, Tensor, Value, dtypes
from graphopt.verify.cuts import Region, is_initializer


def form(region: Region, number_of: Callable[[Tensor], int]) -> Hashable:
    """The form of `region`; `number_of` is what tells constants apart, by type, shape and data.

    Boundary values count by type, known sizes, and order; so do floats of more than one element. All other constants
    count by what they hold, as attributes do.
    """
    writer = _Writer(region, number_of)
    return writer.cone(region.original), writer.cone(region.candidate)


@dataclass
class _Writer:
    region: Region
    number_of: Callable[[Tensor], int]
    order: dict[str, int] = field(default_factory=dict)

    def cone(self, root: Value) -> Hashable:
        """The nodes of one cone, each after those that it reads, and which output of the last is the root."""
        if root.node.is_source:
            return self._leaf(root)
        written: dict[Node, int] = {}
        lines: list[Hashable] = []
        waiting = [root.node]
        while waiting:
            node = waiting[-1]
            inner = [v.node for v in node.inputs if v is not None and not self._is_leaf(v) and v.node not in written]
            if inner:
                waiting += reversed(inner)
                continue
            waiting.pop()
            if node not in written:
                lines.append((self.region.operators.get(node), *(self._operand(v, written) for v in node.inputs)))
                written[node] = len(written)
        return tuple(lines), root.index

    def _operand(self, value: Value | None, written: dict[Node, int]) -> Hashable:
        if value is None:
            return None
        return self._leaf(value) if self._is_leaf(value) else (written[value.node], value.index)

    def _is_leaf(self, value: Value) -> bool:
        named = self.region.cuts.read(value) in self.region.cuts.names
        return named or value.node.is_source or value.tensor is not None

    def _leaf(self, value: Value) -> Hashable:
        name = self.region.cuts.read(value)
        given = value.node.is_source and not is_initializer(value)
        constant = self.region.cuts.constants.get(name) if given or value.tensor is None else value.tensor
        if constant is None and is_initializer(value):
            return name  # a sparse initializer
        if constant is not None and (constant.size < 2 or constant.dtype not in dtypes.FLOATS):
            return self.number_of(constant)
        # The original's types are known; what was rewritten may not have been inferred yet.
        typed = constant or self.region.original.node.graph.names.get(name, value)
        shape = typed.shape
        sizes = None if shape is None else tuple(size if isinstance(size, int) else None for size in shape)
        return constant is None, typed.dtype, sizes, self.order.setdefault(name, len(self.order))
