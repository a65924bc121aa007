"""Which kernel really runs each product with constant weights: of the optimized graph, with its time from a profile.

    with Runner() as runner:
        proof = prove(runner, model, [Planned("y", "MatMul", "w", "static")], feeds=[feed])
    proof.share                  # of all products with constant weights, planned or not

What a written model says is no proof: onnxruntime decides at load which QuantizeLinear and DequantizeLinear become
integer kernels, and says nothing where it leaves a product of floats behind them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import inliner

from graphopt.quantize.proof.kernels import Computed, kernels_of
from graphopt.quantize.proof.products import TABLES, Product, Products, number, subgraphs
from graphopt.quantize.proof.unfused import why_float
from graphopt.runtime import External, Runner

Kind = Literal["integer", "weights", "float", "unknown"]
"""`integer`: integers are multiplied, with kernels of their own; `weights`: the weights are integers, blocks of the
activation are rounded inside the kernel or not at all; `float`; `unknown`: no node was found that computes it."""

INTEGER = {
    *("MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QAttention"),
    *("QLinearConv", "QLinearConvTranspose", "ConvInteger", "DynamicQuantizeLSTM"),
}
"""Kernels of integers, in any domain."""

_NUMBER = re.compile(r"_\d+$")
"""What tells copies of weights apart."""
_BYTES = 4
"""The accuracy level from which MatMulNBits multiplies bytes: it rounds blocks of the activation itself."""


@dataclass(frozen=True)
class Planned:
    """A product that is to run on integers.

    `name` is that of the value in which it ends, behind the names of what holds its scope; `op` and `weight`, the name
    of its weights, are those of the float model; `scheme` is `static`, `dynamic`, `weights`, or empty for one that is
    to stay float. Where the written model has no such value, `ends` are those made from it in turn.
    """

    name: str
    op: str
    weight: str
    scheme: str
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """What became of one product. `scheme` is empty for one that was not planned.

    `kernel` is the operator that runs it, with its domain unless standard; empty where none was found. `micros` are
    microseconds for each run of the profile, None where it did not run. `reason` says why it is not as planned, or what
    else there is to know.
    """

    name: str
    op: str
    weight: str
    scheme: str
    kernel: str
    kind: Kind
    reason: str = ""
    micros: float | None = None

    @property
    def integer(self) -> bool:
        """Whether it runs on integers as it was planned: of a scheme for activations, weights alone do not count."""
        return self.kind == "integer" or (self.kind == "weights" and self.scheme in ("weights", ""))


@dataclass(frozen=True)
class Proof:
    """What became of every product with constant weights: of those planned, in their order, and then of the others."""

    runs: tuple[Run, ...]

    @property
    def planned(self) -> int:
        return sum(bool(run.scheme) for run in self.runs)

    @property
    def running(self) -> int:
        """How many of the planned ones run as planned."""
        return sum(run.integer for run in self.runs if run.scheme)

    @property
    def all(self) -> int:
        """How many products with constant weights there are; tables are none."""
        return len(self.products)

    @property
    def share(self) -> float:
        """Of all products with constant weights, those on integers; 0 where there are none."""
        return sum(run.integer for run in self.products) / max(1, self.all)

    @property
    def unfused(self) -> tuple[Run, ...]:
        """The planned ones that do not run as planned, with their reasons."""
        return tuple(run for run in self.runs if run.scheme and not run.integer)

    @property
    def products(self) -> tuple[Run, ...]:
        """What became of products, without tables."""
        return tuple(run for run in self.runs if run.op not in TABLES)


def prove(
    runner: Runner,
    model: bytes | Path,
    sites: Sequence[Planned],
    *,
    feeds: Iterable[Mapping[str, Any]] = (),
    external: Mapping[str, External | Any] | None = None,
    base: Path | None = None,
    entries: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Proof:
    """What runs each product of a written model in onnxruntime's default session. `feeds` are run once each for times.

    `model`, `external`, `base` and `entries` are those of `Runner.load`. Raises: what that, and running, raises.
    """
    proto, base = _named(model, base)
    written = Products(proto)
    options: dict[str, Any] = {"external": external, "base": base, "entries": entries, "threads": threads}
    runs = list(feeds)
    with runner.load(
        proto.SerializeToString(), optimize=True, profile=bool(runs), written=True, name=str(_label(model)), **options
    ) as session:
        made = onnx.ModelProto.FromString(session.optimized())
        for feed in runs:
            session.run(feed)
        micros: dict[tuple[str, str], float] = {}
        for kernel in session.kernels() if runs else ():
            micros[kernel.node, kernel.op] = micros.get((kernel.node, kernel.op), 0.0) + kernel.micros / len(runs)
    computed = kernels_of(written, Products(made))
    return _proof(written, computed, sites, micros, bool(runs))


def _named(model: bytes | Path, base: Path | None) -> tuple[onnx.ModelProto, Path | None]:
    """A model whose nodes have names of their own, by which profiles call them, and the folder of its weights."""
    if isinstance(model, bytes):
        proto = onnx.ModelProto.FromString(model)
    else:
        proto, base = onnx.load(model, load_external_data=False), base or model.absolute().parent
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    taken: set[str] = set()
    graphs = [proto.graph]
    for graph in graphs:
        for node in graph.node:
            if not node.name or node.name in taken:
                node.name = f"{node.op_type}.{len(taken)}"
            taken.add(node.name)
            graphs += subgraphs(node)
    return proto, base


def _label(model: bytes | Path) -> str:
    return "the quantized model" if isinstance(model, bytes) else str(model)


def _proof(
    written: Products,
    computed: Mapping[Product, Computed],
    sites: Sequence[Planned],
    micros: Mapping[tuple[str, str], float],
    timed: bool,
) -> Proof:
    runs, places = [], _places(written, sites)
    for site in sites:
        product = places.get(site)
        if product is None:
            text = "the written model has no product with constant weights that ends in this value"
            runs.append(Run(site.name, site.op, site.weight, site.scheme, "", "unknown", text))
        else:
            runs.append(_run(written, product, computed[product], site, micros, timed))
    taken = set(places.values())
    for product in written.all:
        if product not in taken:
            own = Planned(product.name, product.node.op_type, product.weights[-1], "")
            runs.append(_run(written, product, computed[product], own, micros, timed))
    return Proof(tuple(runs))


def _places(written: Products, sites: Sequence[Planned]) -> dict[Planned, Product]:
    """The products with planned weights, and those that end in planned values: they make them, or are behind scales and
    biases.

    What a value itself ends is nobody else's: those are looked for first, and then those that end further on.
    """
    found: dict[Planned, Product] = {}
    taken = set[Product]()
    readers = Counter(site.weight for site in sites)
    exact, alike = _by_weights(written.all)
    for site in sites:
        named = exact.get(site.weight, [])
        # Of weights that several products read, each may have integers of its own, under names of their own.
        if len(named) == 1 and readers[site.weight] == 1:
            found[site] = named[0]
            taken.add(named[0])
    for step in range(1 + max((len(site.ends) for site in sites), default=0)):
        for site in sites:
            names = (site.name, *site.ends)
            if site in found or step >= len(names):
                continue
            product = written.behind(names[step])
            if product is not None and product not in taken:
                found[site] = product
                taken.add(product)
    for site in sites:
        # What is left, in the order of the graph: a value that smoothing divides has another name.
        product = next((one for one in alike.get(site.weight, ()) if one not in taken), None)
        if site not in found and product is not None:
            found[site] = product
            taken.add(product)
    return found


def _by_weights(products: Iterable[Product]) -> tuple[dict[str, list[Product]], dict[str, list[Product]]]:
    """Products by the names of their weights, and by those and what is left of them without a number at their end."""
    exact: defaultdict[str, list[Product]] = defaultdict(list)
    alike: defaultdict[str, list[Product]] = defaultdict(list)
    for product in products:
        for name in dict.fromkeys(product.weights):
            exact[name].append(product)
        for stem in dict.fromkeys(part for name in product.weights for part in (name, _NUMBER.sub("", name))):
            alike[stem].append(product)
    return exact, alike


def _run(
    written: Products,
    product: Product,
    found: Computed,
    site: Planned,
    micros: Mapping[tuple[str, str], float],
    timed: bool,
) -> Run:
    if found.product is None:
        text = "no node of the optimized graph computes it: it was folded, or merged with another"
        return Run(site.name, site.op, site.weight, site.scheme, "", "unknown", text)
    node, kind = found.product.node, _kind(found.product)
    taken = micros.get((node.name, node.op_type))
    reasons = []
    if kind == "float" and not site.scheme:
        reasons.append("not planned")
    elif kind == "float":
        reasons.append(f"stays float: {why_float(written, product, found, site.scheme)}")
    elif kind == "weights" and site.scheme in ("static", "dynamic"):
        reasons.append(f"only its weights are integers: {why_float(written, product, found, site.scheme)}")
    elif node.op_type == "MatMulNBits":
        level = number(node, "accuracy_level", 0)
        reasons.append("multiplies bytes" if level == _BYTES else "multiplies floats")
    if timed and taken is None:
        reasons.append("did not run on these inputs")
    kernel = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return Run(site.name, site.op, site.weight, site.scheme, kernel, kind, "; ".join(reasons), taken)


def _kind(made: Product) -> Kind:
    op = made.node.op_type
    if op in INTEGER:
        return "integer"
    # A table is read as it is, or dequantized as a whole in each run.
    return "weights" if op == "MatMulNBits" or (op in TABLES and len(made.weights) == 1) else "float"
