"""What models cost: statistics, sets of shapes, feeds, agreement, memory, where nodes ran."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from graphopt.bench import (
    ShapeSet,
    batch_of,
    cosine,
    feeds_for,
    observe,
    ratio_of_medians,
    refuse_others,
    shape_sets,
    size_of,
    spread,
    time_models,
)
from graphopt.bench.observed import Footprint, op_times
from graphopt.bench.paired import FEWEST, Ratio
from graphopt.errors import ModelError, UsageError
from graphopt.ir import load
from graphopt.pipeline import bench
from graphopt.report.timing import difference, shapes_of
from graphopt.runtime import Kernel, RunError
from graphopt.runtime.sessions import Sessions

HEAD = '<ir_version: 10, opset_import: ["": 21]>'


def model(text: str) -> onnx.ModelProto:
    return parser.parse_model(f"{HEAD} g {text}")


def weighted(megabytes: int) -> onnx.ModelProto:
    """x · w with so many MB of weights, which nothing else shares a page with."""
    found = model("(float[N, 1000] x) => (float[N, M] y) { y = MatMul(x, w) }")
    weights = np.random.default_rng(0).standard_normal((1000, 250 * megabytes), np.float32)
    found.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return found


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_the_ratio_of_medians_has_its_interval() -> None:
    rng = np.random.default_rng(0)
    machine = rng.lognormal(0, 0.3, 200)  # what slows both down
    first, second = machine * rng.normal(1.0, 0.01, 200), machine * rng.normal(0.8, 0.01, 200)
    found = ratio_of_medians(second, first)
    assert found.low < found.ratio < found.high
    assert found.low < 0.8 < found.high
    assert found.high - found.low < 0.2
    assert found == ratio_of_medians(second, first)
    assert found.difference == "faster"
    assert ratio_of_medians(first, second).difference == "slower"


def test_noise_shows_no_difference_but_rarely() -> None:
    rng = np.random.default_rng(1)
    same = [ratio_of_medians(*rng.lognormal(0, 0.2, (2, 30)), seed=i).difference for i in range(200)]
    assert 0 < sum(one != "none" for one in same) < 20  # 5 % of 200 are expected


def test_a_model_is_as_fast_as_itself() -> None:
    found = ratio_of_medians([1.0, 2.0, 3.0] * 2, [1.0, 2.0, 3.0] * 2)
    assert (found.ratio, found.low, found.high) == (1, 1, 1)
    assert found.difference == "none"


def test_few_runs_show_nothing_however_far_apart() -> None:
    few = ratio_of_medians([1.0] * (FEWEST - 1), [9.0] * (FEWEST - 1))
    assert math.isnan(few.low)
    assert few.difference == "none"
    assert ratio_of_medians([1.0] * FEWEST, [9.0] * FEWEST).difference == "faster"
    assert math.isnan(spread([1.0]).low)
    assert spread([1.0]).std == 0


def test_a_clock_that_stands_still_shows_nothing() -> None:
    assert ratio_of_medians([0.0] * 9, [0.0] * 9).difference == "none"


def test_a_spread_is_what_numpy_says() -> None:
    taken = list(np.random.default_rng(2).lognormal(0, 0.5, 50))
    found = spread(taken)
    assert (found.min, found.max) == (min(taken), max(taken))
    assert found.mean == pytest.approx(np.mean(taken))
    assert found.std == pytest.approx(np.std(taken, ddof=1))
    assert found.min < found.low < found.median < found.high < found.p90 < found.max


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Ratio(0.8, 0.79, 0.81, 30), "1.25x faster"),
        (Ratio(1.1, 1.05, 1.2, 30), "1.10x slower"),
        (Ratio(0.98, 0.9, 1.001, 30), "no difference shown"),
        (Ratio(1.5, 1.0, 2.0, 30), "no difference shown"),
        (Ratio(0.5, math.nan, math.nan, 3), "no difference shown"),
        (Ratio(0.998, 0.997, 0.999, 30), "1.0020x faster"),
    ],
)
def test_a_difference_is_said_where_the_interval_shows_one(ratio: Ratio, said: str) -> None:
    assert difference(ratio).plain == said


# ---- shapes and feeds ------------------------------------------------------------------------------------------------


def test_the_kth_values_make_the_kth_set_and_single_ones_hold_in_all() -> None:
    sets = shape_sets({"batch": [1, 8], "length": [128]}, {"ids": [(1, 2), (3, 4)]})
    assert sets == [
        ShapeSet({"batch": 1, "length": 128}, {"ids": (1, 2)}),
        ShapeSet({"batch": 8, "length": 128}, {"ids": (3, 4)}),
    ]
    assert shape_sets({}, {}) == [ShapeSet({}, {})]
    assert shape_sets({"batch": 8}, {"ids": (1, 2), "scalar": ()}) == [
        ShapeSet({"batch": 8}, {"ids": (1, 2), "scalar": ()})
    ]


def test_sets_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="'--dim batch' is given 2 times, where there are 3 sets") as raised:
        shape_sets({"batch": [1, 8]}, {"ids": [(1,), (2,), (3,)]})
    assert raised.value.code == "GO110"


def test_sizes_that_follow_from_others_do() -> None:
    two = load(model("(float[B, S] x, float[B, T] past) => (y) { z = Concat<axis=1>(past, x) y = Add(z, z) }"))
    fed = feeds_for(two, dims={"S": 5}, shapes={"past": (2, 7)})
    assert {name: array.shape for name, array in fed.items()} == {"x": (2, 5), "past": (2, 7)}
    square = load(model("(float[N, K] a, float[M, P] b) => (y) { y = MatMul(a, b) }"))
    fed = feeds_for(square, dims={"K": 6}, shapes={})
    assert fed["b"].shape == (6, 128)


def test_what_has_a_default_is_not_fed() -> None:
    proto = model("(float[N] x, float[3] w) => (y) { y = Add(x, w) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    assert list(feeds_for(load(proto), dims={"N": 3}, shapes={})) == ["x"]
    given = {name: np.zeros(3, np.float32) for name in "xw"}
    assert list(feeds_for(load(proto), dims={}, shapes={}, inputs=given)) == ["x", "w"]


def test_items_are_the_first_leading_size_that_is_free() -> None:
    two = load(model("(float[3] scale, float[B, 3] x) => (y) { y = Mul(x, scale) }"))
    fed = feeds_for(two, dims={"B": 5}, shapes={})
    assert batch_of(two, fed) == 5
    fixed = load(model("(float[4, 3] x) => (y) { y = Neg(x) }"))
    assert batch_of(fixed, feeds_for(fixed, dims={}, shapes={})) is None


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("float[N, 4] z", "no input 'x'"),
        ("float[N, 5] x", "the input 'x' is float32[N, 5]"),
        ("int64[N, 4] x", "the input 'x' is int64[N, 4]"),
        ("float[N, 4] x, float[N] more", "no array for the input 'more'"),
    ],
)
def test_a_model_with_other_inputs_is_named_with_the_input(tmp_path: Path, inputs: str, said: str) -> None:
    first = load(model("(float[N, 4] x) => (y) { y = Neg(x) }"))
    read = inputs.split("] ")[1].split(",")[0]
    path = tmp_path / "other.onnx"
    onnx.save(model(f"({inputs}) => (y) {{ y = Neg({read}) }}"), path)
    with pytest.raises(UsageError) as raised:
        refuse_others(load(path), feeds_for(first, dims={}, shapes={}), first)
    assert raised.value.code == "GO111"
    assert said in raised.value.message
    assert raised.value.where == str(path)


# ---- agreement -------------------------------------------------------------------------------------------------------


def test_the_cosine_is_the_mean_over_items_of_the_first_float_output() -> None:
    a = {"n": np.array([1, 2]), "y": np.array([[1.0, 0.0], [0.0, 2.0]]), "z": np.ones(2)}
    b = {"n": np.array([9, 9]), "y": np.array([[1.0, 1.0], [0.0, 7.0]]), "z": -np.ones(2)}
    assert cosine(b, a) == pytest.approx((0.5**0.5 + 1) / 2)
    narrow = {"y": a["y"].astype(ml_dtypes.bfloat16)}
    assert cosine(narrow, a) == pytest.approx(1)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (np.zeros((1, 3)), np.zeros((1, 3)), 1.0),
        (np.zeros((1, 3)), np.ones((1, 3)), 0.0),
        (np.ones((1, 3)), np.ones((3, 1)), None),
        (np.full((1, 3), np.nan), np.ones((1, 3)), None),
        (np.ones(3, np.int64), np.ones(3, np.int64), None),
    ],
    ids=["both zero", "one zero", "shapes", "NaN", "integers"],
)
def test_a_cosine_of_what_has_none(ours: np.ndarray, theirs: np.ndarray, expected: float | None) -> None:
    assert cosine({"y": ours}, {"y": theirs}) == expected


# ---- alone in a process ----------------------------------------------------------------------------------------------


def test_memory_is_what_weights_and_activations_take(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(weighted(40), path)
    fed = {"x": np.ones((1000, 1000), np.float32)}  # 4 MB, for an output of 40 MB
    seen, outputs = observe(path, fed)
    held = seen.footprint
    assert 38e6 < held.model < 130e6  # once or packed as well
    assert 42e6 < held.activations < 130e6
    assert held.peak >= held.loaded + held.activations
    assert outputs["y"].shape == (1000, 10_000)
    small, _ = observe(path, {"x": np.ones((1, 1000), np.float32)})
    assert small.footprint.activations < held.activations - 35e6


def test_a_footprint_is_never_negative() -> None:
    held = Footprint(empty=10, loaded=9, loading=12, running=8, ran=8)
    assert (held.model, held.activations, held.peak) == (0, 0, 12)


def test_the_size_on_disk_counts_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(weighted(2), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = size_of(load(path))
    assert found.weights == 2_000_000
    assert found.disk == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert [Path(file).name for file in found.files] == ["model.onnx", "weights.bin"]


def test_a_profile_leaves_out_the_first_run() -> None:
    def ran(op: str, micros: int) -> Kernel:
        return Kernel("n", op, "", "CPUExecutionProvider", micros)

    first = [ran("Add", 900), ran("MatMul", 5000), ran("Add", 900)]
    later = [ran("Add", 10), ran("MatMul", 60), ran("Add", 30)]
    product, add = op_times([*first, *later, *later], 3)
    assert (product.op, product.count, product.provider) == ("MatMul", 1, "cpu")
    assert product.seconds == pytest.approx(60e-6)
    assert (add.op, add.count) == ("Add", 2)
    assert add.seconds == pytest.approx(40e-6)
    assert add.share == pytest.approx(0.4)


def test_nodes_that_fell_back_are_named(tmp_path: Path, fake_cuda: Callable[..., None]) -> None:
    fake_cuda("a card", on_cpu="Erf")
    proto = model("(float[N] x) => (float[N] y) { a = Erf(x) b = MatMul(a, a) y = Mul(a, b) }")
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    seen, _ = observe(proto.SerializeToString(), {"x": np.ones(4, np.float32)}, provider="cuda")
    assert seen.nodes == {"cpu": 1, "cuda": 2}
    assert seen.elsewhere == ("n0 (Erf)",)


# ---- models from anywhere --------------------------------------------------------------------------------------------


def test_a_model_is_timed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    proto = weighted(1)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = weighted(1)
    fed = {"x": np.ones((1, 1000), np.float32)}
    sources = [path, str(path), proto.SerializeToString(), proto, load(path), load(proto)]
    names = [str(number) for number in range(len(sources))]
    found = time_models(sources, fed, names=names, runs=3, warmup=1, threads=1)
    assert [one.model for one in found.latencies] == names
    assert found.shapes == {"x": (1, 1000)}
    assert all(one.wall.median > 0 and one.cpu.median > 0 for one in found.latencies)


def test_protos_are_benched_by_number() -> None:
    protos = [weighted(1), model("(float[N, 1000] x) => (y) { y = Neg(x) }")]
    found = bench(protos, dims={"N": [2]}, runs=1, threads=1)
    assert found.models == ("model 1", "model 2")
    assert [one.model for one in found.series[0].timing.latencies] == ["model 1", "model 2"]
    assert found.sizes[0].weights == 1_000_000
    assert abs(found.sizes[0].disk - protos[0].ByteSize()) < 200
    assert found.series[0].cosines == (1.0, None)


def test_a_model_without_inputs_is_benched() -> None:
    found = bench([model("() => (float[2] y) { y = Constant<value = float[2] {1, 2}>() }")], runs=1)
    assert shapes_of(found.series[0].timing) == "none"


def test_cpu_time_tells_who_works_less() -> None:
    slow = "a = MatMul(x, x) b = MatMul(a, x) y = MatMul(b, x)"
    protos = [model(f"(float[N, N] x) => (y) {{ {body} }}") for body in (slow, "y = MatMul(x, x)")]
    found = time_models(protos, {"x": np.ones((300, 300), np.float32)}, runs=9, threads=1)
    ratio = found.latencies[1].cpu_ratio
    assert ratio.difference == "faster"
    assert 0.2 < ratio.ratio < 0.6


def test_cpu_time_counts_work_and_no_waiting(tmp_path: Path) -> None:
    class Waits:
        request = None

        def call(self, feeds: object, outputs: object) -> Callable[[], None]:
            return lambda: time.sleep(0.01)

    sessions = Sessions(tmp_path)
    sessions._loaded = {0: Waits()}  # type: ignore[dict-item]
    (found,) = sessions.clock([0], {}, runs=5, warmup=1)
    assert (len(found.wall), len(found.cpu)) == (5, 5)
    assert min(found.wall) >= 0.01
    assert 0 < max(found.cpu) < 0.005


def test_what_is_refused_says_which_model_it_is() -> None:
    good = model("(float[N] x) => (y) { y = Neg(x) }")
    bad = helper.make_model(
        helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"], domain="some.domain")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("some.domain", 1)],
        ir_version=10,
    )
    with pytest.raises(RunError) as raised:
        time_models([good, bad.SerializeToString()], {"x": np.ones(2, np.float32)}, names=["good", "bad"])
    assert raised.value.where == "bad"
    with pytest.raises(ModelError):
        time_models([onnx.ModelProto()], {})
