"""The original's part and the candidate's, side by side: run on the same values, compared, and the floor measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from graphopt.runtime import RunError
from graphopt.verify.measure import compare, worse
from graphopt.verify.parts import PartSession
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs

Values = Mapping[str, Any]
Side = Literal["original", "candidate"]


class CannotRun(Exception):
    """The batch cannot be run as a whole: onnxruntime refuses the part of one `side`, or there is too much of it.

    `is_wrong` where the candidate's part was loaded and then failed on values that the original's part took.
    """

    def __init__(self, side: Side, reason: str, is_wrong: bool = False) -> None:
        super().__init__(reason)
        self.side = side
        self.is_wrong = is_wrong


class Pair:
    """The original's part, and the candidate's on each provider."""

    def __init__(self, runs: Runs, original: PartSession, candidates: Sequence[PartSession]) -> None:
        self._runs = runs
        self._original = original
        self._candidates = candidates

    def run(self, label: str, values: Values, number: int) -> tuple[Values, dict[str, Comparison]]:
        """What the original gives on `values`, and how the candidate compares. Raises CannotRun."""
        reference = _run("original", self._original, values)
        results = [_run("candidate", session, values) for session in self._candidates]
        found = {name: _worst(name, reference, results, (), label) for name in reference}
        unsure = [name for name, one in found.items() if one.verdict == "unequal"]
        if unsure:
            # What agrees as far as its type allows needs no floor: to measure one takes more runs than to compare.
            draws = self._runs.moved(values, self._original, number)
            moved = [run for draw in draws if (run := _attempt(self._original, draw, unsure)) is not None]
            found |= {name: _worst(name, reference, results, moved, label) for name in unsure}
        return reference, found


def _worst(name: str, reference: Values, results: Sequence[Values], moved: Sequence[Values], label: str) -> Comparison:
    near = [draw[name] for draw in moved]
    return worse([compare(name, reference[name], result[name], near, feed=label) for result in results])


def _attempt(session: PartSession, values: Values, outputs: Sequence[str]) -> Values | None:
    """What a session gives for some of its outputs; None where an ulp makes it fail."""
    try:
        return session.run(values, outputs)
    except RunError:
        return None


def _run(side: Side, session: PartSession, values: Values) -> Values:
    try:
        return session.run(values)
    except RunError as error:
        raise CannotRun(side, error.message, is_wrong=side == "candidate") from error
