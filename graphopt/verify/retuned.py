"""Operators that differ in attributes alone, side by side on values that no input may give.

Where two models are one graph, node for node and constant for constant, but for attributes, nothing can make up for
one that is wrong: an epsilon ten times as large does not show on inputs whose variance is always far above it, and is
another epsilon all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Final

from graphopt.ir import Model, Node
from graphopt.ir.infer import infer
from graphopt.runtime import Crash, RunError
from graphopt.verify.align import attributes_that_differ, describe
from graphopt.verify.failures.excerpt import excerpt
from graphopt.verify.inputs.variants import Variants
from graphopt.verify.numbers.measure import lost_numbers
from graphopt.verify.pair import CannotRun, Pair
from graphopt.verify.parts import part
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs
from graphopt.verify.tap import Tap

_MOST: Final = 8
"""Differences that are tried: layers of one make have the same one."""


def first_wrong(runs: Runs, reference: Model, retuned: Iterable[tuple[Node, Node]]) -> Comparison | None:
    """The first node of the `reference` whose partner in the candidate differs from it on some values, if one does."""
    kinds: dict[Any, tuple[Node, Node]] = {}
    for old, new in retuned:
        kinds.setdefault((old.op, repr(attributes_that_differ(old, new))), (old, new))
    found = (_compared(runs, reference, *pair) for pair in list(kinds.values())[:_MOST])
    return next((one for one in found if one is not None), None)


def _compared(runs: Runs, reference: Model, old: Node, new: Node) -> Comparison | None:
    """How `old` with the attributes of `new` is off, on what it reads and on variants of that; None where it is not."""
    names = list(dict.fromkeys(v.name for v in old.inputs if v is not None and v.resolved.tensor is None))
    differences = attributes_that_differ(old, new)
    before, after = (excerpt(old.outputs, names) for _ in range(2))
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
                    return replace(wrong, reason=_reason(old, differences, label, wrong.reason))
    except (RunError, CannotRun, Crash):
        return None
    return None


def _pair(runs: Runs, models: Sequence[Model], names: Sequence[str], stack: ExitStack) -> Pair:
    sessions = []
    for model in models:
        infer(model)
        one = part(model, model.graph.outputs, runs.weights, noisy=names)
        sessions.append(stack.enter_context(closing(one.load(runs.runner, "one operator"))))
    return Pair(runs, sessions[0], sessions[1:])


def _reason(node: Node, differences: Iterable[tuple[str, Any, Any]], label: str, off: str) -> str:
    what = ", ".join(f"{name} is {old} and {new}" for name, old, new in differences)
    return f"{describe(node)}: {what}; {off} on {label} of what it reads, though on no input that was tried"
