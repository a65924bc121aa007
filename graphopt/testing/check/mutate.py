"""Graphs one step away from an instance: what a rule that forgets a condition takes for its pattern.

A mutant need not differ in meaning: whatever a rule makes of it must compute what the mutant does.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.ir import IR_DOMAIN, Graph, Model, Node, Tensor, Value, dtypes
from graphopt.ir.schema import signature
from graphopt.ir.text.constants import seeded
from graphopt.rewrite.facts import close
from graphopt.rewrite.leaves import COMMUTATIVE
from graphopt.testing.check.shapes import likely

_LISTED = 4


@dataclass(frozen=True)
class Mutation:
    """One change of a graph: the generator it belongs to, what it does in words, and the change itself."""

    generator: str
    what: str
    apply: Callable[[], None]


def mutations(model: Model) -> list[Mutation]:
    """All mutations of `model`, in an order that is the same for equal models."""
    graph = model.graph
    constants = [value for node in [*graph.sources("Constant"), *graph.ops()] for value in node.outputs if value.tensor]
    inner = [
        v for node in graph.ops() if node.op != "Constant" for v in node.outputs if v.uses and not graph.is_output(v)
    ]
    found: list[Mutation] = []
    for value in constants:
        found += _numbers(graph, value)
        found += _made_input(graph, value)
    for value in [*constants, *(node.output for node in graph.inputs)]:
        found += _shapes(graph, value)
    for node in graph.ops():
        found += _swaps(graph, node)
        found += _parted(graph, node)
        found += _attributes(graph, node)
    for value in inner:
        found += _seen(graph, value)
    return found


# ---- constants -----------------------------------------------------------------------------------------------------


def _numbers(graph: Graph, value: Value) -> Iterator[Mutation]:
    tensor = value.tensor
    assert tensor is not None
    if tensor.dtype == dtypes.INT64 and tensor.size <= _LISTED:
        yield from _integers(graph, value, tensor)
    if tensor.dtype not in dtypes.FLOATS or tensor.size != 1:
        return
    number = float(tensor.item())
    for other in dict.fromkeys([number * 1.1, number + 1, -number, number * 1.001, 0.0, 2.0, 3.0]):
        if np.isfinite(other) and not close(number, other, tensor.dtype):
            yield _constant(graph, value, "numbers", f"{number:g} is {other:g}", np.full(tensor.shape, other))


def _integers(graph: Graph, value: Value, tensor: Tensor) -> Iterator[Mutation]:
    elements = tensor.numpy().reshape(-1).tolist()
    others = [[e + step for e in elements] for step in (1, -1)] + [elements[::-1], elements[:-1]]
    for other in others:
        if other and other != elements:
            yield _constant(graph, value, "axes", f"{elements} is {other}", np.asarray(other, np.int64))


def _constant(graph: Graph, value: Value, generator: str, what: str, data: object) -> Mutation:
    return Mutation(generator, what, lambda: _put(graph, value, Tensor.of(data, value.dtype)))


def _put(graph: Graph, value: Value, data: Tensor) -> None:
    graph.replace(value, graph.add_constant(data, "mutant"))


def _made_input(graph: Graph, value: Value) -> Iterator[Mutation]:
    tensor = value.tensor
    if tensor is None or tensor.dtype not in dtypes.FLOATS:
        return
    for what, default in (("an input", None), ("an initializer that a caller may override", tensor)):

        def apply(default: Tensor | None = default) -> None:
            name = graph.ledger.fresh("given")
            graph.replace(value, graph.add_input(name, tensor.dtype, tensor.shape, default))

        yield Mutation("inputs", f"{value.name} is {what}", apply)


def _shapes(graph: Graph, value: Value) -> Iterator[Mutation]:
    """Another shape: one that broadcasts another way, or raises the rank."""
    if value.shape is None or value.dtype not in dtypes.FLOATS:
        return
    shape = value.shape
    others = [(1, 1, 1, 1), (*shape, 1), (1, *shape), (*shape[:-1], 1), (*shape, *shape[-1:]), shape[1:], shape[:-1]]
    others += [shape[::-1], (1,) * len(shape), ()]
    number = value.tensor.numpy().reshape(-1)[:1] if value.tensor is not None and value.tensor.size == 1 else None
    for other in dict.fromkeys(others):
        if other == shape or (number is not None and set(other) - {1}):
            continue
        sizes = tuple(size for size in other if isinstance(size, int))
        if value.tensor is not None and len(sizes) < len(other):
            continue

        def apply(other: tuple[object, ...] = other, sizes: tuple[int, ...] = sizes) -> None:
            if number is not None:
                _put(graph, value, Tensor.of(number.reshape(sizes)))
            elif value.tensor is not None:
                _put(graph, value, seeded(value.dtype, sizes, 7))
            else:
                graph.set_type(value, value.dtype, other)  # type: ignore[arg-type]

        generator = "shapes" if len(other) == len(shape) else "ranks"
        yield Mutation(generator, f"{value.name} has shape {list(other)} instead of {list(shape)}", apply)


# ---- operations ----------------------------------------------------------------------------------------------------


def _swaps(graph: Graph, node: Node) -> Iterator[Mutation]:
    if node.op in COMMUTATIVE:
        return
    for a, b in itertools.combinations(range(node.arity), 2):
        x, y = node.inputs[a], node.inputs[b]
        if x is None or y is None or x is y or x.dtype != y.dtype or (node.domain == IR_DOMAIN and x.shape != y.shape):
            continue

        def apply(a: int = a, b: int = b, x: Value = x, y: Value = y) -> None:
            graph.set_input(node, a, y)
            graph.set_input(node, b, x)

        yield Mutation("swaps", f"operands {a} and {b} of {node.op} are swapped", apply)


def _parted(graph: Graph, node: Node) -> Iterator[Mutation]:
    """One of several readers of a value reads another one."""
    for slot in range(node.arity):
        value = node.inputs[slot]
        if value is None or value.uses < 2 or value.dtype not in dtypes.FLOATS or value.shape is None:
            continue

        def apply(slot: int = slot, value: Value = value) -> None:
            other = graph.add_input(graph.ledger.fresh("other"), value.dtype, value.shape)
            graph.set_input(node, slot, other)

        yield Mutation("parted", f"operand {slot} of {node.op} is not {value.name} but another value", apply)


def _attributes(graph: Graph, node: Node) -> Iterator[Mutation]:
    known = signature(node.domain, node.op, node.version)
    names = dict.fromkeys([*node.attrs, *(known.attributes if known else ())])
    # It concerns float8 only, and onnxruntime takes it elsewhere or not as it likes.
    names.pop("saturate", None)
    for name in names:
        now = node.attr(name)
        for other in _others(name, now):
            if other != now:
                generator = "axes" if name in ("axis", "axes", "perm") else "attributes"
                what = f"{name} of {node.op} is {other} instead of {now}"
                yield Mutation(generator, what, functools.partial(graph.set_attr, node, name, other))


def _others(name: str, now: object) -> list[object]:
    match now:
        case list() if now and all(isinstance(item, int) for item in now):
            shifted = [(item + 1) % len(now) for item in now] if name == "perm" else [item - 1 for item in now]
            return [now[::-1], shifted, [*now[1:], *now[:1]]]
        case int() if name in ("axis", "axes"):
            return [0, 1, -1, -2]
        case int() if name == "to":
            return [dtypes.FLOAT, dtypes.FLOAT16, dtypes.DOUBLE]
        case int():
            return [1 - now] if now in (0, 1) else [now + 1]
        case float():
            return [now * 1.1, now + 1]
    return list(likely(name, now))


# ---- values that somebody else sees --------------------------------------------------------------------------------


def _seen(graph: Graph, value: Value) -> Iterator[Mutation]:
    yield Mutation("outputs", f"{value.name} is also an output", lambda: _add_output(graph, value))
    yield Mutation("reused", f"{value.name} is also read by another node", lambda: _reuse(graph, value))
    yield Mutation("captured", f"{value.name} is captured by an If", lambda: _capture(graph, value))


def _add_output(graph: Graph, value: Value) -> None:
    graph.add_slot(graph.output, value)


def _reuse(graph: Graph, value: Value) -> None:
    _add_output(graph, graph.add_op("Identity", [graph.add_op("Identity", [value]).output]).output)


def _capture(graph: Graph, value: Value) -> None:
    condition = graph.add_input(graph.ledger.fresh("condition"), dtypes.BOOL, ())
    node = graph.add_op("If", [condition])
    node.graphs = {name: [Graph(graph.ledger, node)] for name in ("then_branch", "else_branch")}
    for branch in node.subgraphs:
        branch.add_slot(branch.output, branch.add_op("Identity", [branch.capture(value)]).output)
    _add_output(graph, node.output)
