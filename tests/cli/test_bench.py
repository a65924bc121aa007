"""`graphopt bench` and `graphopt demo`: timing side by side, and the model to do it with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, parser
from rich.console import Console

from graphopt.bench import BertConfig, bert, ratio_of_medians
from graphopt.pipeline import demo
from graphopt.report import schema, terminal
from graphopt.runtime import Runner

from .conftest import Cli, snapshot

TINY = BertConfig(layers=2, hidden=32, heads=4, intermediate=64, vocabulary=50, positions=40)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with Runner(timeout=60) as runner, runner.load(model.SerializeToString(), optimize=False) as session:
        return session.run(feeds)


def feeds(mask: list[list[int]]) -> dict[str, np.ndarray]:
    shape = np.shape(mask)
    ids = np.random.default_rng(0).integers(TINY.vocabulary, size=shape)
    return {"input_ids": ids, "attention_mask": np.array(mask), "token_type_ids": np.zeros(shape, np.int64)}


# ---- the model -------------------------------------------------------------------------------------------------------


def test_the_model_is_valid_seeded_and_in_parts() -> None:
    model = bert(TINY)
    onnx.checker.check_model(model, full_check=True)
    assert model == bert(TINY)
    assert model != bert(BertConfig(**{**vars(TINY), "seed": 1}))
    ops = {node.op_type for node in model.graph.node}
    assert {"Erf", "Pow", "ReduceMean", "Softmax", "Shape", "Concat"} <= ops
    assert not {"Gelu", "LayerNormalization", "Attention"} & ops


def test_its_size_is_that_of_bert_base() -> None:
    shapes = [tuple(t.dims) for t in bert(BertConfig(layers=1, vocabulary=10)).graph.initializer]
    assert (768, 3072) in shapes
    assert BertConfig().layers == 12
    assert BertConfig().vocabulary == 30_522


def test_the_mask_hides_what_it_masks_and_nothing_else() -> None:
    model = bert(TINY)
    whole = feeds([[1, 1, 1, 1, 1, 0]])
    other = {**whole, "input_ids": whole["input_ids"].copy()}
    other["input_ids"][0, 5] = (other["input_ids"][0, 5] + 1) % TINY.vocabulary
    first, second = (run(model, fed)["last_hidden_state"] for fed in (whole, other))
    np.testing.assert_array_equal(first[0, :5], second[0, :5])
    seen = {**other, "attention_mask": np.ones((1, 6), np.int64)}
    assert np.abs(run(model, seen)["last_hidden_state"][0, :5] - first[0, :5]).max() > 1e-2


def test_a_small_mistake_would_show() -> None:
    # At a training initialisation (std 0.02) the same mistake moves the output by 2e-5.
    model = bert(TINY)
    wrong = bert(TINY)
    scale = next(n for n in wrong.graph.node if n.op_type == "Div" and "attention" in n.name)
    constant = next(n for n in wrong.graph.node if n.output[0] == scale.input[1])
    value = onnx.numpy_helper.to_array(constant.attribute[0].t) * np.float32(1.1)
    constant.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(value))
    fed = feeds([[1] * 7, [1] * 4 + [0] * 3])
    a, b = (run(m, fed)["last_hidden_state"] for m in (model, wrong))
    assert 1e-3 < np.abs(a - b).max() < 1


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


def test_a_model_is_as_fast_as_itself() -> None:
    found = ratio_of_medians([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.ratio, found.low, found.high) == (1, 1, 1)


# ---- bench -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """One product of matrices, and the same with a second one that costs as much again."""
    paths = []
    for name, body in (("one", "y = MatMul(x, x)"), ("two", "a = MatMul(x, x) y = MatMul(a, x)")):
        text = f'<ir_version: 8, opset_import: ["": 17]> g (float[N, N] x) => (float[N, N] y) {{ {body} }}'
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(parser.parse_model(text), paths[-1])
    return paths


def test_bench_tells_which_is_faster(cli: Cli, pair: list[Path]) -> None:
    before = snapshot(pair[0].parent)
    done = cli("bench", pair[1], pair[0], "--dim", "N=300", "--runs", "7", "--threads", "1", "--json", "-")
    assert done.code == 0
    report = done.report
    assert (report["schema"], report["command"], report["runs"], report["threads"]) == ("graphopt/1", "bench", 7, 1)
    assert report["shapes"] == {"x": [300, 300]}
    first, second = report["models"]
    assert first["ratio"] == 1
    assert second["ratio"] < 1 < second["speedup"]
    assert second["interval"][0] <= second["ratio"] <= second["interval"][1]
    assert snapshot(pair[0].parent) == before


def test_bench_prints_the_speed_up(cli: Cli, pair: list[Path]) -> None:
    done = cli("bench", *pair, "--shape", "x=8,8", "--runs", "3", "--threads", "1")
    assert done.code == 0
    assert re.search(r"two\.onnx .* \d+\.\d\dx faster", done.out)
    assert "x (8, 8)" in done.out


def test_bench_takes_real_inputs(cli: Cli, pair: list[Path]) -> None:
    data = pair[0].with_name("inputs.npz")
    np.savez(data, x=np.eye(5, dtype=np.float32))
    assert cli("bench", pair[0], "--inputs", data, "--runs", "1", "--json", "-").report["shapes"] == {"x": [5, 5]}


def test_what_the_runtime_refuses_is_one_error(cli: Cli, tmp_path: Path) -> None:
    model = parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Neg(x) }')
    model.opset_import.append(helper.make_opsetid("some.domain", 1))
    model.graph.node[0].domain = "some.domain"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = cli("bench", path)
    assert done.code == 3
    assert done.err.count("error[") == 1
    assert str(path) in done.err


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo_fuses_verifies_and_times(tmp_path: Path) -> None:
    done = demo(tmp_path, TINY, shape=(2, 16), runs=3, threads=1)
    assert done.fusion.verdict == "equal"
    assert done.fusion.exit_code == 0
    assert done.fusion.fused == {"Attention": 2, "Gelu": 2, "LayerNormalization": 5}
    assert done.fusion.rolled_back == ()
    assert {path.name for path in tmp_path.iterdir()} == {"bert.onnx", "bert.fused.onnx"}
    report = schema.demo(done)
    assert report["command"] == "demo"
    assert len(report["latency"]["models"]) == 2
    console = Console(width=100)
    with console.capture() as captured:
        console.print(terminal.demo(done))
    assert re.search(r"\d\.\d\dx faster", captured.get())
