"""The original's part and the candidate's, side by side: run on the same values, compared, and the floor measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Final, Literal

from graphopt.runtime import Crash, RunError
from graphopt.verify.doubled import pruned, run_doubled
from graphopt.verify.numbers.measure import compare
from graphopt.verify.numbers.tolerance import K
from graphopt.verify.parts import Runnable
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs

Values = Mapping[str, Any]
Side = Literal["original", "candidate"]

SETTLED = K
"""What agrees up to so many of the least floors needs none that is measured: that takes more runs than to compare."""

OVERTIME: Final = "GO052"

_THREADS: Final = 2
_SMALL: Final = 1 << 20
"""Bytes of results that are computed sooner than another session is created."""


class CannotRun(Exception):
    """The batch cannot be run as a whole: onnxruntime refuses the part of one `side`, or there is too much of it.

    `is_wrong` where the candidate's part was loaded and then failed on values that the original's part took, or made
    onnxruntime crash, as the original's did not. `crash` is there if it died. `misses_nothing` where all that the
    original gave was empty.
    """

    def __init__(self, side: Side, reason: str, is_wrong: bool = False, crash: Crash | None = None) -> None:
        super().__init__(reason)
        self.side = side
        self.is_wrong = is_wrong
        self.crash = crash
        self.misses_nothing = False

    @property
    def hangs(self) -> bool:
        """Whether the candidate's part was ended as it took too long, where the original's did not."""
        return self.is_wrong and self.crash is not None and self.crash.code == OVERTIME


class Pair:
    """The original's part, and the candidate's on one provider."""

    def __init__(self, runs: Runs, original: Runnable, candidate: Runnable) -> None:
        self._runs = runs
        self._original = original
        self._candidate = candidate
        self._wrong: set[str] = set()

    def run(
        self, label: str, values: Values, number: int, special: bool = False
    ) -> tuple[Values, dict[str, Comparison]]:
        """What the original gives on `values`, and how the candidate compares. Raises CannotRun.

        In a `special` feed the signs of zeros count as well.
        """
        reference = _run("original", self._original, values)
        try:
            result = _run("candidate", self._candidate, values)
        except CannotRun as problem:
            problem.misses_nothing = all(getattr(value, "size", 1) == 0 for value in reference.values())
            raise
        found: dict[str, Comparison] = {}

        def judge(
            names: Iterable[str], moved: Sequence[Values] = (), truth: Values | None = None, allowed: float = K
        ) -> list[str]:
            """Compares, and returns what is not equal."""
            check = partial(compare, feed=label, allowed=allowed, signs=special)
            for name in names:
                near, exact = [draw[name] for draw in moved], (truth or {}).get(name)
                found[name] = check(name, reference[name], result[name], near, truth=exact)
            return [name for name in names if found[name].verdict == "unequal"]

        unsure = judge(reference, allowed=SETTLED)
        if unsure:
            moved = self._moved(values, number, reference, unsure)
            unsure = [name for name in judge(unsure, moved) if name not in self._wrong]
        if unsure:
            moved += self._threaded(values, unsure)
            unsure = judge(unsure, moved)
        if unsure:
            truth = {name: run_doubled(self._original.part, values, name, self._runs.runner) for name in unsure}
            self._wrong.update(judge(unsure, moved, truth))
        return reference, found

    def _moved(self, values: Values, number: int, reference: Values, outputs: Sequence[str]) -> list[Values]:
        """What the original gives for some outputs when what it reads moves by an ulp; alone if the rest is much."""
        whole = self._original.part
        sizes = {name: getattr(value, "nbytes", 0) for name, value in reference.items()}
        total, wanted = sum(sizes.values()), sum(sizes[name] for name in outputs)
        with ExitStack() as stack:
            session = self._original
            if whole.proto and not whole.is_random and total > max(_SMALL, 2 * wanted):
                small = pruned(whole, outputs, fixed=False)
                session = stack.enter_context(closing(small.load(self._runs.runner, "the original in part")))
                values = {name: value for name, value in values.items() if name in small.inputs}
            draws = self._runs.moved(values, session, number)
            return [run for draw in draws if (run := _attempt(session, draw, outputs)) is not None]

    def _threaded(self, values: Values, outputs: Sequence[str]) -> list[Values]:
        """What the original gives with more than one thread: sums of another order. Nothing where it is in pieces."""
        if not self._original.part.proto:
            return []
        part = pruned(self._original.part, outputs)
        try:
            with closing(part.load(self._runs.runner, "the original with threads", threads=_THREADS)) as session:
                return [session.run(values)]
        except (RunError, Crash):
            return []


def _attempt(session: Runnable, values: Values, outputs: Sequence[str]) -> Values | None:
    """What a session gives for some of its outputs; None where an ulp makes it fail."""
    try:
        return session.run(values, outputs)
    except RunError:
        return None
    except Crash as crash:
        raise CannotRun("original", crash.message, crash=crash) from crash


def _run(side: Side, session: Runnable, values: Values) -> Values:
    try:
        return session.run(values)
    except RunError as error:
        raise CannotRun(side, error.message, is_wrong=side == "candidate") from error
    except Crash as crash:
        raise CannotRun(side, crash.message, is_wrong=side == "candidate", crash=crash) from crash
