"""What tools/fuzz.py found, each as the smallest model that shows it."""

from __future__ import annotations

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


def test_inputs_of_any_size_are_declared() -> None:
    result = fused("(x: int64[9223372036854775807, 4]) -> (y) { y = Identity(Neg(Neg(x))) }")
    assert isinstance(result.error, InconclusiveError)
    assert "too large to be fed" in result.error.message


def test_an_error_is_not_its_own_cause() -> None:
    """What walks along the causes of an error comes to an end."""
    result = fused("(x: float32[3, 4], z: float32[3, 4]) -> (y) { y = Identity(MatMul(x, Neg(Neg(z)))) }")
    error: BaseException | None = result.error
    causes = []
    while error is not None:
        assert error not in causes
        causes.append(error)
        error = error.__cause__
    assert causes


def test_softplus_of_one_low_number() -> None:
    result = fused("(x: float32[1]) -> (y) { y = Tanh(Softplus(x)) }")
    assert result.verdict == "equal"
    assert not result.rolled_back


@pytest.mark.parametrize("name", ["1if 2else 3", "1is N", "1[2]", '"\\d"', "(" * 300, "N//0", "٣"])
def test_the_name_of_a_size_may_be_anything(name: str, recwarn: pytest.WarningsRecorder) -> None:
    model = model_to_proto(parse("(x: float32[N, 4]) -> (y) { y = Neg(Neg(x)) }"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    assert graphopt.fuse(model, verify="off").error is None
    assert not recwarn.list


def test_what_nothing_lowers_is_not_recovered() -> None:
    text = "(q: float32[2, 4, 3, 8], k: float32[2, 4, 8, 5], v: float32[2, 4, 5, 8]) -> (y) "
    text += "{ y = MatMul(Softmax(Mul(MatMul(q, k), 0.35355338), axis=3), v) }"
    result = fused(text, verify="off", only=["AttentionFromParts"])
    assert result.error is None
    assert "lowers" in result.trace.left_out["AttentionFromParts"]
    assert result.ops_after == result.ops_before
    assert fused(text, verify="off").fused == {"Attention": 1}
