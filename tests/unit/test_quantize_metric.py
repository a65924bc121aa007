"""How near outputs are: by direction, by noise, by the best, and by what a user says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import GraphoptError, UsageError
from graphopt.quantize.metric import Metric, Score, metric_named

RNG = np.random.default_rng(0)
COSINE, SQNR, TOP1 = (metric_named(name) for name in ("cosine", "sqnr", "top1"))


def measured(metric: Metric, reference: Any, candidate: Any, feed: Any = None) -> list[float]:
    """Of one output, or of several by name."""
    pair = [one if isinstance(one, dict) else {"y": np.asarray(one)} for one in (reference, candidate)]
    return metric.measure(pair[0], pair[1], feed or {})


def noisy(x: Any, size: float) -> Any:
    return x + size * RNG.standard_normal(x.shape).astype(x.dtype)


# ---- cosine ----------------------------------------------------------------------------------------------------------


def test_cosine_is_of_each_sample() -> None:
    a = np.array([[1, 0], [1, 1], [3, 4]], np.float32)
    b = np.array([[0, 1], [2, 2], [3, -4]], np.float32)
    assert measured(COSINE, a, b) == pytest.approx([0, 1, -7 / 25])


def test_cosine_of_zeros() -> None:
    zero, other = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    assert measured(COSINE, zero, zero) == [1.0]
    assert measured(COSINE, zero, other) == [0.0]
    assert measured(COSINE, other, zero) == [0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_in_the_candidate_alone_is_far_away(bad: float) -> None:
    a = np.ones((2, 8), np.float32)
    b = a.copy()
    b[0, 3] = bad
    assert measured(COSINE, a, b)[0] < 0.5
    assert measured(COSINE, a, b)[1] == 1.0
    assert measured(SQNR, a, b)[0] < 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_candidate_without_any_number_is_not_along_the_reference(bad: float, sign: int) -> None:
    a = sign * np.linspace(1, 2, 8, dtype=np.float32)[None]
    assert measured(COSINE, a, np.full_like(a, bad))[0] < 0
    assert measured(SQNR, a, np.full_like(a, bad))[0] < 0


def test_what_is_no_number_in_the_reference_is_not_compared() -> None:
    a = np.array([[1, 2, np.nan, -np.inf]], np.float32)
    b = np.array([[1, 2, 7, np.nan]], np.float32)
    assert measured(COSINE, a, b) == [1.0]
    assert measured(SQNR, a, b) == [math.inf]


def test_large_numbers_do_not_overflow() -> None:
    a = np.full((1, 4), 3e38, np.float32)
    assert measured(COSINE, a, a * np.float32(0.5)) == pytest.approx([1.0])
    assert measured(SQNR, a, a * np.float32(0.9)) == pytest.approx([20], abs=0.01)


def test_a_single_number_has_no_direction_but_a_size() -> None:
    a = np.array([[2.0], [2.0], [2.0], [0.0]], np.float32)
    b = np.array([[2.0], [1.0], [-2.0], [0.0]], np.float32)
    assert measured(COSINE, a, b) == pytest.approx([1, 0.8, -1, 1])


def test_numbers_along_one_axis_are_one_sample() -> None:
    a = np.array([3, 4], np.float32)
    assert measured(COSINE, a, np.array([4, 3], np.float32)) == pytest.approx([24 / 25])
    assert measured(COSINE, np.float32(2), np.float32(1)) == pytest.approx([0.8])


def test_several_outputs_count_the_same() -> None:
    a = {"big": np.ones((2, 100), np.float32), "small": np.array([[1, 0], [1, 0]], np.float32)}
    b = {"big": np.ones((2, 100), np.float32), "small": np.array([[0, 1], [1, 0]], np.float32)}
    assert measured(COSINE, a, b) == pytest.approx([0.5, 1.0])


def test_an_output_without_samples_does_not_hide_the_one_that_has_them() -> None:
    a = {"loss": np.array(1, np.float32), "y": np.ones((3, 8), np.float32)}
    b = {"loss": np.array(1, np.float32), "y": np.tile(np.array([1, -1], np.float32), (3, 4))}
    assert measured(COSINE, a, b) == pytest.approx([0, 0, 0])


def test_only_floats_of_one_shape_are_compared() -> None:
    a = {"ids": np.array([[1], [2]]), "y": np.ones((2, 4), np.float32), "z": np.ones((2, 3), np.float32), "s": ["a"]}
    b = {"ids": np.array([[7], [8]]), "y": np.ones((2, 4), np.float32), "z": np.ones((2, 5), np.float32), "s": ["b"]}
    assert measured(COSINE, a, b) == [1.0, 1.0]
    assert measured(COSINE, {"ids": a["ids"]}, {"ids": b["ids"]}) == []


def test_half_precision_is_compared() -> None:
    a = RNG.standard_normal((2, 64)).astype(np.float16)
    assert 0.9 < measured(COSINE, a, noisy(a, 0.1))[0] < 1


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_sqnr_is_in_decibels() -> None:
    a = np.ones((1, 100), np.float32)
    assert measured(SQNR, a, a * np.float32(1.1)) == pytest.approx([20], abs=1e-4)


def test_a_sample_without_noise_does_not_hide_that_of_others() -> None:
    score = Score.of(SQNR, [20.0, math.inf], [])
    assert score.mean == pytest.approx(20 + 10 * math.log10(2))
    assert SQNR.drop(score.mean, score.reference) == pytest.approx(0.005)
    a = {"x": np.ones((1, 4), np.float32), "y": np.ones((1, 4), np.float32)}
    assert measured(SQNR, a, a | {"y": a["y"] * np.float32(1.1)}) == pytest.approx([20 + 10 * math.log10(2)], abs=1e-4)


def test_no_noise_is_no_drop() -> None:
    assert SQNR.drop(math.inf, math.inf) == 0
    assert SQNR.drop(20, math.inf) == pytest.approx(0.01)
    assert SQNR.mean([math.inf, math.inf]) == math.inf


# ---- the best --------------------------------------------------------------------------------------------------------


def test_top1_is_the_share_of_places_where_the_same_is_best() -> None:
    a = np.array([[[1, 2], [2, 1]], [[1, 2], [1, 2]]], np.float32)
    b = np.array([[[1, 2], [1, 2]], [[0, 9], [3, 4]]], np.float32)
    assert measured(TOP1, a, b) == [0.5, 1.0]


def test_of_two_that_are_equally_good_either_is_right() -> None:
    assert measured(TOP1, [[5.0, 5.0, 0.0]], [[4.0, 5.0, 0.0]]) == [1.0]
    assert measured(TOP1, [[5.0, 5.0, 0.0]], [[4.0, 5.0, 6.0]]) == [0.0]


def test_places_without_a_best_do_not_count() -> None:
    a = np.zeros((2, 4, 3), np.float32)
    a[0, 0] = [1, 2, 3]
    b = a.copy()
    b[0, 0] = [3, 2, 1]
    assert measured(TOP1, a, b) == [0.0]
    assert measured(TOP1, [[1.0], [2.0]], [[1.0], [2.0]]) == []


def test_no_number_is_never_the_best() -> None:
    assert measured(TOP1, [[1.0, 2.0]], [[1.0, np.nan]]) == [0.0]
    assert measured(TOP1, [[-np.inf, 2.0]], [[-np.inf, 3.0]]) == [1.0]


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_a_score_has_the_mean_and_the_worst() -> None:
    score = Score.of(COSINE, [1.0, 0.5, 0.9], [])
    assert score.mean == pytest.approx(0.8)
    assert (score.worst, score.samples, score.reference) == (0.5, 3, 1.0)
    assert COSINE.drop(score.mean, score.reference) == pytest.approx(0.2)


def test_no_samples_are_no_score() -> None:
    with pytest.raises(GraphoptError) as error:
        Score.of(COSINE, [], [])
    assert error.value.code == "GO143"


# ---- a user's own ----------------------------------------------------------------------------------------------------


def own(folder: Path, body: str, name: str = "good") -> Metric:
    path = folder / "own.py"
    path.write_text(body)
    return metric_named(f"{path}:{name}")


@pytest.mark.parametrize(
    ("signature", "said"),
    [("candidate", "c"), ("reference, candidate", "rc"), ("reference, candidate, feed", "rcf"), ("*all", "rcf")],
)
def test_a_function_gets_as_much_as_it_takes(tmp_path: Path, signature: str, said: str) -> None:
    names = "all" if signature == "*all" else f"[{signature}]"
    metric = own(tmp_path, f"def good({signature}): return sum(float(one['v']) for one in {names})")
    numbers = {"r": 1.0, "c": 10.0, "f": 100.0}
    given = ({"v": numbers["r"]}, {"v": numbers["c"]}, {"v": numbers["f"]})
    assert metric.measure(*given) == [sum(numbers[letter] for letter in said)]


def test_it_is_judged_by_what_the_float_model_has(tmp_path: Path) -> None:
    metric = own(tmp_path, "def good(candidate): return float(candidate['y'].mean())")
    score = Score.of(metric, [0.7, 0.8], [0.9, 0.9])
    assert metric.drop(score.mean, score.reference) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no labels')", "the metric raised ValueError('no labels')"),
        ("raise SystemExit(3)", "the metric raised SystemExit(3)"),
        ("return None", "the metric raised TypeError"),
        ("return float('nan')", "the metric returned nan"),
        ("return -float('inf')", "the metric returned -inf"),
    ],
)
def test_a_function_that_fails_is_named(tmp_path: Path, body: str, message: str) -> None:
    metric = own(tmp_path, f"def good(a, b): {body}")
    with pytest.raises(UsageError) as error:
        metric.measure({}, {}, {})
    assert error.value.code == "GO144"
    assert error.value.message.startswith(message)
    assert error.value.where.endswith("own.py:good")


@pytest.mark.parametrize(
    ("body", "name", "hint"),
    [
        ("import nothing_like_it", "good", ""),
        ("def accuracy(a): return 1", "acuracy", "accuracy"),
        ("good = 3", "good", ""),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, body: str, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        own(tmp_path, body, name)
    assert error.value.code == "GO142"
    assert hint in error.value.hint


@pytest.mark.parametrize("name", ["cosin", "missing.py:f", "file.txt:f", "nothing.py:"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as error:
        metric_named(name)
    assert error.value.code == "GO142"
