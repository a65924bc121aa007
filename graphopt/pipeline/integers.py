"""Quantization to integers: what is asked for, what there is to choose from, and what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from graphopt.errors import UsageError, near
from graphopt.ir import Model
from graphopt.ir.tensor import Array
from graphopt.pipeline.candidates import Candidates
from graphopt.pipeline.decision import Decider, Equalized
from graphopt.pipeline.workspace import CONVOLUTIONS, Outcome, Workspace, nothing, stamp
from graphopt.quantize.cpu import Cpu
from graphopt.quantize.dialect import dialect_of
from graphopt.quantize.integer_paths import integer_paths
from graphopt.quantize.levels import Choice, Mode, asked, choice, within
from graphopt.quantize.observe.statistics import Statistics
from graphopt.quantize.proof.prove import INTEGER
from graphopt.quantize.recipes import Options
from graphopt.quantize.rounding.equalize import equalize
from graphopt.quantize.search import Decision, Level
from graphopt.quantize.sites import Site, find_sites, matching

_MUCH = 0.1
"""The share of a model's constants from which on tables are worth a word."""
LEVELS: tuple[Level, ...] = ("static", "dynamic", "weights8", "weights4", "float")
_UNEVEN = 4
"""How much further than another a channel reaches where the two are made alike."""

_OF_INTEGERS = {*INTEGER, "DequantizeLinear", "MatMulNBits"}


@dataclass(frozen=True)
class Request:
    """What is asked for, in the words of `quantize`."""

    mode: Mode
    cpu: Cpu
    target: str
    bits: Literal[4, 8] = 8
    block: int = 32
    smooth: float | Literal["auto", "off"] = "auto"
    observer: str | None = None
    schemes: Mapping[str, Level] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    embed: bool = False
    max_drop: float | None = None

    @property
    def options(self) -> Options:
        """What holds for all sites, where the model's output is not to decide."""
        alpha = None if self.smooth == "auto" else 0.0 if self.smooth == "off" else float(self.smooth)
        return Options(self.cpu, self.target, observer=self.observer or "min-max", block=self.block, smooth=alpha)

    @property
    def free(self) -> frozenset[str]:
        """The options that the model's output decides."""
        unsaid = {"observer": self.observer is None, "smooth": self.smooth == "auto", "correct": True}
        return frozenset(name for name, free in unsaid.items() if free)


def integers(workspace: Workspace, candidates: Candidates, request: Request) -> Outcome:
    """The quantized model. Raises: UnequalError GO146 where no product can be quantized, UsageError as `_fixed`."""
    tapped = candidates.tapped(embed=request.embed, more=_between)
    sites = tapped.sites
    if all(site.refusal for site in sites):
        if _has_integers(workspace.original):
            final = candidates.build(partial(stamp, mode=request.mode))
            return Outcome(final, sites, {}, notes=("its products are integers already, and stay what they are",))
        raise nothing(_refused(site.refusal for site in sites))
    data, options, free = workspace.samples.calibration, request.options, request.free
    if data is None and request.mode == "dynamic":
        # Which channels are large is in the weights: made up inputs tell. What is lost on average they do not.
        data, options, free = workspace.samples.search, replace(options, correct=False), free - {"correct"}
    statistics = workspace.statistics(tapped, data, gram=request.bits == 4) if data is not None else {}
    fixed = _fixed(sites, request)
    choices = _choices(sites, request, statistics, fixed)
    fixed = {name: choices[name].levels[0] for name in fixed}
    decider = Decider(
        candidates,
        workspace.evaluator,
        workspace.metric,
        workspace.samples,
        sites,
        statistics,
        options,
        free,
        partial(stamp, mode=request.mode),
        workspace.progress,
        _equalized(workspace, candidates, request, sites, statistics),
    )
    notes = _tables(workspace.original) if not request.embed else ()
    with workspace.watch("search"):
        decided = decider.decide(request.mode, choices, fixed, request.max_drop)
        final = decider.build(decided.recipes, decided.found.decision)
    return Outcome(
        final,
        tuple(decided.recipes.sites.values()),
        schemes=decided.found.decision,
        reasons={name: one.reason or _searched(decided.found.decision[name]) for name, one in choices.items()},
        groups={name: group.name for group in decided.groups for name in group.sites},
        sensitivity=decided.found.sensitivity,
        score=decided.score,
        steps=decided.steps,
        recipes=decided.recipes,
        notes=notes,
    )


