"""Variants of tapped values reach where rewrites are fragile, and keep what a rule may know of the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.ir.text import parse
from graphopt.verify import check
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.inputs.variants import Variants

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 16, 32)).astype(np.float32)
FEED = Feed("plain", 0, {"x": X})


def variants(first: bool = True, **values: Any) -> dict[str, Any]:
    """The variants of the first of `values`, all of which are data, by label."""
    found = Variants(values).of(FEED, values, first)
    return {label.partition(", ")[2]: varied[next(iter(values))] for label, varied in found}


def test_they_reach_what_is_fragile() -> None:
    found = variants(x=X)
    assert found[""] is X
    assert np.abs(found["activations × 30"]).mean() > 10
    assert found["activations × 1e-05"].var() < 1e-9
    assert np.ptp(found["constant rows"], axis=-1).max() == 0
    assert np.ptp(found["constant rows"]) > 0
    row = found["ties"][0, 0]
    assert len(np.unique(row)) <= 9
    assert np.count_nonzero(np.abs(row) == np.abs(row).max()) >= 1
    assert found["all negative"].max() < 0
    assert not found["zeros"].any()
    assert all(value.dtype == X.dtype and value.shape == X.shape for value in found.values())


def test_what_is_never_negative_stays_so_and_is_not_all_zero() -> None:
    for value in variants(x=np.abs(X)).values():
        assert value.min() >= 0
        assert value.any()


@pytest.mark.parametrize(
    "known",
    [np.where(X > 0, 0.0, -1e4).astype(np.float32), np.arange(8), np.float32(0.125), (X > 0).astype(np.float32)],
    ids=["a mask", "integers", "a scalar", "zeros and ones"],
)
def test_what_a_rule_may_know_stays(known: Any) -> None:
    found = [varied["known"] for _, varied in Variants(["x", "known"]).of(FEED, {"x": X, "known": known}, True)]
    assert len(found) > 1
    assert all(value is known for value in found)


def test_only_the_first_feed_has_them() -> None:
    assert list(variants(first=False, x=X)) == [""]


HEAD = "opset 20\n(x: float32[4, 16, 32]) -> (y) {\n a = MatMul(x, float32[32, 32] random(1))\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "y = LayerNormalization(a, float32[32] 1, epsilon=1e-5)",
            "y = LayerNormalization(a, float32[32] 1, epsilon=0.0)",
        ),
        ("y = Max(a, -20.0)", "y = Identity(a)"),
        ("y = Min(a, 20.0)", "y = Identity(a)"),
        ("y = HardSigmoid(a, alpha=0.2, beta=1.0)", "y = Clip(Add(Mul(a, 0.2), 1.0), 0.0)"),
        ("y = Div(a, Add(Abs(a), 1e-4))", "y = Sign(a)"),
    ],
)
def test_what_is_wrong_only_there_is_seen(before: str, after: str) -> None:
    found = check(parse(f"{HEAD} {before} }}"), parse(f"{HEAD} {after} }}"))
    assert found.verdict == "unequal"


def test_what_becomes_infinite_is_no_warning() -> None:
    with np.errstate(over="raise"):
        found = variants(x=np.array([[1.0, -2.0, 4000.0, 0.5]], np.float16))
    assert np.isinf(found["activations × 30"]).any()
