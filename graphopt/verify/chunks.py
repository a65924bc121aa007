"""A model that is too large for one session, in several that run one after another."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np

from graphopt.ir import Model, Node, Value
from graphopt.runtime import Kernel
from graphopt.runtime.scratch import temporary_files
from graphopt.verify.cuts import Cuts
from graphopt.verify.parts import Part, PartSession, part, type_of
from graphopt.verify.runs import Runs

MOST_NODES: Final = 5_000
"""Nodes in one session: to create one takes time by the square of its nodes."""

MOST_BYTES: Final = 256 << 20
"""Bytes of values that are held at once."""


class Shelf:
    """Keeps arrays for later: past `MOST_BYTES` in all, in temporary files that the system pages in and out."""

    def __init__(self) -> None:
        self._held = 0

    def keep(self, value: Any) -> Any:
        """The same value, where it may stay."""
        if not isinstance(value, np.ndarray) or value.dtype == object or not value.nbytes:
            return value
        self._held += value.nbytes
        if self._held <= MOST_BYTES:
            return value
        with temporary_files(), tempfile.TemporaryFile(prefix="graphopt-") as file:
            file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
            file.flush()
            return np.memmap(file, value.dtype, "r", shape=value.shape)


@dataclass(frozen=True)
class _Chunk:
    """What a chunk may read of earlier ones, what it gives to later ones, which of the roots it computes.

    `last` are the values of earlier chunks, and its own, that nobody reads after it.
    """

    start: frozenset[str]
    crossing: tuple[Value, ...]
    roots: tuple[Value, ...]
    last: frozenset[str]


class Chunks:
    """The cone `nodes` of `roots`, in sessions of at most `MOST_NODES` nodes each; it runs as a `PartSession` does.

    Values that cross from one chunk into later ones are let go after the last that reads them. A session is created
    when it is first run: until then the ranks of what it reads may not be known. `options` are those of `Runner.load`.
    """

    def __init__(self, model: Model, nodes: Sequence[Node], roots: Sequence[Value], runs: Runs, **options: Any) -> None:
        self._model = model
        self._runs = runs
        self._options = options
        self._chunks = list(_chunks(nodes, roots))
        self._sessions: list[PartSession] = []
        self._types: dict[str, str] = {}
        self.part = Part(outputs={root.name: root.name for root in roots})

    def run(self, feeds: Mapping[str, Any], outputs: Collection[str] | None = None) -> dict[str, Any]:
        """Runs the chunks up to the last that computes one of `outputs`. Raises what `Session.run` raises."""
        wanted = self.part.outputs.keys() if outputs is None else set(outputs)
        shelf = Shelf()
        found: dict[str, Any] = {}
        live: dict[str, Any] = {}
        for number, chunk in enumerate(self._chunks):
            if len(found) == len(wanted):
                break
            if number == len(self._sessions):
                self._sessions.append(self._load(chunk, live))
            asked = [value.name for value in chunk.roots if value.name in wanted]
            crossing = [value.name for value in chunk.crossing]
            made = self._sessions[number].run({**feeds, **live}, dict.fromkeys([*asked, *crossing]))
            made = {name: shelf.keep(value) for name, value in made.items()}
            found.update((name, made[name]) for name in asked)
            live = {n: v for n, v in (live | {n: made[n] for n in crossing}).items() if n not in chunk.last}
        return found

    def types(self) -> dict[str, str]:
        """onnxruntime's types of the values that were computed so far."""
        return self._types

    def kernels(self) -> list[Kernel]:
        """As `PartSession.kernels`."""
        return [kernel for session in self._sessions for kernel in session.kernels()]

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _load(self, chunk: _Chunk, live: Mapping[str, Any]) -> PartSession:
        names = self._model.graph.names
        types = {name: type_of(self._types[name], live[name], known_sizes([names[name]])) for name in chunk.start}
        roots = list(dict.fromkeys([*chunk.roots, *chunk.crossing]))
        cuts, runs = Cuts(chunk.start), self._runs
        written = part(self._model, roots, runs.weights, cuts=cuts, types=types, seeds=runs.seeds)
        session = written.load(runs.runner, "a chunk of the original", **self._options)
        self._types.update(session.types())
        return session


def _chunks(nodes: Sequence[Node], roots: Sequence[Value]) -> Iterator[_Chunk]:
    """The chunks of `nodes`, which are in topological order."""
    place = {node: number for number, node in enumerate(nodes)}
    last = {value: place[node] for node in nodes for value in node.inputs if value is not None and value.node in place}
    wanted = set(roots)
    start, live = 0, dict[str, int]()
    for end in _ends(place, last):
        values = [value for node in nodes[start:end] for value in node.outputs]
        crossing = tuple(value for value in values if last.get(value, -1) >= end)
        before = frozenset(live)
        live |= {value.name: last[value] for value in crossing}
        done = frozenset(name for name, reader in live.items() if reader < end)
        yield _Chunk(before, crossing, tuple(value for value in values if value in wanted), done)
        live = {name: reader for name, reader in live.items() if reader >= end}
        start = end


def _ends(place: Mapping[Node, int], last: Mapping[Value, int]) -> Iterator[int]:
    """Where chunks end: behind half of `MOST_NODES` nodes or more, where the fewest bytes cross."""
    changes = [0] * (len(place) + 1)
    for value, reader in last.items():
        size = math.prod(size for size in value.shape or () if isinstance(size, int)) or 1
        changes[place[value.node] + 1] += size
        changes[reader + 1] -= size
    crossing = list(accumulate(changes))
    start = 0
    while len(place) - start > MOST_NODES:
        start = min(range(start + MOST_NODES, start + MOST_NODES // 2, -1), key=crossing.__getitem__)
        yield start
    yield len(place)


def known_sizes(values: Iterable[Value]) -> Sequence[int | None]:
    """The sizes of a value that do not depend on the feed; onnxruntime misjudges some ops without them.

    `values` are what stands for it in one model and another.
    """
    shape = next((value.shape for value in values if value.shape is not None), ())
    return [size if isinstance(size, int) else None for size in shape]