def _tables(model: Model) -> tuple[str, ...]:
    """What embedding tables take that stay float32, where that is much."""
    tables = [site for site in find_sites(model, embed=True) if site.op == "Gather" and not site.refusal]
    size = sum({id(site.weights): site.weights.nbytes for site in tables}.values())
    whole = sum(node.data.nbytes for scope in model.scopes() for node in scope.sources("Constant") if node.data)
    if size < _MUCH * whole:
        return ()
    return (f"embedding tables, {size / whole:.0%} of the weights, stay float32: --embed makes bytes of them",)


def _has_integers(model: Model) -> bool:
    """Whether products of it are of integers already, as those of a model that was trained with quantization."""
    return any(node.op in _OF_INTEGERS for graph in model.scopes() for node in graph.ops())


def _searched(level: Level) -> str:
    return "the model loses less with it in floats" if level == "float" else ""


def _equalized(
    workspace: Workspace,
    candidates: Candidates,
    request: Request,
    sites: Sequence[Site],
    statistics: Mapping[str, Statistics],
) -> Equalized | None:
    """The model with channels between convolutions made alike; None where they are, or nothing may be changed."""
    images = {site.input for site in sites if site.op in CONVOLUTIONS and not site.refusal}
    reach = {name: np.maximum(np.abs(found.low), np.abs(found.high)) for name, found in statistics.items()}
    if workspace.samples.calibration is None or not any(_are_uneven(reach[name]) for name in images & reach.keys()):
        return None
    changed: list[str] = []

    def change(model: Model) -> None:
        changed[:] = equalize(model, reach)

    tapped = candidates.tapped(embed=request.embed, more=_between, change=change)
    if not changed:
        tapped.candidate.discard()
        return None
    found = workspace.statistics(tapped, workspace.samples.calibration, gram=request.bits == 4)
    return Equalized(tapped.sites, found, change)


def _are_uneven(reach: Array) -> bool:
    """Whether some channels reach much further than others."""
    there = reach[reach > 0]
    return there.size > 1 and bool(there.max() > _UNEVEN * there.min())


def _between(model: Model) -> list[str]:
    """The activations that may stay integer between convolutions."""
    images = [site for site in find_sites(model) if not site.refusal]
    return sorted(integer_paths(model, images)) if any(site.op in CONVOLUTIONS for site in images) else []


def _fixed(sites: Sequence[Site], request: Request) -> dict[str, Level]:
    """The sites whose level is said. Raises: UsageError GO141 for a pattern that matches none, GO148 for a level."""
    fixed: dict[str, Level] = {}
    for pattern, level in request.schemes.items():
        if level not in LEVELS:
            raise UsageError("GO148", f"no scheme is called '{level}'", "--scheme", near(level, LEVELS))
        fixed |= dict.fromkeys(matching(sites, [pattern]), level)
    fixed |= dict.fromkeys(matching(sites, request.exclude), "float")
    return fixed


def _choices(
    sites: Sequence[Site], request: Request, statistics: Mapping[str, Statistics], fixed: Decision
) -> dict[str, Choice]:
    """What each site may become. Raises: UnequalError GO146 where all stay float."""

    def refused(name: str) -> str | None:
        return statistics[name].refused if name in statistics else None

    found = {site.name: choice(site, request.mode, request.bits, refused) for site in sites}
    broken = [site for site in sites if not site.refusal and not site.is_finite]
    found |= {site.name: asked(site, fixed[site.name], refused) for site in sites if site.name in fixed}
    found |= {site.name: Choice(("float",), "its weights hold NaN or infinities") for site in broken}
    dialect = dialect_of(request.target)
    found = {site.name: within(found[site.name], site, dialect) for site in sites}
    if all(one.levels == ("float",) for one in found.values()):
        raise nothing(_refused(one.reason for one in found.values()))
    return found


def _refused(reasons: Iterable[str]) -> str:
    return "; ".join(sorted({*reasons} - {""})) or "the model has no product with constant float weights"
