"""Candidates are scored against the float model: batch by batch, of any sizes, and without what is padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import ModelError
from graphopt.ir import load, save
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.quantize.data.batches import Batches, calibration_data
from graphopt.quantize.data.padding import masks
from graphopt.quantize.evaluate import Evaluator
from graphopt.quantize.metric import Metric, metric_named
from graphopt.runtime import Runner

MODEL = """(input_ids: int64[B, S], attention_mask: int64[B, S]) -> (y: float32[B, S, 4]) {{
  e = Gather(float32[16, 4] random(1), input_ids)
  m = Unsqueeze(Cast(attention_mask, to=1), [2])
  y = Add(e, {0})
}}"""
RNG = np.random.default_rng(0)
FEEDS = [
    {
        "input_ids": RNG.integers(0, 16, (2, size)),
        "attention_mask": (np.arange(size) < np.array([[size], [2]])).astype(np.int64),
    }
    for size in (5, 3, 8)
]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner


def written(folder: Path, name: str, addend: str) -> Path:
    model = parse(MODEL.format(addend))
    infer(model)
    return save(model, folder / f"{name}.onnx")[-1]


def evaluator(runner: Runner, folder: Path, metric: Metric, *, padded: bool) -> tuple[Evaluator, Batches]:
    model = load(written(folder, "float", "0.0"))
    infer(model)
    padding: Mapping[str, Any] = masks(model, ["y"]) if padded else {}
    assert set(padding) == ({"y"} if padded else set())
    return Evaluator(runner, model.path or folder, metric, 1, padding), calibration_data(FEEDS, model)


# What is added: at places that are padding, and at those that are not.
PADDING, KEPT = "Mul(Sub(1.0, m), 100.0)", "Mul(m, float32[4] {0, 0, 0, 100})"


@pytest.mark.parametrize("name", ["cosine", "sqnr", "top1"])
@pytest.mark.parametrize(
    ("addend", "padded", "same"), [(PADDING, True, True), (PADDING, False, False), (KEPT, True, False)]
)
def test_what_stands_at_padding_does_not_count(
    runner: Runner, tmp_path: Path, name: str, addend: str, padded: bool, same: bool
) -> None:
    scores, batches = evaluator(runner, tmp_path, metric_named(name), padded=padded)
    if name == "top1" and addend == PADDING:
        addend = "Mul(Sub(1.0, m), float32[4] {9, -9, 0, 99})"
    with scores:
        score = scores.score(written(tmp_path, "candidate", addend), "search", batches)
    assert score.samples == 6
    drop = metric_named(name).drop(score.mean, score.reference)
    assert drop == pytest.approx(0, abs=1e-6) if same else drop > 0.1


def test_padding_does_not_make_up_for_what_is_wrong(runner: Runner, tmp_path: Path) -> None:
    scores, batches = evaluator(runner, tmp_path, metric_named("top1"), padded=True)
    with scores:
        score = scores.score(written(tmp_path, "candidate", "Mul(Neg(e), 2.0)"), "search", batches)
    assert score.mean == 0


def test_a_metric_of_ones_own_sees_what_is_there_and_what_the_float_model_has(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def size(outputs): return abs(outputs['y']).mean()")
    scores, batches = evaluator(runner, tmp_path, metric_named(f"{tmp_path}/own.py:size"), padded=False)
    with scores:
        score = scores.score(written(tmp_path, "candidate", "e"), "search", batches)
    assert score.samples == 3
    assert score.mean == pytest.approx(2 * score.reference)


def test_splits_of_one_name_are_of_one_kind_of_batch(runner: Runner, tmp_path: Path) -> None:
    scores, batches = evaluator(runner, tmp_path, metric_named("cosine"), padded=True)
    path = written(tmp_path, "candidate", KEPT)
    with scores:
        first, again, other = (scores.score(path, split, batches) for split in ("search", "search", "holdout"))
    assert first == again == other
    assert first.worst < first.mean < 1


def test_a_model_against_itself_without_the_optimizer(runner: Runner, tmp_path: Path) -> None:
    scores, batches = evaluator(runner, tmp_path, metric_named("cosine"), padded=True)
    with scores:
        assert scores.unoptimized(written(tmp_path, "candidate", KEPT), batches) == pytest.approx(1)


def test_a_model_without_floats_has_nothing_to_compare(runner: Runner, tmp_path: Path) -> None:
    model = parse("(x: int64[N]) -> (y: int64[N]) { y = Neg(x) }")
    path = save(model, tmp_path / "ints.onnx")[-1]
    with pytest.raises(ModelError) as error, Evaluator(runner, path, metric_named("cosine"), 1):
        pass
    assert error.value.code == "GO143"
