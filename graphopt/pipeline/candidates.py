"""Models made of one original under different plans, each written to a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphopt.ir import Model, save
from graphopt.quantize.sites import Site, find_sites
from graphopt.quantize.untied import untie
from graphopt.rewrite import Plan, Trace
from graphopt.rewrite.engine import SiteKey

Rewrite = Callable[..., tuple[Model, Trace]]
"""`optimize.optimized` with all arguments but `plan` and `exclude`."""


@dataclass(frozen=True)
class Candidate:
    """A model that was written to `path`, and what its rules did."""

    model: Model
    trace: Trace
    path: Path

    def discard(self) -> None:
        """Removes its files."""
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()


@dataclass(frozen=True)
class Tapped:
    """The float model with the activations of its sites as outputs: `taps` are their names by those of the values."""

    candidate: Candidate
    sites: list[Site]
    taps: dict[str, str]


class Candidates:
    """Makes candidates in `folder`; `exclude` are sites of rules that were found guilty in the float model."""

    def __init__(self, rewrite: Rewrite, folder: Path, exclude: frozenset[SiteKey]) -> None:
        self._rewrite = rewrite
        self._folder = folder
        self._exclude = exclude
        self._count = 0

    def build(self, plan: Callable[[Model], Plan | None]) -> Candidate:
        """The model under `plan`, which is asked once, when the model is fused and not yet lowered."""
        model, trace = self._rewrite(exclude=self._exclude, plan=plan)
        path = self._folder / f"candidate{self._count}.onnx"
        self._count += 1
        save(model, path)
        return Candidate(model, trace, path)

    def tapped(
        self,
        *,
        embed: bool = False,
        more: Callable[[Model], list[str]] | None = None,
        change: Callable[[Model], object] | None = None,
    ) -> Tapped:
        """The float model, after `change`, with what calibration looks at as outputs; `more` names other values of the
        main graph."""
        sites: list[Site] = []
        taps: dict[str, str] = {}

        def tap(model: Model) -> None:
            if change is not None:
                change(model)
            untie(model)
            sites[:] = find_sites(model, embed=embed)
            # Indices into a table need no grid.
            names = [site.input for site in sites if not site.nested and site.op != "Gather"]
            for name in dict.fromkeys((*names, *(more(model) if more is not None else ()))):
                taps[name] = _output(model, name)

        candidate = self.build(tap)
        return Tapped(candidate, sites, taps)


def _output(model: Model, name: str) -> str:
    """Makes the value `name` of the main graph an output; returns the output's name."""
    graph = model.graph
    value = graph.names[name]
    if graph.is_output(value):
        return name
    if value.node.is_source:
        value = graph.add_op("Identity", [value], outputs=[f"{name}_tap"]).output
        value.dtype, value.shape = graph.names[name].dtype, graph.names[name].shape
    graph.add_slot(graph.output, value)
    return value.name
