"""What `quantize` counts."""

from __future__ import annotations

from pathlib import Path

import graphopt
from graphopt.ir.text import parse


def test_tables_are_quantized_and_are_no_products(tmp_path: Path) -> None:
    text = """(i: int64[B, S]) -> (y: float32[B, S, 16]) {
      y = MatMul(Gather(float32[50, 32] random(1), i), float32[32, 16] random(2))
    }"""
    graphopt.save(parse(text), tmp_path / "model.onnx")
    made = graphopt.quantize(tmp_path / "model.onnx", mode="dynamic", embed=True, allow_slower=True)
    assert [(site.op, site.integer) for site in made.sites] == [("Gather", True), ("MatMul", True)]
    assert (made.integer_planned, made.integer_running, made.integer_all, made.integer_share) == (1, 1, 1, 1.0)


def test_tables_that_stay_float_are_told_of(tmp_path: Path) -> None:
    text = """(i: int64[B, S]) -> (y: float32[B, S, 16]) {
      y = MatMul(Gather(float32[50, 32] random(1), i), float32[32, 16] random(2))
    }"""
    graphopt.save(parse(text), tmp_path / "model.onnx")
    told = "embedding tables, 76% of the weights, stay float32: --embed makes bytes of them"
    for embed in (False, True):
        made = graphopt.quantize(tmp_path / "model.onnx", mode="dynamic", embed=embed, allow_slower=True, verify="off")
        assert (told in made.notes) is not embed
