"""Mistakes that hang on one number of an input: an id, a row of a table, a threshold, one index twice."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.verify import compare
from graphopt.verify.inputs.feeds import Feeder
from graphopt.verify.inputs.points import points, with_points

TABLE = "opset 17 (ids: int64[B, S]) -> (y) { table = float32[997, 4] random(1) y = Gather(table, ids) }"
PADDED = """
opset 17
(ids: int64[B, S]) -> (y) {
  table = float32[997, 4] random(1)
  y = Where(Unsqueeze(Equal(ids, 700), [-1]), 0.0, Gather(table, ids))
}
"""


def with_row(row: int) -> Model:
    """The table with one row that is wrong."""
    model = parse(TABLE)
    table = model.graph.names["table"]
    assert table.tensor is not None
    numbers = table.tensor.numpy().copy()
    numbers[row] *= 1.5
    model.graph.replace(table, model.graph.add_constant(numbers), take_name=True)
    return model


def test_one_wrong_row_of_a_table_is_read() -> None:
    assert compare(parse(TABLE), with_row(613)).verdict == "unequal"
    assert compare(parse(TABLE), parse(TABLE.replace("table", "t"))).verdict == "equal"


def test_an_id_that_only_the_candidate_treats_apart_is_fed() -> None:
    assert compare(parse(TABLE), parse(PADDED)).verdict == "unequal"


def test_neighbours_of_a_number_that_integers_are_compared_with_are_fed() -> None:
    text = TABLE.replace("y = ", "g = Cast(Less(Add(ids, 1), 301), to=float32) y = Mul(Unsqueeze(g, [-1]), ")
    model = parse(text.replace("ids) }", "ids)) }"))
    infer(model)
    assert points(model) == {"ids": (300, 301, 299)}
    fed = Feeder(model, 0).feed("plain", {"B": 2, "S": 7}).arrays["ids"]
    assert {299, 300, 301} <= set(fed.flatten().tolist())


def test_a_threshold_is_among_ties() -> None:
    text = "opset 17 (x: float32[N, 8]) -> (y) {{ y = Where({}(x, 100.0), x, 0.0) }}"
    assert compare(parse(text.format("Greater")), parse(text.format("GreaterOrEqual"))).verdict == "unequal"


def test_points_beyond_the_range_are_left_out_and_take_half_at_most() -> None:
    rng = np.random.default_rng(0)
    found = with_points(np.full(5, -1), [7, 8, 9, 10, 11, 12], (7, 12), rng)
    assert sorted(found)[:2] == [-1, -1]
    assert set(found) <= {-1, 7, 8, 9, 10, 11}
    assert len(set(found)) == 4


@pytest.mark.parametrize("reduction", ["add", "mul"])
def test_places_that_are_added_to_twice_are_fed(reduction: str) -> None:
    body = "opset 18 (x: float32[10, 4], i: int64[N, 1], u: float32[N, 4]) -> (y) {{ {} }}"
    op = {"add": "Add", "mul": "Mul"}[reduction]
    reduced = body.format(f'y = ScatterND(x, i, u, reduction="{reduction}")')
    written = body.format(f"y = ScatterND(x, i, {op}(GatherND(x, i), u))")
    assert compare(parse(reduced), parse(written)).verdict == "unequal"


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        # NaN comes through a window or not by where in it it lies; of two zeros either is the larger.
        (
            "MaxPool(x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])",
            "MaxPool(Pad(x, [0, 0, 1, 1, 0, 0, 1, 1], -inf), kernel_shape=[3, 3])",
        ),
        ("Relu(x)", "Max(x, 0.0)"),
        # Of an image too small for a window there is nothing: one kernel gives that, the other refuses.
        ("AveragePool(x, kernel_shape=[2, 2])", "Conv(x, Reshape([0.25, 0.25, 0.25, 0.25], [1, 1, 2, 2]))"),
    ],
)
def test_what_kernels_leave_open_is_no_mistake(reference: str, candidate: str) -> None:
    text = "opset 17 (x: float32[B, 1, H, W]) -> (y) {{ y = {} }}"
    assert compare(parse(text.format(reference)), parse(text.format(candidate))).verdict == "equal"


def test_signs_of_zeros_count_where_nothing_is_chosen() -> None:
    text = "opset 17 (x: float32[N, 8]) -> (y) {{ y = {} }}"
    assert compare(parse(text.format("Neg(x)")), parse(text.format("Sub(0.0, x)"))).verdict == "unequal"


def test_positions_beyond_the_usual_lengths_are_reached() -> None:
    text = "opset 17 (ids: int64[B, S]) -> (y) {{ p = float32[600, 4] random(2) r = Range(0, Gather(Shape(ids), 1), 1)"
    text += " y = Gather(p, Add(Mul(ids, 0), {})) }}"
    assert compare(parse(text.format("r")), parse(text.format("Min(r, 20)"))).verdict == "unequal"
