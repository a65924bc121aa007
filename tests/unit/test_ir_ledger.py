"""What all scopes of a model share: names that are never used twice, what changed since when, and how it is undone."""

from __future__ import annotations

import pytest

from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.ir.ledger import Ledger
from graphopt.ir.text import parse


def model() -> Model:
    return parse("(x: float32[4]) -> (b) { a = Exp(x) b = Neg(a) }")


def test_fresh_names_are_counted_by_their_stem() -> None:
    ledger = Ledger()
    ledger.names.update({"a", "a_2"})
    assert [ledger.fresh(stem) for stem in ("a", "a", "b", "a", "b", "")] == ["a_1", "a_3", "b", "a_4", "b_1", "_1"]
    assert {"a", "a_1", "a_2", "a_3", "a_4", "b", "b_1", "_1"} == ledger.names


def test_sources_stand_before_all_operations_each_behind_the_last() -> None:
    ledger = Ledger()
    ranks = [ledger.serial() for _ in range(3)]
    assert ranks == sorted(set(ranks))
    assert ranks[-1] < -(1 << 61)


def test_what_was_touched_since_a_moment() -> None:
    graph = model().graph
    ledger, a, b = graph.ledger, graph.names["a"].node, graph.names["b"].node
    mark = ledger.mark()
    assert ledger.since(mark) == []
    graph.set_attr(b, "k", 1)
    graph.set_attr(a, "k", 1)
    graph.set_attr(b, "k", 2)
    assert ledger.since(mark) == [b, a], "each once, in the order in which they were touched first"
    later = ledger.mark()
    spare = graph.add_op("Abs", [graph.names["x"]])
    assert spare in ledger.since(later)
    graph.remove(spare)
    assert spare not in ledger.since(later), "what is gone is not told"


def test_what_changed_can_be_forgotten() -> None:
    parsed = model()
    infer(parsed)
    ledger = parsed.ledger
    assert ledger.mark() > 0
    assert ledger.inferred == ledger.mark()
    ledger.forget()
    assert ledger.mark() == 0
    assert ledger.since(0) == []
    parsed.graph.names["a"].dtype = 0
    infer(parsed)
    assert parsed.graph.names["a"].dtype == 1, "all is inferred anew"


def test_a_rollback_takes_back_what_changed_and_that_it_did() -> None:
    graph = model().graph
    ledger, a = graph.ledger, graph.names["a"].node
    before, ledger.inferred = ledger.mark(), 3
    with ledger.transaction() as transaction:
        graph.set_attr(a, "k", 1)
        ledger.inferred = ledger.mark()
        transaction.rollback()
        assert "k" not in a.attrs
        assert (ledger.mark(), ledger.inferred) == (before, 3)
        graph.set_attr(a, "l", 1)
        transaction.rollback()
        assert "l" not in a.attrs, "what was done after a rollback can be taken back as well"
        graph.set_attr(a, "m", 1)
    assert a.attrs["m"] == 1
    assert ledger.journal is None


def test_an_error_takes_back_everything() -> None:
    graph = model().graph
    a = graph.names["a"].node

    def fail() -> None:
        with graph.ledger.transaction():
            graph.set_attr(a, "k", 1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "k" not in a.attrs
    assert graph.ledger.journal is None


def test_transactions_do_not_nest() -> None:
    ledger = model().ledger
    with ledger.transaction():
        with pytest.raises(RuntimeError, match="do not nest"), ledger.transaction():
            pass
        assert ledger.journal is not None
