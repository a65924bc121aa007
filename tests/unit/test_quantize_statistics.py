"""Statistics and histograms: what they know, and that parts add up to the whole in any order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphopt.errors import ModelError
from graphopt.quantize.observe.histogram import Histogram
from graphopt.quantize.observe.shards import load, merge, save
from graphopt.quantize.observe.statistics import GRAM_CHANNELS, ROWS, Statistics

Array = npt.NDArray[Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    """As activations are: few large ones, and channels that differ."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, shape) * np.linspace(0.1, 2, shape[-1])).astype(np.float32)


def same(a: Statistics, b: Statistics) -> None:
    """Equal but for the rounding of sums."""
    assert (a.axis, a.count, a.infinite) == (b.axis, b.count, b.infinite)
    for name in ("low", "high", "rows", "keys"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(a.histogram.counts, b.histogram.counts)
    np.testing.assert_allclose(a.total, b.total, rtol=1e-12, atol=1e-9)
    assert (a.gram is None) == (b.gram is None)
    if a.gram is not None and b.gram is not None:
        np.testing.assert_allclose(a.gram, b.gram, rtol=1e-5, atol=1e-3 * np.abs(a.gram).max())


# ---- one array -------------------------------------------------------------------------------------------------------


def test_what_is_known_of_rows() -> None:
    x = numbers(2, 7, 5)
    one = Statistics.of(x, gram=True)
    flat = x.reshape(-1, 5)
    assert one.count == 14
    assert np.array_equal(one.low, flat.min(0))
    assert np.array_equal(one.absmax, np.abs(flat).max(0))
    np.testing.assert_allclose(one.mean, flat.mean(0), rtol=1e-5, atol=1e-7)
    assert one.gram is not None
    np.testing.assert_allclose(one.gram, flat.T @ flat, rtol=1e-5)
    assert one.range == (x.min(), x.max())
    assert one.histogram.total == x.size
    assert sorted(map(tuple, one.rows)) == sorted(map(tuple, flat))


def test_channels_of_images_lie_along_axis_1() -> None:
    x = numbers(3, 4, 8, 8)
    moved = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    found, expected = Statistics.of(x, axis=1, seed=7), Statistics.of(moved, seed=7)
    assert found.low.shape == (4,)
    assert np.array_equal(found.high, expected.high)
    assert np.array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.total, expected.total)
    assert found.count == 3 * 8 * 8


def test_other_float_types_are_read_as_float32() -> None:
    x = numbers(40, 3).astype(np.float16)
    same(Statistics.of(x), Statistics.of(x.astype(np.float32)))
    assert Statistics.of(np.array([[1e300]])).refused == "has NaN or infinities: 1 numbers"


def test_samples_are_some_of_the_rows_and_not_the_first() -> None:
    x = numbers(4000, 3)
    one = Statistics.of(x)
    places = [int(np.flatnonzero((x == row).all(1))[0]) for row in one.rows]
    assert len(set(places)) == ROWS
    assert 1600 < np.mean(places) < 2400
    assert not np.array_equal(Statistics.of(x, seed=1).keys, one.keys)


def test_places_that_do_not_count() -> None:
    x = numbers(2, 5, 3)
    x[1, 2:] = 1e9
    kept = np.array([[True] * 5, [True] * 2 + [False] * 3])
    same(Statistics.of(x, kept=kept, gram=True), Statistics.of(x[kept], gram=True))
    assert Statistics.of(x, kept=kept).refused == ""
    flat = Statistics.of(x.reshape(10, 3), kept=kept.reshape(-1))
    assert flat.count == 7


def test_no_row_at_all() -> None:
    none = Statistics.of(numbers(2, 5, 3), kept=np.zeros((2, 5), bool))
    some = Statistics.of(numbers(4, 3))
    assert none.refused == "has no number that calibration saw"
    assert none.range == (0, 0)
    same(none.merge(some), some)
    same(some.merge(none), some)


def test_a_gram_matrix_only_where_it_is_asked_for_and_small_enough() -> None:
    assert Statistics.of(numbers(2, 8)).gram is None
    assert Statistics.of(np.ones((1, GRAM_CHANNELS + 1), np.float32), gram=True).gram is None


@pytest.mark.parametrize("axis", [3, -4])
def test_an_axis_that_is_not_there(axis: int) -> None:
    with pytest.raises(ModelError, match=f"shape \\[2, 3, 4\\] has no axis {axis}"):
        Statistics.of(numbers(2, 3, 4), axis=axis)


# ---- what no grid can be made of -------------------------------------------------------------------------------------


def test_a_range_that_leaves_no_step_for_what_is_usual_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(4000, 8)).astype(np.float32)
    x[0, 0] = 1000
    assert Statistics.of(x).refused == ""
    x[0, 0] = 5000
    assert re.fullmatch(r"reaches 5e\+03, 1\d{3} times what 99.9 % stay within", Statistics.of(x).refused)


def test_what_is_refused_keeps_its_reason() -> None:
    x = numbers(8, 3)
    assert Statistics.of(x).refused == ""
    masked = x.copy()
    masked[0, 0] = np.finfo(np.float32).min
    assert Statistics.of(masked).refused == "reaches 3.4e+38: a mask?"
    broken = x.copy()
    broken[0, 0], broken[1, 1] = np.nan, -np.inf
    found = Statistics.of(broken)
    assert found.refused == "has NaN or infinities: 2 numbers"
    assert np.isfinite([*found.range, *found.mean]).all()
    assert found.merge(Statistics.of(x)).refused == found.refused


