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


SCALED = (
    "opset 17 (x: float32[N, 2], z: float32[2, 3], w: float32[3, 2]) -> (y)"
    " {{ y = Gemm(Gemm(x, z, alpha={}), w, alpha={}) }}"
)
PARTS = """
opset 17
(ids: int64[B, S]) -> (y) {{
    table = Reshape([1.0, -2.0, 0.5, 3.0, 0.25, 1.5, -1.0, 2.0, 2.0, 0.0, 1.0, -1.0], [3, 4])
    x = Gather(table, ids)
    {constant}
    y = Tanh(Div(x, Sqrt(Add({sum}))))
}}
"""


def parts(epsilon: str, *, node: bool = False, first: bool = False) -> str:
    """An RMS normalization in parts whose epsilon is an initializer, or comes from a node of its own."""
    mean = "ReduceMean(Mul(x, x), axes=[-1])"
    constant, name = (f"e = Constant(value_float={epsilon})", "e") if node else ("", epsilon)
    return PARTS.format(constant=constant, sum=f"{name}, {mean}" if first else f"{mean}, {name}")


def found(reference: str, candidate: str) -> Verification:
    return compare(parse(reference), parse(candidate))


def test_an_epsilon_that_no_input_shows_is_wrong_all_the_same() -> None:
    wrong = found(norm(), norm("1e-11"))
    assert (wrong.verdict, wrong.decided_by) == ("unequal", "regions")
    assert "epsilon" in wrong.reason
    assert "on no input that was tried" in wrong.reason
    assert all(output.verdict == "equal" for output in wrong.outputs)


@pytest.mark.parametrize("node", [False, True])
def test_an_epsilon_of_a_normalization_in_parts_as_well(node: bool) -> None:
    small, large = "0.000000000001", "0.00000000001"
    wrong = found(parts(small, node=node), parts(large, node=node, first=True))
    assert (wrong.verdict, wrong.decided_by) == ("unequal", "regions")
    assert "epsilon is" in wrong.reason
    assert found(parts(small, node=node), parts(small, node=node, first=True)).verdict == "equal"


def shaped(body: str) -> str:
    return f"opset 17 (x: float32[N, 1, 4]) -> (y) {{ {body} }}"


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
        # A constant that is spelt another way, and an order of axes that is the same for the data.
        (
            shaped("s = Constant(value_ints=[0, -1]) y = Relu(Reshape(x, s))"),
            shaped("s = Constant(value_ints=[-1, 4]) y = Relu(Reshape(x, s))"),
        ),
        (
            shaped("y = Reshape(Transpose(x, perm=[0, 2, 1]), [0, 4])"),
            shaped("y = Reshape(Transpose(x, perm=[0, 1, 2]), [0, 4])"),
        ),
        # Two numbers that make up for one another.
        (
            SCALED.format("2.0", "0.25"),
            SCALED.format("1.0", "0.5"),
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
