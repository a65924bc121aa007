"""Who calls which function of a model, how often, and what it would write to put all of them in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from graphopt.ir.graph import Graph
from graphopt.ir.model import FunctionKey, Model
from graphopt.ir.node import qualified
from graphopt.ir.schema import is_random
from graphopt.rewrite import Trace

Calls = Mapping[FunctionKey, int]
"""How often each function is called."""


def shown(key: FunctionKey) -> str:
    domain, op, overload = key
    return f"function {qualified(domain, op)}{':' if overload else ''}{overload}"


def calls_in(graph: Graph, model: Model) -> Counter[FunctionKey]:
    """How often each function is called in `graph` and its subgraphs."""
    if not model.functions:
        return Counter()
    keys = ((node.domain, node.op, node.overload) for scope in graph.scopes() for node in scope.ops())
    return Counter(key for key in keys if key in model.functions)


def reachable(used: Iterable[FunctionKey], called: Mapping[FunctionKey, Calls]) -> list[FunctionKey]:
    """`used`, and what they call, however deep, as far as `called` knows it."""
    found = dict.fromkeys(used)
    waiting = list(found)
    while waiting:
        new = [key for key in called.get(waiting.pop(), ()) if key not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return [key for key in found if key in called]


def _callers(called: Mapping[FunctionKey, Calls]) -> dict[FunctionKey, list[FunctionKey]]:
    """Which functions of `called` call each of them."""
    callers: dict[FunctionKey, list[FunctionKey]] = {key: [] for key in called}
    for key, calls in called.items():
        for inner in calls:
            if inner in callers:
                callers[inner].append(key)
    return callers


def drawing(model: Model, called: Mapping[FunctionKey, Calls]) -> set[FunctionKey]:
    """The functions that certainly draw, or call one that does."""
    callers = {key: dict.fromkeys(found, 1) for key, found in _callers(called).items()}
    return {*reachable([key for key, function in model.functions.items() if _draws(function.graph)], callers)}


def _draws(graph: Graph) -> bool:
    for node in (node for scope in graph.scopes() for node in scope.ops()):
        training = node.input(2) if node.is_op("Dropout") else None
        tensor = training.resolved.tensor if training is not None else None
        if is_random(node.domain, node.op) or (tensor is not None and tensor.size == 1 and tensor.item()):
            return True
    return False


def affordable(
    model: Model, used: Calls, called: Mapping[FunctionKey, Calls], budget: int, trace: Trace
) -> list[FunctionKey]:
    """Those of `called` that can be inlined together, the cheapest first."""
    sizes = _sizes(model, called, budget)
    left = dict.fromkeys([key for key in called if key not in sizes], "it calls itself, or one that does")
    costs = {key: size * used[key] for key, size in sizes.items() if key in used}
    spent = 0
    for key in sorted(costs, key=lambda key: (costs[key], key)):
        spent += costs[key]
        if spent > budget:
            left[key] = f"all calls together would write more than {budget:,} nodes"
    trace.left_out.update((shown(key), reason) for key, reason in left.items())
    inner = {key: called[key] for key in sizes if key not in left}
    return reachable([key for key in costs if key not in left], inner)


def _sizes(model: Model, called: Mapping[FunctionKey, Calls], limit: int) -> dict[FunctionKey, int]:
    """How many nodes a call of each becomes, or more than `limit`; without those that never end."""
    callers = _callers(called)
    waits = Counter(caller for found in callers.values() for caller in found)
    sizes: dict[FunctionKey, int] = {}
    ready = [key for key in called if not waits[key]]
    while ready:
        key = ready.pop()
        own = sum(1 for scope in model.functions[key].graph.scopes() for _ in scope.ops())
        size = own + sum(sizes[inner] * count for inner, count in called[key].items() if inner in sizes)
        # Twice as many at every level would soon be a number of a million digits.
        sizes[key] = min(size, limit + 1)
        for caller in callers[key]:
            waits[caller] -= 1
            if not waits[caller]:
                ready.append(caller)
    return sizes
