"""Functions of the model: what is computed stands where it is called, so that rules see across."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from graphopt.ir.attributes import decode_one
from graphopt.ir.model import Function, FunctionKey, Model, canonical_domain
from graphopt.ir.node import Node, Value
from graphopt.ir.schema import MICROSOFT, signature
from graphopt.passes.expand import Body, expand
from graphopt.passes.function_calls import Calls, affordable, calls_in, drawing, reachable, shown
from graphopt.passes.function_opset import adapt, refusal
from graphopt.passes.hold_trained import training_nodes
from graphopt.rewrite import Trace
from graphopt.rewrite.engine import SiteKey

_NAME: Final = "inline_functions"
_BUDGET: Final = 200_000
_RANDOM: Final = "it draws random numbers, and a value without a name in the original cannot be checked"


def inline_functions(
    model: Model,
    trace: Trace,
    *,
    stays: Callable[[str, str], bool] = lambda domain, op: False,
    exclude: Collection[SiteKey] = frozenset(),
    budget: int = _BUDGET,
) -> int:
    """Puts the bodies of functions in place of their calls; returns how many calls went.

        h = my.Scale(x, by=2.0)                   h = Mul(x, 2.0)
        y = Relu(h)                        →      y = Relu(h)
        my.Scale(a, by=@) { Mul(a, @by) }

    `stays(domain, op)` says which operators are to stay; those with a schema do as well: onnxruntime runs its own
    kernel where there is one, whatever the function says. What else stays, and why, stands in `trace.left_out`: bodies
    whose opset the model's cannot stand for, functions that draw random numbers, or call themselves, or take subgraphs
    as arguments, or whose calls would write more than `budget` nodes. `exclude` names sites that stay. Functions that
    nobody calls then go.
    """
    called = {key: calls_in(function.graph, model) for key, function in model.functions.items()}
    used = calls_in(model.graph, model)
    # A call that stays must find the body that it had.
    adaptable = not any(name == _NAME for name, _ in exclude)
    random = drawing(model, called)
    plan = []
    for key in reachable(used, called):
        domain, op, _ = key
        if not stays(domain, op) and domain != MICROSOFT and signature(domain, op, model.opsets.get(domain, 1)) is None:
            reason = _RANDOM if key in random else refusal(model, model.functions[key], adaptable)
            if reason is None:
                plan.append(key)
            else:
                trace.left_out[shown(key)] = reason
    chosen = affordable(model, used, {key: called[key] for key in plan}, budget, trace)
    for key in chosen:
        adapt(model, model.functions[key])
    inlined = _expand(model, chosen, trace, exclude)
    if inlined:
        _remove_uncalled(model, called)
    return inlined


def _expand(model: Model, chosen: Iterable[FunctionKey], trace: Trace, exclude: Collection[SiteKey]) -> int:
    functions = {key: model.functions[key] for key in chosen}
    prefixes: set[str] = set()

    def body_of(node: Node) -> Body | None:
        function = functions.get((node.domain, node.op, node.overload))
        if function is None or not _fits(node, function):
            return None
        defaults = {a.name: decode_one(a, model.base) for a in function.proto.attribute_proto}
        prefix = node.label if node.label not in prefixes else node.output.name
        prefixes.add(prefix)
        return Body(function.graph, _given(node, function), defaults | node.attrs, prefix)

    return sum(expand(graph, _NAME, body_of, trace, exclude) for graph in model.graph.scopes()) if functions else 0


def _given(node: Node, function: Function) -> dict[Value, Value | None]:
    return {port.output: node.input(slot) for slot, port in enumerate(function.graph.inputs)}


def _fits(node: Node, function: Function) -> bool:
    """Whether a call has what the function asks for; an output that is an operand left out is nothing."""
    ports, outputs = function.graph.inputs, function.graph.outputs
    if node.graphs or not node.outputs or node.arity > len(ports) or len(node.outputs) > len(outputs):
        return False
    given = _given(node, function)
    return all(given.get(output, value) is not None for value, output in zip(node.outputs, outputs, strict=False))


def _remove_uncalled(model: Model, called: Mapping[FunctionKey, Calls]) -> None:
    """Removes the functions that nobody calls, and the imports that only they needed."""
    trained = {(canonical_domain(n.domain), n.op_type, n.overload) for n in training_nodes(model.proto)}
    kept = {*reachable([*calls_in(model.graph, model), *(trained & called.keys())], called)}
    gone = [key for key in model.functions if key not in kept]
    for key in gone:
        del model.functions[key]
    needed = {node.domain for graph in model.scopes() for node in graph.ops()} | {domain for domain, *_ in trained}
    for domain in {key[0] for key in gone} - needed - {""}:
        model.opsets.pop(domain, None)
