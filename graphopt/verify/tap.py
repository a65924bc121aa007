"""What stands at the boundaries of regions when the original runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphopt.ir import Model
from graphopt.verify.feeds import Feed
from graphopt.verify.parts import part
from graphopt.verify.runs import Runs


class Tap:
    """The original, in a session that also gives the values at the boundaries of regions."""

    def __init__(self, model: Model, names: Sequence[str], runs: Runs) -> None:
        self._runs = runs
        values = [model.graph.names[name] for name in dict.fromkeys(names)]
        roots = [value for value in values if not value.node.is_source] or model.graph.outputs[:1]
        self._session = part(model, roots, runs.weights).load(runs.runner, "the original")
        self._inputs = {node.output.name for node in model.graph.inputs}
        self.types = self._session.types()

    def has(self, names: Sequence[str]) -> bool:
        """Whether this tap gives the values of all of these."""
        return all(name in self.types or name in self._inputs for name in names)

    def feeds(self) -> list[Feed]:
        """The feeds under which the original runs. Raises what `Runs.feeds` raises."""
        return self._runs.feeds(self._session)

    def values(self, feed: Feed, names: Sequence[str]) -> dict[str, Any]:
        """The values called `names` under `feed`. Raises RunError."""
        given = {name: feed.arrays[name] for name in names if name in feed.arrays}
        return given | self._session.run(feed.arrays, [name for name in names if name in self.types])

    def close(self) -> None:
        self._session.close()
