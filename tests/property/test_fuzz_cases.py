"""What tools/fuzz.py found, each as the smallest model that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphopt
from graphopt.errors import InconclusiveError
from graphopt.ir import model_to_proto
from graphopt.ir.text import parse


def fused(text: str, **options: object) -> graphopt.pipeline.Result:
    return graphopt.fuse(model_to_proto(parse(text)), **options)


@pytest.mark.parametrize("perm", ["[0, 5]", "[0, 2, 2, 1]", "[]", "[0, 1, 2, -1]"])
def test_no_rule_is_blamed_for_a_permutation_that_is_none(perm: str) -> None:
    result = fused(f"(x: float32[2, 1, 3, 4]) -> (y) {{ y = Relu(Transpose(x, perm={perm})) }}", verify="off")
    assert result.exit_code == 0
    assert not result.trace.failures


def test_inputs_of_any_size_are_declared(tmp_path: Path) -> None:
    result = fused("(x: int64[9223372036854775807, 4]) -> (y) { y = Identity(Neg(Neg(x))) }")
    assert isinstance(result.error, InconclusiveError)
    assert "too large to be fed" in result.error.message
