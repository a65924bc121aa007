"""The first value at which two models differ in numbers: both run again, with taps on values that correspond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Final

from graphopt.errors import RuntimeCrash
from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.align import Couple
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.pair import CannotRun, Pair
from graphopt.verify.parts import part
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs

_TAPS: Final = 24
"""Values tapped in one run: what lies between the last that is equal and the first that is not is looked at again."""


def first_difference(
    runs: Runs, reference: Model, candidate: Model, couples: Sequence[Couple], feeds: Sequence[Feed], failed: int
) -> str:
    """The first of the `couples` that differ under the feed `failed`, in words; empty where none does.

    Those that differ under the first feed as well, where the outputs were equal, do not correspond after all.
    """
    found = ""
    while couples:
        step = -(-len(couples) // _TAPS)
        pieces = [couples[start : start + step] for start in range(0, len(couples), step)]
        try:
            wrong = _wrong(runs, reference, candidate, [piece[-1] for piece in pieces], feeds, failed)
        except (RunError, CannotRun, RuntimeCrash):
            return found
        first = next((piece for piece in pieces if piece[-1][0].name in wrong), None)
        if first is None:
            return found
        old, new = first[-1]
        found = f"'{old.name}' and '{new.name}'" if old.name != new.name else f"'{old.name}'"
        found = f"{found} ({old.node.op}), {wrong[old.name].reason}"
        couples = first[:-1]
    return found


def _wrong(
    runs: Runs, reference: Model, candidate: Model, couples: Sequence[Couple], feeds: Sequence[Feed], failed: int
) -> Mapping[str, Comparison]:
    """The couples that differ under the feed `failed` and not under the first, by the reference's names."""
    old = part(reference, [couple[0] for couple in couples], runs.weights, noisy=runs.data, seeds=runs.seeds)
    new = part(candidate, [couple[1] for couple in couples], runs.weights, seeds=runs.seeds)
    new.outputs = {a.name: new.outputs[b.name] for a, b in couples}
    with ExitStack() as stack:
        sessions = [stack.enter_context(closing(one.load(runs.runner, "the models, tapped"))) for one in (old, new)]

        def unequal(number: int) -> dict[str, Comparison]:
            feed = feeds[number]
            found = Pair(runs, *sessions).run(feed.label, feed.arrays, number)[1]
            return {name: one for name, one in found.items() if one.verdict == "unequal"}

        wrong = unequal(failed)
        before = unequal(0) if failed and wrong else {}
        return {name: one for name, one in wrong.items() if name not in before}
