"""Which roots are tried, and when: what waits, and what lies around a change."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from graphopt.ir import Graph, Node
from graphopt.rewrite.facts import COPIES, see_through

FAR = 1 << 30
"""The distance of a node that no change concerns."""

_NOTHING: Mapping[Node, int] = MappingProxyType({})


class Change(NamedTuple):
    """What a site made; what reads its result, or a value that it reads no more; what it reads no more."""

    made: list[Node]
    readers: Sequence[Node] = ()
    alone: Sequence[Node] = ()


class Worklist:
    """Possible roots waiting, in topological order, each once, with its distance to the nearest change.

    `reach` says for each (domain, op) that can be a root how far the rules there look; what changed behind that does
    not concern them.
    """

    def __init__(self, graph: Graph, reach: Mapping[tuple[str, str], int]) -> None:
        self._graph = graph
        self._reach = reach
        self._heap: list[tuple[int, int, Node]] = []
        self._waiting: dict[Node, int] = {}
        self._followed: dict[Node, int] = {}
        self._serial = 0

    def extend(self, nodes: Iterable[tuple[Node, int]]) -> None:
        waiting, reach = self._waiting, self._reach
        for node, distance in nodes:
            far = reach.get((node.domain, node.op))
            if far is None or far < distance < FAR:
                continue
            known = waiting.get(node)
            if known is None:
                self._serial += 1
                heapq.heappush(self._heap, (node.rank, self._serial, node))
            if known is None or distance < known:
                waiting[node] = distance

    def spread(self, change: Change, reach: int) -> None:
        """Puts in what depends on a change, as far as `reach` nodes.

        What still waits because of a nearer change was followed then, and what lies behind it waits, too: in a long run
        of copies, each of which goes, the rest would be walked through once for each of them.
        """
        followed = self._followed
        found = list(neighbourhood(self._graph, change, reach, followed))
        self.extend(found)
        followed.update(entry for entry in found if entry[0] in self._waiting)

    def pop(self) -> tuple[Node, int] | None:
        while self._heap:
            _, _, node = heapq.heappop(self._heap)
            distance = self._waiting.pop(node)
            self._followed.pop(node, None)
            if node in self._graph:
                return node, distance
        return None


def neighbourhood(
    graph: Graph, change: Change, reach: int, followed: Mapping[Node, int] = _NOTHING
) -> Iterator[tuple[Node, int]]:
    """What depends on a change, as far as `reach` nodes, with the distance; plain copies have no length.

    What was `followed` from as near, or nearer, is left out, with what lies behind it.
    """
    found: set[Node] = set()
    ring, following = list(change.made), list(change.readers)
    for distance in range(reach + 1):
        for node in ring:
            if node not in found and node in graph and followed.get(node, FAR) > distance:
                found.add(node)
                yield node, distance
                for reader in graph.readers(node):
                    if reader not in found:
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
    return node.op in COPIES and bool(node.outputs) and see_through(node.outputs[0]) is not None
