"""Models that are one graph but for attributes: what no input shows is looked for at the operators themselves."""

from __future__ import annotations

import pytest

from graphopt.ir.text import parse
from graphopt.verify import Verification, compare

NORM = """
opset 17
(ids: int64[B, S]) -> (y) {{
    table = Reshape([1.0, -2.0, 0.5, 3.0, 0.25, 1.5, -1.0, 2.0, 2.0, 0.0, 1.0, -1.0], [3, 4])
    x = Gather(table, ids)
    n = LayerNormalization(x, [1.0, 2.0, 0.5, 1.0], axis=-1, epsilon={epsilon})
    y = {op}(MatMul(n, [1.0, 0.5, 2.0, 1.0]){more})
}}
"""


def norm(epsilon: str = "1e-12", op: str = "Tanh", more: str = "") -> str:
    return NORM.format(epsilon=epsilon, op=op, more=more)


def found(reference: str, candidate: str) -> Verification:
    return compare(parse(reference), parse(candidate))


def test_an_epsilon_that_no_input_shows_is_wrong_all_the_same() -> None:
    wrong = found(norm(), norm("1e-11"))
    assert (wrong.verdict, wrong.decided_by) == ("unequal", "regions")
    assert "epsilon" in wrong.reason
    assert "on no input that was tried" in wrong.reason
    assert all(output.verdict == "equal" for output in wrong.outputs)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        # Another axis that is the same one.
        (norm(), norm().replace("axis=-1", "axis=2")),
        # Attributes that another change makes up for.
        (
            "opset 17 (x: float32[N, 2], z: float32[2, 3]) -> (y) { y = Mul(Gemm(x, z, alpha=2.0), 0.5) }",
            "opset 17 (x: float32[N, 2], z: float32[2, 3]) -> (y) { y = Mul(Gemm(x, z, alpha=1.0), 1.0) }",
        ),
        # An attribute for numbers that are never read.
        (
            "opset 17 (x: float32[N, 9]) -> (y) { y = LeakyRelu(Abs(x), alpha=0.1) }",
            "opset 17 (x: float32[N, 9]) -> (y) { y = LeakyRelu(Abs(x), alpha=0.2) }",
        ),
    ],
)
def test_an_attribute_that_changes_nothing_is_right(reference: str, candidate: str) -> None:
    assert found(reference, candidate).verdict == "equal"
