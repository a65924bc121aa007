"""What takes too long is waited for a few times, not once for each half, feed and trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphopt.errors import RuntimeCrash
from graphopt.ir import Model
from graphopt.ir.text import parse
from graphopt.rewrite import CompiledRule, Engine, Expr, Ops, Rule, Trace, Value
from graphopt.rewrite.engine import SiteKey
from graphopt.runtime import Crash
from graphopt.runtime.protocol import Load
from graphopt.verify import Checker, Comparison, Options, Search, Verification, checker, key_of
from graphopt.verify.pair import OVERTIME, CannotRun

COUNT = 16
# The first is run alone, on everything, and the others, which are like it, together.
TEXT = f"""
opset 17
(x: float32[N, 8]) -> ({", ".join(f"y{i}" for i in range(COUNT))}) {{
  {" ".join(f"y{i} = Log(Exp({'Neg(' * i}Abs(x){')' * i}))" for i in range(COUNT))}
}}
"""


class LogOfExp(Rule):
    """Right; `Slow` says that it hangs."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Log(op.Exp(x))

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Identity(op.Neg(op.Neg(x)))


class Slow:
    """In place of a batch: one with a region of `slow` takes too long, all others are equal."""

    slow: frozenset[str] = frozenset()
    waited = 0

    def __init__(self, original: Model, candidate: Model, regions: Any, runs: Any) -> None:
        self._names = [region.output for region in regions]

    def run(self, *arguments: Any) -> list[Comparison]:
        if self.slow.isdisjoint(self._names):
            return [Comparison(name, "equal") for name in self._names]
        type(self).waited += 1
        crash = Crash(RuntimeCrash(OVERTIME, "onnxruntime took longer than 1 s"), Load(b"", False), {})
        raise CannotRun("candidate", crash.message, is_wrong=True, crash=crash)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Slow]]:
    monkeypatch.setattr(checker, "Batch", Slow)
    Slow.waited = 0
    yield Slow
    Slow.slow = frozenset()


def rewritten(exclude: frozenset[SiteKey] = frozenset()) -> tuple[Model, Trace]:
    model = parse(TEXT)
    engine = Engine([CompiledRule(LogOfExp())], exclude=exclude)
    engine.run(model)
    return model, engine.trace


@pytest.mark.parametrize(("which", "waits"), [(0, 1), (1, 4), (6, 4), (COUNT - 1, 2)])
def test_the_one_that_hangs_is_found_in_a_logarithm_of_waits(
    slow: type[Slow], tmp_path: Path, which: int, waits: int
) -> None:
    slow.slow = frozenset([f"y{which}"])
    with Checker(parse(TEXT), Options(keep=tmp_path)) as check:
        found = check.check(rewritten()[0])
    assert found.verdict == "unequal"
    assert [region.output for region in found.failing] == [f"y{which}"]
    assert slow.waited <= waits


def test_what_was_left_is_never_equal_and_is_run_by_the_next_check(slow: type[Slow], tmp_path: Path) -> None:
    slow.slow = frozenset(["y0", "y9"])
    with Checker(parse(TEXT), Options(keep=tmp_path)) as check:
        found = check.check(rewritten()[0])
        assert [region.output for region in found.failing] == ["y0"]
        verdicts = {one.name: one.verdict for one in found.regions}
        assert {verdicts[region.output] for region in found.unrun} == {"inconclusive"}
        assert "y9" in {region.output for region in found.unrun}
        again = check.check(rewritten()[0])
        assert [region.output for region in again.failing] == ["y0", "y9"]
        last = check.check(rewritten()[0])
    assert {one.name for one in last.regions if one.verdict == "equal"} == {*verdicts} - {"y0", "y9"}


def test_a_rule_that_hangs_everywhere_goes_after_one_check_and_one_replay(slow: type[Slow], tmp_path: Path) -> None:
    slow.slow = frozenset(f"y{i}" for i in range(COUNT))
    with Checker(parse(TEXT), Options(keep=tmp_path)) as check:
        model, trace = rewritten()
        search = Search(model, trace, check.check(model), (), rewritten, check)
        blamed = search.guilty()
        assert {key_of(one.site) for one in blamed} == set(map(key_of, trace.sites))
        assert [one.replays for one in blamed] == [1] + [0] * (COUNT - 1)
        assert [one.hangs for one in blamed] == [True] + [False] * (COUNT - 1)
        # Of the replay, in which nothing is left of the rule, nobody waits for anything.
        assert slow.waited == 1
        assert check.check(rewritten(frozenset(map(key_of, trace.sites)))[0]).verdict == "equal"


def test_a_replay_that_was_not_run_where_it_matters_clears_nobody(slow: type[Slow], tmp_path: Path) -> None:
    slow.slow = frozenset(["y0"])
    model, trace = rewritten()
    with Checker(parse(TEXT), Options(keep=tmp_path)) as check:
        found = check.check(model)

    answers = iter([replace(found, failing=(), unrun=found.failing), found])

    class Hanging(Checker):
        """Something else takes too long first; once that is known, the region fails, whatever is left out."""

        def check(self, candidate: Model) -> Verification:
            return next(answers)

    search = Search(model, trace, found, (), rewritten, Hanging(parse(TEXT)))
    assert search.guilty() == []
    assert search.cleared
