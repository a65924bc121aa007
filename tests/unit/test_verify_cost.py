"""What verification need not do twice, or at all, and that it says the same without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphopt.ir import Model, load, model_from_proto
from graphopt.runtime import Session
from graphopt.verify import Options, check
from graphopt.verify.doubled import pruned
from graphopt.verify.inputs.sizes import choose
from graphopt.verify.numbers.scales import local_scales
from graphopt.verify.pair import Pair
from graphopt.verify.parts import part
from graphopt.verify.runs import Runs
from graphopt.verify.tap import Tap

WIDTH = 512
LEAST = 1e-31


def normal(rows: int = 256, width: int = WIDTH) -> Any:
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


def rms(a: Any) -> Any:
    return np.sqrt(np.square(a.astype(np.float64)).mean(axis=1, keepdims=True))


def test_a_number_that_is_nearly_zero_by_accident_is_no_scale_of_its_row() -> None:
    a = normal()
    a[7, 9] = 1e-9
    np.testing.assert_allclose(local_scales(a, LEAST), rms(a), rtol=1e-5)


def test_in_few_rows_one_number_has_to_be_as_unlikely_as_two() -> None:
    a = normal(8)
    a[5, 9] = 3e-7
    np.testing.assert_allclose(local_scales(a, LEAST), rms(a), rtol=1e-5)
    a[5, 9] = 1e-12
    assert local_scales(a, LEAST).min() < 1e-11


def test_numbers_of_another_size_in_every_row_are_a_scale() -> None:
    a = normal()
    a[:, 9] *= 1e-9
    found = local_scales(a, LEAST)
    assert found.shape == a.shape
    np.testing.assert_allclose(found[:, 9], np.abs(a[:, 9]), rtol=1e-5)


@pytest.mark.parametrize("share", [1, 2, 3, 100])
def test_zeros_count_as_the_least_that_is_not(share: int) -> None:
    a = normal()
    a[:, ::share] = 0
    lifted = np.maximum(np.abs(a), np.where(a == 0, np.inf, np.abs(a)).min(axis=1, keepdims=True))
    expected = rms(np.where(np.isinf(lifted), 0, lifted))
    found = np.broadcast_to(local_scales(a, LEAST), a.shape)
    np.testing.assert_allclose(found, np.broadcast_to(np.maximum(expected, LEAST), a.shape), rtol=1e-5)


def two_branches() -> Model:
    """Two outputs, of which `y` is rounded otherwise where the sum is."""
    nodes = [
        *(helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Softmax", ["p"], ["y"])),
        *(helper.make_node("Concat", ["x", "x", "x"], ["c"], axis=0), helper.make_node("Neg", ["c"], ["z"])),
    ]
    weight = numpy_helper.from_array(normal(WIDTH, WIDTH), "w")
    ports = [helper.make_tensor_value_info(name, 1, [None, WIDTH]) for name in "xyz"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    return model_from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_a_part_of_some_outputs_can_still_be_moved() -> None:
    model = two_branches()
    with Runs(model, Options()) as runs:
        whole = part(model, model.graph.outputs, runs.weights, noisy=runs.data)
        small = pruned(whole, ["y"], fixed=False)
        assert (small.inputs, small.gains.keys()) == (frozenset("x"), whole.gains.keys())
        assert pruned(whole, ["z"], fixed=False).gains == {}
        session = small.load(runs.runner, "part")
        first, second = (
            session.run({"x": normal(), **gains})["y"] for gains in ({}, dict.fromkeys(small.gains, np.float32(1.5)))
        )
        assert not np.allclose(first, second)


def test_noise_is_measured_without_outputs_that_are_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, tuple[str, ...]]] = []
    run = Session.run

    def noted(session: Session, feeds: Any, outputs: Any = None) -> Any:
        ran.append((session.name, tuple(outputs)))
        return run(session, feeds, outputs)

    monkeypatch.setattr(Session, "run", noted)
    model, other = two_branches(), two_branches()
    with Runs(model, Options()) as runs:
        before = part(model, model.graph.outputs, runs.weights, noisy=runs.data).load(runs.runner, "before")
        after = part(other, other.graph.outputs, runs.weights).load(runs.runner, "after")
        taken = Session.run

        def off(session: Session, feeds: Any, outputs: Any = None) -> Any:
            found = taken(session, feeds, outputs)
            return {**found, "y": found["y"] * np.float32(1 + 4e-6)} if session.name == "after" else found

        monkeypatch.setattr(Session, "run", off)
        found = Pair(runs, before, after).run("", {"x": normal(1024)}, 0)[1]
    assert {name: one.verdict for name, one in found.items()} == {"y": "equal", "z": "equal"}
    assert ran[2:] == [("the original in part", ("y",))] * 3


def test_what_sizes_were_tried_on_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_branches()
    with Runs(model, Options()) as runs:
        tap = Tap(model, ["p", "c"], runs)
        feed = tap.feeds()[0]
        expected = part(model, [model.graph.names["p"]], runs.weights).load(runs.runner, "p").run(feed.arrays)["p"]
        monkeypatch.setattr(Session, "run", lambda *_: pytest.fail("it ran again"))
        np.testing.assert_array_equal(tap.values(feed, ["p"])["p"], expected)
        assert tap.values(feed, ["x", "c"])["c"].shape[1] == WIDTH


@pytest.mark.parametrize(("sides", "batches"), [((3, 8, 8), [2, 3]), ((3, 256, 256), [1, 2])])
def test_inputs_that_are_large_whatever_the_batch_come_one_by_one(sides: tuple[int, ...], batches: list[int]) -> None:
    text = f"g (float[N, {', '.join(map(str, sides))}] x) => (y) {{ y = Neg (x) }}"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>\n{text}')
    assert [binding["N"] for binding in choose(load(proto), {}, lambda _: None)] == batches


def test_weights_are_read_again_after_they_were_let_go(tmp_path: Path) -> None:
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", 1, [2, 4096])],
            [helper.make_tensor_value_info("y", 1, [2, 1100])],
            [numpy_helper.from_array(normal(4096, 1100), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(proto, tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    tensor = model.graph.names["w"].tensor
    assert tensor is not None
    assert tensor.region is not None
    before = tensor.numpy().sum()
    tensor.region.let_go()
    assert tensor.numpy().sum() == before
    assert check(model, load(tmp_path / "model.onnx")).verdict == "equal"
