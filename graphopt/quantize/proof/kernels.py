"""Which node of onnxruntime's optimized graph computes a product of the written one.

The optimizer keeps most names, derives others from them (`w_T`, `MatMul_3/MatMulAddFusion`, `conv_token_1`), and makes
some up. So a product is looked for by the name of its node, then by that of its weights, then by the next value behind
it that is still there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from onnx import NodeProto

from graphopt.quantize.proof.products import Product, Products

_DELIMITERS = "_/."
_FAR = 12
"""How many nodes behind a product its next surviving value is looked for."""


@dataclass(frozen=True, eq=False)
class Computed:
    """The node that computes a product, with the product that it is in the optimized graph; None: none was found."""

    product: Product | None

    @property
    def node(self) -> NodeProto | None:
        return self.product.node if self.product is not None else None


def kernels_of(written: Products, made: Products) -> dict[Product, Computed]:
    """What computes each product of a written model in what the optimizer made of it."""
    found: dict[Product, Product] = {}
    for look in (_by_node, _by_weights, _by_values):
        missing = [product for product in written.all if product not in found]
        taken = set(found.values())
        found |= look(written, made, missing, [one for one in made.all if one not in taken])
    # Equal products are merged: one node computes several.
    missing = [product for product in written.all if product not in found]
    found |= _by_weights(written, made, missing, made.all)
    return {product: Computed(found.get(product)) for product in written.all}


def _by_node(written: Products, made: Products, missing: list[Product], free: list[Product]) -> dict[Product, Product]:
    names = {node.name for node, _ in written.nodes}
    origins: dict[str, Product] = {}
    for one in free:
        origins.setdefault(origin(one.node.name, names), one)
    return {product: origins[product.node.name] for product in missing if product.node.name in origins}


def _by_weights(
    written: Products, made: Products, missing: list[Product], free: list[Product]
) -> dict[Product, Product]:
    known = {name for node, _ in written.nodes for name in (*node.input, *node.output)}
    readers: dict[str, list[Product]] = {}
    for one in free:
        for name in {origin(weight, known) for weight in one.weights} - {""}:
            readers.setdefault(name, []).append(one)
    found: dict[Product, Product] = {}
    for product in missing:
        candidates = unique(one for name in product.weights for one in readers.get(name, ()))
        if len(candidates) > 1:
            behind = set(_behind(written, product))
            candidates = [one for one in candidates if behind & set(_behind(made, one))] or candidates
        if candidates:
            found[product] = candidates[0]
    return found


def _by_values(
    written: Products, made: Products, missing: list[Product], free: list[Product]
) -> dict[Product, Product]:
    values = {name for node, _ in written.nodes for name in node.output}
    # Convolutions in blocks of channels are called after the value that they, and what was fused with them, make.
    makers = {origin(maker.node.name, values): maker for maker in reversed(free)}
    for maker in free:
        for name in _behind(made, maker):
            makers.setdefault(name, maker)
    found: dict[Product, Product] = {}
    taken = set[Product]()
    for product in missing:
        one = next((makers[name] for name in _behind(written, product) if name in makers), None)
        if one is not None and one not in taken:
            taken.add(one)
            found[product] = one
    return found


def origin(name: str, known: Iterable[str]) -> str:
    """The longest of some known names from which an optimizer derived `name` by adding to its end; empty if none."""
    known = known if isinstance(known, set | frozenset | Mapping) else set(known)
    while name and name not in known:
        name = name[: max(name.rfind(delimiter) for delimiter in _DELIMITERS)] if _derived(name) else ""
    return name


def _derived(name: str) -> bool:
    return any(delimiter in name[1:] for delimiter in _DELIMITERS)


def _behind(products: Products, product: Product) -> Iterator[str]:
    """The values that a product makes and that are made from them, up to other products."""
    waiting, seen = list(product.node.output), set[str]()
    for name in waiting:
        if not name or name in seen or len(seen) > _FAR:
            continue
        seen.add(name)
        yield name
        readers = [node for node, _ in products.readers.get(name, ()) if id(node) not in products.of_node]
        waiting += [out for reader in readers for out in reader.output]


def unique(products: Iterable[Product]) -> list[Product]:
    return list(dict.fromkeys(products))
