"""How each site is computed at each level: grids from what was observed, weights rounded, computed once and shared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphopt.ir import Model, Value
from graphopt.ir.tensor import Array
from graphopt.quantize.cpu import Cpu
from graphopt.quantize.dialect import dialect_of
from graphopt.quantize.integer_paths import integer_paths
from graphopt.quantize.observe.histogram import Histogram
from graphopt.quantize.observe.observers import observed_range
from graphopt.quantize.observe.statistics import Statistics
from graphopt.quantize.rounding.correction import bias_correction, static_correction
from graphopt.quantize.rounding.smooth import ALPHAS, Products, Smoothing, search_smoothing
from graphopt.quantize.rounding.weights import dequantized, integers
from graphopt.quantize.search import Decision, Level
from graphopt.quantize.sites import Site, find_sites, key
from graphopt.quantize.untied import untie
from graphopt.rewrite import Grid, Integers, Recipe
from graphopt.rewrite.grids import activation_grid
from graphopt.rewrite.plan import Scheme

_SMOOTHED = ("MatMul", "Gemm")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_SCHEMES: dict[str, Scheme] = {"static": "static", "dynamic": "dynamic"}
"""The levels that round activations."""
_BYTES = 4
"""The accuracy level at which MatMulNBits multiplies bytes."""


@dataclass(frozen=True)
class Options:
    """What holds for all sites: the processor and the dialect, how ranges are observed, how weights are rounded
    (in weight-only schemes `block` of them share a scale), `smooth`: the exponent by which outliers of activations are
    moved into the weights, None to search for it, 0 to leave them, `correct`: whether what rounding takes away on
    average is added, `gptq`: whether what rounding a weight to 4 bits did is made good by others, where statistics have
    what that takes, `equalize`: whether the channels between convolutions are made alike, for which sites and
    statistics are those of the model so changed."""

    cpu: Cpu
    target: str = "ort-cpu"
    observer: str = "min-max"
    block: int = 32
    smooth: float | None = None
    correct: bool = True
    gptq: bool = True
    equalize: bool = False

    @property
    def signed(self) -> bool:
        """Whether activations are int8 around zero (see `Dialect`); processors have kernels of uint8, arm as well."""
        return dialect_of(self.target).signed


Smoothings = dict[tuple[str, str], Smoothing | None]
"""What smooths an activation, by its name and the level of the sites that read it."""


class Recipes:
    """The recipes of `sites` under one set of options; `statistics` are those of activations, by name. `smoothings` are
    those that were searched for before, by others with the same `smooth`, and are added to."""

    def __init__(
        self,
        sites: Sequence[Site],
        statistics: Mapping[str, Statistics],
        options: Options,
        smoothings: Smoothings | None = None,
    ) -> None:
        self.sites = {site.name: site for site in sites}
        self.options = options
        self._statistics = statistics
        self._readers: defaultdict[str, list[Site]] = defaultdict(list)
        for site in sites:
            self._readers[site.input].append(site)
        self._known: dict[tuple[str, Level], Recipe] = {}
        self._smoothing: Smoothings = {} if smoothings is None else smoothings
        self._grids: dict[str, Grid] = {}

    def plan(self, model: Model, decision: Decision) -> DecidedPlan:
        """The plan that computes each site of `model`, fused and not yet lowered, at the level of `decision`."""
        untie(model, {name for name, level in decision.items() if level != "float"})
        static = [site for site in find_sites(model) if decision.get(site.name) == "static"]
        images = any(site.op in _CONVOLUTIONS for site in static) and not self.options.signed
        paths = integer_paths(model, static) if images else ()
        return DecidedPlan(self, decision, frozenset(name for name in paths if not self._statistics[name].refused))

    def of(self, site: Site, level: Level) -> Recipe | None:
        """The recipe of one site at one level; None where it stays float."""
        if level == "float":
            return None
        if (site.name, level) not in self._known:
            self._known[site.name, level] = self._made(site, level)
        return self._known[site.name, level]

    def smoothing(self, site: Site, level: str) -> Smoothing | None:
        """By what the activation of a site is divided, which its other readers share; None where by nothing."""
        observed = self._statistics.get(site.input)
        if observed is None or self.options.smooth == 0 or site.op not in _SMOOTHED or level not in _SCHEMES:
            return None
        if (site.input, level) not in self._smoothing:
            self._smoothing[site.input, level] = self._searched(observed, site, _SCHEMES[level])
        return self._smoothing[site.input, level]

    def range(self, site: Site) -> tuple[float, float] | None:
        """The range of the grid on which a static site reads its activation; None where nothing was observed."""
        observed = self._statistics.get(site.input)
        if observed is None:
            return None
        return observed_range(_divided(observed, self.smoothing(site, "static")), self.options.observer)

    def grid(self, name: str) -> Grid:
        """The grid of an activation as it stands."""
        if name not in self._grids:
            self._grids[name] = self._observed(self._statistics[name])
        return self._grids[name]

    def _observed(self, observed: Statistics) -> Grid:
        return self._activation(*observed_range(observed, self.options.observer, symmetric=self.options.signed))

    def _activation(self, low: float, high: float) -> Grid:
        signed = self.options.signed
        return activation_grid(low, high, "int8" if signed else "uint8", symmetric=signed)

    def _searched(self, observed: Statistics, site: Site, scheme: Scheme) -> Smoothing | None:
        readers = [one for one in self._readers[site.input] if one.op in _SMOOTHED and not one.refusal]
        weights = [_matrix(one.weights.numpy(), one) for one in readers]
        # What finds its range at run time sees what is padding as well.
        low, high = (observed.low, observed.high) if scheme == "static" else observed.extremes
        products = Products(observed.rows, weights, low, high, scheme, grid=self._whole)
        found = search_smoothing(products, ALPHAS if self.options.smooth is None else (self.options.smooth,))
        return found if found.alpha is not None else None

    def _whole(self, low: Array, high: Array) -> Grid:
        return self._activation(float(low.min()), float(high.max()))

    def _made(self, site: Site, level: Level) -> Recipe:
        if level in ("weights8", "weights4"):
            return self._weights(site, 8 if level == "weights8" else 4)
        smoothing = self.smoothing(site, level)
        factors = smoothing.factors if smoothing is not None else None
        weights = self._channels(site, factors)
        observed = self._statistics.get(site.input)
        if level == "dynamic" or observed is None:
            bias = self._correction(site, weights, factors, None) if observed is not None else None
            return Recipe("dynamic", weights, smooth=factors, bias=bias)
        grid = self.grid(site.input) if smoothing is None else self._observed(_divided(observed, smoothing))
        bias = self._correction(site, weights, factors, grid)
        open_ = self.options.signed and site.op in _CONVOLUTIONS
        return Recipe("static", weights, input=grid, smooth=factors, bias=bias, open=open_)

    def _correction(self, site: Site, weights: Integers, factors: Array | None, grid: Grid | None) -> Array | None:
        """What rounding takes away on average: on a grid of the activation, or by the weights alone."""
        if not self.options.correct or site.op not in _SMOOTHED:
            return None
        observed = self._statistics[site.input]
        exact, found = _matrix(site.weights.numpy(), site), _matrix(dequantized(weights), site)
        if grid is not None:
            return static_correction(observed.rows, exact, found, grid, factors)
        by = 1.0 if factors is None else factors
        return bias_correction(observed.mean / by, (exact.T * by).T, found)

    def _channels(self, site: Site, factors: Array | None) -> Integers:
        # Without VNNI sums of two products overflow 16 bits unless weights have seven.
        bits = 7 if self.options.cpu == "x86" and not self.options.signed else 8
        return integers(site.weights, axis=site.channels, bits=bits, smooth=factors, name=site.weights_name)

    def _weights(self, site: Site, bits: int) -> Recipe:
        """Only the weights are integers; the kernel itself rounds blocks of activations to bytes."""
        if site.op not in _SMOOTHED:
            return Recipe("weights", integers(site.weights, axis=site.channels, name=site.weights_name))
        signed = self.options.signed
        if signed and bits == 8:
            return Recipe("weights", self._channels(site, None))
        observed = self._statistics.get(site.input)
        gram = observed.gram if observed is not None and bits == 4 and self.options.gptq else None
        made = integers(
            site.weights,
            axis=site.axis,
            bits=bits,
            block=self.options.block,
            symmetric=bits == 8 or signed,
            method="gptq" if gram is not None else "search" if bits == 4 else "nearest",
            gram=gram,
            count=observed.count if observed is not None else 0,
            name=site.weights_name,
        )
        return Recipe("weights", made, accuracy_level=_BYTES)


@dataclass(frozen=True)
class DecidedPlan:
    """A `rewrite.Plan`: each site as `decision` says; the activations `kept` stay integer between two operators."""

    recipes: Recipes
    decision: Decision
    kept: frozenset[str]

    def recipe(self, root: Value) -> Recipe | None:
        site = self.recipes.sites.get(key(root))
        return self.recipes.of(site, self.decision.get(site.name, "float")) if site is not None else None

    def grid(self, value: Value) -> Grid | None:
        name = key(value)
        return self.recipes.grid(name) if name in self.kept else None


def _divided(observed: Statistics, smoothing: Smoothing | None) -> Statistics:
    """The statistics of an activation whose channels are divided by the factors of `smoothing`.

    The distribution is that of the sampled rows: no more is known of how the channels come together.
    """
    if smoothing is None:
        return observed
    factors = smoothing.factors
    rows = observed.rows / factors
    return replace(
        observed,
        low=observed.low / factors,
        high=observed.high / factors,
        total=observed.total / factors,
        rows=rows,
        histogram=Histogram.of(rows),
        gram=None,
    )


def _matrix(weights: Array, site: Site) -> Array:
    """Weights of a product as (K, N)."""
    return weights.T if site.axis == 1 else weights
