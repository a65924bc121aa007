"""What stands at the boundaries of regions when the original runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from graphopt.ir import Model
from graphopt.verify import chunks
from graphopt.verify.cuts import Cuts
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.parts import Part, PartSession, part
from graphopt.verify.runs import Runs


class Boundary(Protocol):
    """Gives the values that regions start from. `types` are onnxruntime's, by name, once a value was asked for."""

    @property
    def types(self) -> Mapping[str, str]: ...

    def values(self, feed: Feed, names: Sequence[str]) -> dict[str, Any]:
        """The values called `names` under `feed`. Raises RunError."""
        ...


class Tap:
    """The original, in a session that also gives the values at the boundaries of regions; a large one in several.

    `nodes` is how many nodes it runs.
    """

    def __init__(self, model: Model, names: Iterable[str], runs: Runs) -> None:
        self._runs = runs
        values = [model.graph.names[name] for name in dict.fromkeys(names)]
        roots = [value for value in values if not value.node.is_source] or model.graph.outputs[:1]
        nodes = Cuts(frozenset()).cone(roots).nodes
        self.nodes = len(nodes)
        self._session: PartSession | chunks.Chunks
        if self.nodes > chunks.MOST_NODES:
            self._session = chunks.Chunks(model, nodes, roots, runs)
        else:
            whole = part(model, roots, runs.weights, seeds=runs.seeds)
            self._session = whole.load(runs.runner, "the original")
        self._inputs = {node.output.name for node in model.graph.inputs}
        self._kept: dict[int, dict[str, Any]] = {}

    @property
    def types(self) -> Mapping[str, str]:
        return self._session.types()

    def has(self, names: Iterable[str]) -> bool:
        """Whether this tap gives the values of all of these."""
        return all(name in self._session.part.outputs or name in self._inputs for name in names)

    def feeds(self) -> list[Feed]:
        """The feeds under which the original runs. Raises what `Runs.feeds` raises."""
        first = _First(self._session)
        feeds = self._runs.feeds(first)
        self._kept = {id(feed): first.found for feed in feeds if first.found and _are_same(feed.arrays, first.fed)}
        return feeds

    def values(self, feed: Feed, names: Sequence[str]) -> dict[str, Any]:
        """The values called `names` under `feed`; those of a run that was kept are given away. Raises RunError."""
        given = {name: feed.arrays[name] for name in names if name in feed.arrays}
        tapped = [name for name in names if name in self._session.part.outputs]
        kept = self._kept.get(id(feed), {})
        if all(name in kept for name in tapped):
            return given | {name: kept.pop(name) for name in tapped}
        return given | self._session.run(feed.arrays, tapped)

    def close(self) -> None:
        self._session.close()


@dataclass
class _First:
    """A session that keeps all that its first run gives: what sizes are tried on may be what is fed then."""

    session: PartSession | chunks.Chunks
    fed: Mapping[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def part(self) -> Part:
        return self.session.part

    def run(self, feeds: Mapping[str, Any], outputs: Collection[str] | None = None) -> dict[str, Any]:
        if self.fed:
            return self.session.run(feeds, outputs)
        found = self.session.run(feeds)
        if sum(getattr(value, "nbytes", 0) for value in found.values()) <= chunks.MOST_BYTES:
            self.fed, self.found = feeds, found
        return found


def _are_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two feeds are the same arrays."""
    arrays = all(isinstance(value, np.ndarray) for value in (*a.values(), *b.values()))
    return arrays and a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


class Shared:
    """A tap for several batches: the original runs once under each feed, and not once for each batch as well."""

    def __init__(self, tap: Tap, names: Sequence[str]) -> None:
        self._tap = tap
        self._names = names
        self._readers: Counter[str] = Counter()
        self._waiting: dict[int, dict[str, Any]] = {}
        self._left: dict[int, Counter[str]] = {}
        self._shelf = chunks.Shelf()

    @property
    def types(self) -> Mapping[str, str]:
        return self._tap.types

    def sizes(self, feed: Feed) -> dict[str, int]:
        """How many bytes each value takes under `feed`."""
        self._run(feed)
        values = self._waiting[id(feed)].items()
        return {name: value.nbytes for name, value in values if isinstance(value, np.ndarray)}

    def expect(self, readers: Iterable[Sequence[str]]) -> None:
        """Says which values will be asked for under each feed, and how often; after that they are let go."""
        self._readers = Counter(name for names in readers for name in names)

    def values(self, feed: Feed, names: Sequence[str]) -> dict[str, Any]:
        key = id(feed)
        if key not in self._waiting:
            self._run(feed)
        waiting, left = self._waiting[key], self._left.setdefault(key, Counter(self._readers))
        missing = [name for name in names if name not in waiting]
        found = {name: waiting[name] for name in names if name in waiting}
        for name in found:
            left[name] -= 1
            if left[name] <= 0:
                del waiting[name]
        return found | (self._tap.values(feed, missing) if missing else {})

    def _run(self, feed: Feed) -> None:
        values = self._tap.values(feed, self._names)
        self._waiting[id(feed)] = {name: self._shelf.keep(value) for name, value in values.items()}
