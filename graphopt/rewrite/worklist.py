"""Which roots are tried, and when: what waits, and what lies around a change."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from graphopt.ir import Graph, Node
from graphopt.rewrite.facts import see_through


class Change(NamedTuple):
    """What a site made; what reads its result, or a value that it reads no more; what it reads no more."""

    made: list[Node]
    readers: Sequence[Node] = ()
    alone: Sequence[Node] = ()


class Worklist:
    """Possible roots waiting, in topological order, each once, with its distance to the nearest change."""

    def __init__(self, graph: Graph, roots: Collection[tuple[str, str]]) -> None:
        self._graph = graph
        self._roots = roots
        self._heap: list[tuple[int, int, Node]] = []
        self._waiting: dict[Node, int] = {}
        self._serial = 0

    def extend(self, nodes: Iterable[tuple[Node, int]]) -> None:
        for node, distance in nodes:
            if (node.domain, node.op) not in self._roots:
                continue
            if node not in self._waiting:
                self._serial += 1
                heapq.heappush(self._heap, (node.rank, self._serial, node))
            self._waiting[node] = min(distance, self._waiting.get(node, distance))

    def pop(self) -> tuple[Node, int] | None:
        while self._heap:
            _, _, node = heapq.heappop(self._heap)
            distance = self._waiting.pop(node)
            if node in self._graph:
                return node, distance
        return None


def neighbourhood(graph: Graph, change: Change, reach: int) -> Iterator[tuple[Node, int]]:
    """What depends on a change, as far as `reach` nodes, with the distance; plain copies have no length."""
    found: set[Node] = set()
    ring, following = list(change.made), list(change.readers)
    for distance in range(reach + 1):
        for node in ring:
            if node in graph and node not in found:
                found.add(node)
                yield node, distance
                for reader in graph.readers(node):
                    (ring if _is_copy(reader) else following).append(reader)
        ring, following = following, []


def captures_of(nodes: Iterable[Node], reach: int) -> list[Node]:
    """The captures in subgraphs that see one of `nodes`, or what depends on it as far as `reach` nodes."""
    found: set[Node] = set()
    ring = list(nodes)
    for _ in range(reach + 1):
        following: list[Node] = []
        for node in ring:
            if node in found:
                continue
            found.add(node)
            for reader, slots in node.graph.adj[node].items():
                (ring if _is_copy(reader) else following).append(reader)
                ring += [g.captures[slot] for g in reader.subgraphs for slot in slots if slot in g.captures]
        ring = following
    return sorted((node for node in found if node.slot >= 0), key=lambda node: node.rank)


def _is_copy(node: Node) -> bool:
    return bool(node.outputs) and see_through(node.outputs[0]) is not None
