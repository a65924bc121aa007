"""`graphopt bench` and `graphopt demo`: timing side by side, and the model to do it with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, parser
from rich.console import Console

from graphopt.bench import BertConfig, bert
from graphopt.pipeline import demo
from graphopt.report import timing, timing_schema
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


def test_bench_tells_which_is_faster_and_what_each_costs(cli: Cli, pair: list[Path]) -> None:
    before = snapshot(pair[0].parent)
    done = cli("bench", pair[1], pair[0], "--dim", "N=300", "--runs", "9", "--threads", "1", "--json", "-")
    assert done.code == 0
    report = done.report
    assert (report["schema"], report["command"], report["runs"], report["threads"]) == ("graphopt/1", "bench", 9, 1)
    assert report["shapes"] == {"x": [300, 300]}
    first, second = report["models"]
    assert (first["ratio"], first["difference"]) == (1, "none")
    for clock in (second, second["cpu"]):
        assert clock["ratio"] < 1 < clock["speedup"]
        assert clock["interval"][0] <= clock["ratio"] <= clock["interval"][1]
    assert second["cpu"]["difference"] == "faster"
    assert second["min"] <= second["median_interval"][0] <= second["median"] <= second["median_interval"][1]
    assert second["throughput"] == pytest.approx(300 / second["median"])
    assert second["size"] == {"disk": pair[0].stat().st_size, "weights": 0, "files": [str(pair[0])]}
    assert second["memory"]["peak"] >= second["memory"]["loaded"] >= second["memory"]["empty"] > 10e6
    assert (second["nodes"], second["elsewhere"], second["profile"]) == ({"cpu": 1}, [], None)
    assert -1 <= second["cosine"] < 0.99999
    assert first["cosine"] == 1
    assert snapshot(pair[0].parent) == before


def test_a_name_given_again_is_another_set_of_shapes(cli: Cli, pair: list[Path]) -> None:
    sizes = ["--shape", "x=8,8", "--shape", "x=200,200"]
    done = cli("bench", *pair, *sizes, "--runs", "7", "--threads", "1", "--profile", "--json", "-")
    report = done.report
    assert [one["shapes"] for one in report["series"]] == [{"x": [8, 8]}, {"x": [200, 200]}]
    assert [one["batch"] for one in report["series"]] == [8, 200]
    small, large = (one["models"] for one in report["series"])
    assert report["models"] == small
    assert small[1]["cpu"]["median"] < large[1]["cpu"]["median"]
    (product,) = large[1]["profile"]
    assert (product["op"], product["count"], product["provider"], product["share"]) == ("MatMul", 2, "cpu", 1.0)
    assert 0 < product["seconds"] < 1


def test_bench_says_the_difference_in_words(cli: Cli, pair: list[Path]) -> None:
    done = cli("bench", *pair, "--shape", "x=300,300", "--runs", "9", "--warmup", "1", "--threads", "1", "--profile")
    assert done.code == 0
    assert "inputs x (300, 300)" in done.out
    lines = [line.split() for line in done.out.splitlines()]
    assert ["one.onnx", "two.onnx"] in lines
    assert [row[-1] for row in lines if row[:1] == ["difference"]][-1] == "slower"
    assert re.search(r"CPU time .*\n +difference +\d\.\d\dx slower", done.out)
    assert re.search(r"op of two\.onnx +count +ms +share +provider *\nMatMul +2 ", done.out)
    assert re.search(r"peak memory +\d+\.\d MB +\d+\.\d MB", done.out)
    assert "9 runs each, in turn, in onnxruntime's default session on cpu with 1 thread, after 1 to warm up" in done.out


def test_a_few_runs_show_no_difference(cli: Cli, pair: list[Path]) -> None:
    done = cli("bench", *pair, "--shape", "x=200,200", "--runs", "3", "--threads", "1")
    assert done.out.count("no difference shown") == 2
    assert "takes 6 runs" in done.out
    assert not re.search("faster|slower", done.out)


def test_one_model_alone_is_beside_nothing(cli: Cli, pair: list[Path]) -> None:
    done = cli("bench", pair[0], "--dim", "N=4", "--runs", "1", "--warmup", "0")
    assert done.code == 0
    assert "difference" not in done.out
    assert "throughput" in done.out


def test_bench_takes_real_inputs(cli: Cli, pair: list[Path]) -> None:
    data = pair[0].with_name("inputs.npz")
    np.savez(data, x=np.eye(5, dtype=np.float32))
    done = cli("bench", *pair, "--inputs", data, "--runs", "1", "--json", "-")
    assert done.report["shapes"] == {"x": [5, 5]}
    assert done.report["models"][1]["cosine"] == 1  # the powers of the unit matrix are one
    done = cli("bench", pair[0], "--inputs", data, "--shape", "x=5,5")
    assert (done.code, done.err.count("error[GO110]")) == (2, 1)
    done = cli("bench", pair[0], "--inputs", data, "--dim", "N=6")
    assert (done.code, done.err.count("error[GO018]")) == (2, 1)


def test_models_with_other_inputs_are_one_error(cli: Cli, pair: list[Path], gelu: Path) -> None:
    done = cli("bench", pair[0], gelu)
    assert done.code == 2
    assert done.err.startswith("error[GO111]: ")
    assert f"--> {gelu}" in done.err
    assert "'x' is float32[N, 16]" in done.err


def test_a_length_that_nobody_asked_for_is_made_to_fit(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bert.onnx"
    onnx.save(bert(TINY), path)  # 40 positions
    done = cli("bench", path, "--runs", "1", "--json", "-")
    assert done.report["shapes"]["input_ids"] == [1, 32]
    done = cli("bench", path, "--runs", "1", "--dim", "sequence=50")
    assert (done.code, done.err.count("error[GO055]")) == (3, 1)


def test_what_the_runtime_refuses_is_one_error(cli: Cli, pair: list[Path], tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, N] x) => (float[N, N] y) { y = Neg(x) }'
    )
    model.opset_import.append(helper.make_opsetid("some.domain", 1))
    model.graph.node[0].domain = "some.domain"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = cli("bench", pair[0], path)
    assert done.code == 3
    assert done.err.count("error[") == 1
    assert f"--> {path}" in done.err


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo_fuses_verifies_and_times(tmp_path: Path) -> None:
    done = demo(tmp_path, TINY, shape=(2, 16), runs=9, threads=1)
    assert done.fusion.verdict == "equal"
    assert done.fusion.exit_code == 0
    assert done.fusion.fused == {"Attention": 2, "Gelu": 2, "LayerNormalization": 5}
    assert done.fusion.rolled_back == ()
    assert {path.name for path in tmp_path.iterdir()} == {"bert.onnx", "bert.fused.onnx"}
    report = timing_schema.demo(done)
    assert report["command"] == "demo"
    assert len(report["latency"]["models"]) == 2
    assert report["latency"]["models"][1]["cpu"]["ratio"] > 0
    console = Console(width=100)
    with console.capture() as captured:
        console.print(timing.demo(done))
    # What a model as small as this one gains, other processes may hide.
    assert re.search(r"\d\.\d\dx faster|\d\.\d\dx slower|no difference shown", captured.get())
    assert "bert.fused.onnx" in captured.get()


# ---- what cannot be --------------------------------------------------------------------------------------------------


def test_a_picture_and_a_report_are_two_files(cli: Cli, gelu: Path) -> None:
    both = gelu.with_name("both.svg")
    done = cli("bench", gelu, "--runs", 1, "--plot", both, "--json", both)
    assert done.code == 2
    assert "error[GO014]: the report would overwrite the picture" in done.err
    assert not both.exists()


def test_sizes_that_no_usual_length_is_are_asked_for(cli: Cli, tmp_path: Path) -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]> twelve (float[N, S] x) => (float[M, 3, 4] y) {
        cut = Constant<value_ints = [-1, 3, 4]>()
        y = Reshape(x, cut)
    }""")
    onnx.save(model, tmp_path / "model.onnx")
    done = cli("bench", tmp_path / "model.onnx", "--runs", 1)
    assert done.code == 3
    assert "hint: pass --shape NAME=SIZES or --dim NAME=N" in done.err
    assert cli("bench", tmp_path / "model.onnx", "--runs", 1, "--dim", "S=12").code == 0
