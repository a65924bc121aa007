"""The pairs that checkers are judged by: that each is what it says, and what `graphopt verify` says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphopt.ir import load
from graphopt.runtime import Runner
from graphopt.verify import compare

sys.path.insert(0, str(Path(__file__).parents[1]))

from pairs import PAIRS, RIGHT, WRONG, Pair, interface
from pairs.selfcheck import outputs, shown_right, shown_right_on_special, shown_wrong

_DRAWN = {pair.name for pair in interface.RANDOM}


def _names(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.name for pair in pairs]


def test_there_are_enough_pairs_and_no_two_of_one_name() -> None:
    assert len(WRONG) >= 66
    assert len(RIGHT) >= 44
    assert len(set(_names(PAIRS))) == len(PAIRS)


_SEEN = tuple(pair for pair in WRONG if pair.feeds)
_TOLD = tuple(pair for pair in WRONG if not pair.feeds)


@pytest.mark.parametrize("pair", _SEEN, ids=_names(_SEEN))
def test_the_witness_shows_that_a_wrong_pair_is_wrong(pair: Pair) -> None:
    assert shown_wrong(pair)
    assert not shown_wrong(replace(pair, candidate=pair.reference)), "the witness shows that of any two models"


@pytest.mark.parametrize("pair", _TOLD, ids=_names(_TOLD))
def test_what_no_run_shows_is_said_and_is_in_the_models(pair: Pair) -> None:
    reference, candidate = pair.reference(), pair.candidate()
    assert pair.reason
    assert [(v.name, v.type.SerializeToString()) for v in (*reference.graph.input, *reference.graph.output)] != [
        (v.name, v.type.SerializeToString()) for v in (*candidate.graph.input, *candidate.graph.output)
    ] or "Random" in str(reference.graph.node)


_SURE = tuple(pair for pair in RIGHT if pair.name not in _DRAWN)


@pytest.mark.parametrize("pair", _SURE, ids=_names(_SURE))
def test_a_right_pair_agrees_on_legal_inputs(pair: Pair) -> None:
    assert pair.reason
    assert shown_right(pair) == ""
    assert shown_right_on_special(pair) == ""


@pytest.mark.parametrize("pair", interface.RANDOM, ids=_names(tuple(interface.RANDOM)))
def test_a_right_pair_that_draws_has_outputs_of_one_shape(pair: Pair) -> None:
    assert pair.feeds
    old, new = (outputs(make(), pair.feeds(np.random.default_rng(0))) for make in (pair.reference, pair.candidate))
    assert [a.shape for a in old] == [b.shape for b in new]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner


@pytest.mark.parametrize("pair", PAIRS, ids=_names(PAIRS))
def test_verify_tells_wrong_pairs_from_right_ones(pair: Pair, runner: Runner) -> None:
    found = compare(load(pair.reference()), load(pair.candidate()), runner=runner)
    assert found.verdict == ("equal" if pair.right else "unequal"), found.reason
