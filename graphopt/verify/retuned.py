"""Operators that differ in one number alone, side by side on values that no input may give.

Where two models are one graph, node for node and constant for constant, but for a real attribute or an epsilon, nothing
can make up for it: an epsilon ten times as large does not show on inputs whose variance is always far above it, and is
another epsilon all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from graphopt.ir import Model, Node
from graphopt.ir.infer import infer
from graphopt.runtime import Crash, RunError
from graphopt.verify.align import attributes_that_differ, describe, epsilons
from graphopt.verify.failures.excerpt import excerpt
from graphopt.verify.inputs.variants import Variants
from graphopt.verify.numbers.measure import lost_numbers
from graphopt.verify.pair import CannotRun, Pair
from graphopt.verify.parts import part
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs
from graphopt.verify.tap import Tap


def first_wrong(runs: Runs, reference: Model, retuned: Iterable[tuple[Node, Node]]) -> Comparison | None:
    """The first node of the `reference` whose partner in the candidate differs from it on some values, if one does."""
    kinds = {(old.op, repr(_differences(old, new))): (old, new) for old, new in reversed(list(retuned))}
    if len(kinds) != 1:
        # Differences of two kinds may make up for one another.
        return None
    ((old, new),) = kinds.values()
    return _compared(runs, reference, old, new) if epsilons(old, new) is None else _told(old, new)


def _differences(old: Node, new: Node) -> list[tuple[str, Any, Any]]:
    """The numbers that differ: what they are called, in the one, in the other."""
    couple = epsilons(old, new)
    return attributes_that_differ(old, new) if couple is None else [("epsilon", *couple)]


def _told(old: Node, new: Node) -> Comparison:
    """That epsilons differ needs no run: they are all that is there where a row is constant."""
    reason = _reason(old, _differences(old, new), "another sum", "constant rows")
    return Comparison(old.outputs[0].name, "unequal", reason=reason)


def _compared(runs: Runs, reference: Model, old: Node, new: Node) -> Comparison | None:
    """How `old` with the attributes of `new` is off, on what it reads and on variants of that; None where it is not."""
    names = list(dict.fromkeys(v.name for v in old.inputs if v is not None and v.resolved.tensor is None))
    before, after = (excerpt(old.outputs, names) for _ in range(2))
    differences = attributes_that_differ(old, new)
    (node,) = after.graph.ops()
    for name, _, value in differences:
        after.graph.set_attr(node, name, value)
    try:
        with ExitStack() as stack:
            tap = stack.enter_context(closing(Tap(reference, names, runs)))
            feed = tap.feeds()[0]
            values = tap.values(feed, names)
            pair = _pair(runs, (before, after), names, stack)
            plain: Any = None
            for label, varied in Variants(runs.data).of(feed, values, first=True):
                given, found = pair.run(label, varied, 0)
                plain = plain or given
                if any(lost_numbers(plain[name], given[name]) for name in given):
                    continue
                wrong = next((one for one in found.values() if one.verdict == "unequal"), None)
                if wrong is not None:
                    return replace(wrong, reason=_reason(old, differences, wrong.reason, label))
    except (RunError, CannotRun, Crash):
        return None
    return None


def _pair(runs: Runs, models: Sequence[Model], names: Sequence[str], stack: ExitStack) -> Pair:
    sessions = []
    for model in models:
        infer(model)
        one = part(model, model.graph.outputs, runs.weights, noisy=names)
        sessions.append(stack.enter_context(closing(one.load(runs.runner, "one operator"))))
    return Pair(runs, *sessions)


def _reason(node: Node, differences: Iterable[tuple[str, Any, Any]], off: str, label: str) -> str:
    what = ", ".join(f"{name} is {old} and {new}" for name, old, new in differences)
    return f"{describe(node)}: {what}; {off} on {label} of what it reads, though on no input that was tried"
