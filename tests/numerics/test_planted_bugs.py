"""A small BERT, fused: right rewrites are equal with room to spare, and mistakes planted in them are seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from graphopt.bench import BertConfig, bert
from graphopt.ir import Model, Node, load
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.targets import target_named
from graphopt.verify import Checker, Verification, pair
from graphopt.verify.numbers.tolerance import K

CONFIG = BertConfig(layers=2, hidden=64, heads=4, intermediate=128, vocabulary=100, positions=64, mask="product")


@pytest.fixture(scope="module")
def raw() -> onnx.ModelProto:
    return bert(CONFIG)


def checked(raw: onnx.ModelProto, change: Callable[[Model], None], target: str = "ort-cpu") -> Verification:
    """The fused model against the raw one, where `change` was done to the model before it was fused."""
    candidate = load(raw)
    change(candidate)
    optimize(candidate, target=target_named(target), rules=built_in_rules())
    with Checker(load(raw)) as checker:
        return checker.check(candidate)


def nodes(model: Model, op: str, scope: str) -> list[Node]:
    return [node for node in model.graph.ops() if node.op == op and scope in node.name]


def put(model: Model, node: Node, slot: int, value: float) -> None:
    """Another number in place of a constant that `node` reads."""
    model.graph.set_input(node, slot, model.graph.add_constant(np.float32(value), "planted"))


def scale(model: Model) -> None:
    (div,) = nodes(model, "Div", "layer.1/attention/self")
    put(model, div, 1, np.sqrt(16) * 1.001)


def epsilon(model: Model) -> None:
    add, _ = nodes(model, "Add", "layer.0/output/LayerNorm")
    put(model, add, 1, 1e-5)


def orientation(model: Model) -> None:
    (sub,) = nodes(model, "Sub", "mask")
    kept = sub.inputs[1]
    model.graph.replace(sub.output, kept)


def fill(model: Model) -> None:
    (mul,) = nodes(model, "Mul", "mask")
    put(model, mul, 1, -1e4)


def fill_under_another_name(model: Model) -> None:
    fill(model)
    (mul,) = nodes(model, "Mul", "mask")
    model.graph.rename(mul.output, "another")


def nothing(model: Model) -> None:
    pass


@pytest.mark.parametrize("target", ["ort-cpu", "onnx", "ort-cuda"])
def test_a_right_rewrite_is_equal_far_inside_the_tolerance(
    raw: onnx.ModelProto, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "SETTLED", 0.0)  # every floor is measured
    found = checked(raw, nothing, target)
    assert (found.verdict, found.decided_by) == ("equal", "regions")
    assert found.counts.run == len(found.regions) > CONFIG.layers
    assert max(region.ratio or 0 for region in found.regions) < K / 4


@pytest.mark.parametrize(
    ("plant", "place"),
    [
        (scale, "layer.1/attention"),
        (epsilon, "layer.0/output/LayerNorm"),
        (orientation, "mask"),
        (fill, "mask"),
        (fill_under_another_name, "attention"),
    ],
)
def test_a_planted_mistake_is_seen_where_it_is(
    raw: onnx.ModelProto, plant: Callable[[Model], None], place: str
) -> None:
    found = checked(raw, plant)
    assert found.verdict == "unequal"
    assert found.failing
    for region in found.failing:
        assert place in region.output
    ratios = [region.ratio for region in found.regions if region.verdict == "unequal"]
    assert all(ratio is None or ratio > 10 * K for ratio in ratios)
