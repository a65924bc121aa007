"""The garbage collector rests while a graph is built or rewritten, and comes back."""

from __future__ import annotations

import gc

import pytest

from graphopt.ir.collector import collector_off


def test_the_collector_comes_back_where_it_was_on() -> None:
    with collector_off():
        with collector_off():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


@collector_off()
def fail() -> None:
    assert not gc.isenabled()
    raise KeyError


def test_the_collector_comes_back_after_an_error() -> None:
    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()


def test_the_collector_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with collector_off():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