def test_a_scale_far_beyond_what_is_usual_is_seen() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (5000, 4)).astype(np.float32)
    assert Statistics.of(x).outlier_ratio < 1.1
    x[17, 2] = 500
    assert Statistics.of(x).outlier_ratio == pytest.approx(500, rel=0.05)
    assert Statistics.of(np.zeros((3, 2))).outlier_ratio == 1


# ---- parts and wholes ------------------------------------------------------------------------------------------------


def test_parts_add_up_in_any_order() -> None:
    parts = [Statistics.of(numbers(1, n, 6, seed=n), seed=n, gram=True) for n in (3, 150, 700, 41)]
    a, b, c, d = parts
    left = a.merge(b).merge(c).merge(d)
    same(a.merge(b.merge(c.merge(d))), left)
    same(d.merge(b).merge(c.merge(a)), left)
    whole = Statistics.of(np.concatenate([numbers(n, 6, seed=n) for n in (3, 150, 700, 41)]))
    assert np.array_equal(left.histogram.counts, whole.histogram.counts)
    assert left.range == whole.range
    np.testing.assert_allclose(left.mean, whole.mean, rtol=1e-5)
    assert len(left.rows) == ROWS


def shapes(one: Statistics) -> dict[str, tuple[int, ...]]:
    arrays = vars(one) | vars(one.histogram)
    return {name: array.shape for name, array in arrays.items() if isinstance(array, np.ndarray)}


def test_memory_does_not_grow() -> None:
    one = Statistics.of(numbers(300, 6), seed=0, gram=True, kept=np.ones(300, bool))
    grown = one
    for seed in range(1, 20):
        grown = grown.merge(Statistics.of(numbers(300, 6, seed=seed), seed=seed, gram=True))
    assert shapes(grown) == shapes(one)
    assert grown.count == 20 * 300


def test_different_channels_are_not_merged() -> None:
    with pytest.raises(
        ModelError, match="3 channels along axis -1 cannot be merged with those of 4 channels"
    ) as caught:
        Statistics.of(numbers(2, 3)).merge(Statistics.of(numbers(2, 4)))
    assert caught.value.code == "GO121"


def test_shards_of_several_machines(tmp_path: Path) -> None:
    shards = [
        {"a/b": Statistics.of(numbers(n, 6), seed=n, gram=True), "c": Statistics.of(numbers(n, 2, 2, 2), 1, n)}
        for n in (20, 400)
    ]
    for number, shard in enumerate(shards):
        save(tmp_path / f"{number}.npz", shard)
    back = load(tmp_path / "1.npz")
    assert list(back) == ["a/b", "c"]
    same(back["a/b"], shards[1]["a/b"])
    merged = merge(tmp_path / "0.npz", str(tmp_path / "1.npz"))
    for name in ("a/b", "c"):
        same(merged[name], shards[0][name].merge(shards[1][name]))
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["0.npz", "1.npz"]
    with pytest.raises(ModelError, match="statistics of 'c'") as caught:
        merge(shards[0], {"a/b": shards[1]["a/b"]})
    assert caught.value.code == "GO121"


def test_files_that_are_no_shards(tmp_path: Path) -> None:
    save(tmp_path / "good.npz", {"a": Statistics.of(numbers(20, 6))})
    good = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    for name in ("short", "text", "other", "absent"):
        with pytest.raises(ModelError) as caught:
            load(tmp_path / f"{name}.npz")
        assert caught.value.code == "GO122"


# ---- histograms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.001, 0.25, 0.5, 0.9, 0.999, 1])
def test_quantiles_are_those_of_the_numbers_but_for_the_width_of_a_bin(share: float) -> None:
    x = numbers(100_000, 1)
    found = Histogram.of(x)
    assert found.quantile(share) == pytest.approx(np.quantile(x, share), rel=0.02, abs=1e-4)
    assert found.magnitude(share) == pytest.approx(np.quantile(np.abs(x), share), rel=0.02, abs=1e-4)


def test_extreme_numbers_have_a_bin() -> None:
    x = np.array([0, -0.0, 1e-45, -1e-30, 3e38, -3e38, 1, -1], np.float32)
    found = Histogram.of(x)
    assert found.total == len(x)
    assert np.array_equal(found.counts, Histogram.of(-x).counts[::-1])
    assert found.counts[len(found.counts) // 2] == 4


@pytest.mark.parametrize(("low", "high"), [(-6, 6), (-1, 3), (-0.2, 0), (-40, 40)])
def test_the_squared_error_is_that_of_rounding(low: float, high: float) -> None:
    x = numbers(200_000, 1)
    scale = (high - low) / 255
    below = np.rint(-low / scale)
    rounded = np.clip(np.rint(x / scale), -below, 255 - below) * scale
    found = Histogram.of(x).squared_error(scale, -below * scale, (255 - below) * scale)
    assert found == pytest.approx(np.mean((x - rounded) ** 2), rel=0.02)


def test_the_divergence_grows_with_what_is_cut_and_what_is_coarse() -> None:
    histogram = Histogram.of(np.random.default_rng(0).normal(size=200_000).astype(np.float32))
    fine = histogram.divergence(-5, 5, 256)
    assert 0 <= fine < 0.01
    assert histogram.divergence(-1, 1, 256) > 20 * fine
    assert histogram.divergence(-500, 500, 256) > 20 * fine
    assert Histogram.of(np.zeros(3, np.float32)).divergence(1, 2, 256) == np.inf
