"""Where the values come from that a scope captures."""

from __future__ import annotations

from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, Value


class Origins:
    """The value that each captured value stands for, for scopes that are entered outer before inner."""

    def __init__(self) -> None:
        self._outer: dict[Node, Value] = {}

    def enter(self, graph: Graph) -> None:
        """Follows what `graph` captures, as the enclosing scope has it now."""
        for slot, node in graph.captures.items():
            assert graph.holder is not None
            outer = graph.holder.inputs[slot]
            assert outer is not None
            self._outer[node] = self.of(outer)

    def of(self, value: Value) -> Value:
        """`value` itself, or the value of an outer scope that it stands for."""
        return self._outer.get(value.node, value)
