"""`graphopt quantize`: each mode from the command line to the file that was written."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from graphopt import pipeline
from graphopt.bench.paired import Ratio
from graphopt.pipeline.workspace import Workspace
from graphopt.runtime import Runner

from .conftest import HEAD, Cli, snapshot
from .processes import GRAPHOPT
from .test_process import environment

WIDTH = 64
LAYERS = f"""layers (float[N, {WIDTH}] x) => (float[N, {WIDTH}] y) {{
    h = MatMul(x, w)
    b = Add(h, bias)
    r = Relu(b)
    y = MatMul(r, v)
}}"""
REPORT = {"schema", "command", "verdict", "mode", "sites", "integer", "accuracy", "size", "latency"}
"""What CLI.md promises of the JSON report."""
QUICK = ("--verify", "off", "--allow-slower")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights whose products have the size of what they are multiplied with."""
    scale = 1 / np.sqrt(shape[-2] if len(shape) > 1 else 1)
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def model_of(text: str, head: str = HEAD, **weights: Any) -> onnx.ModelProto:
    model = parser.parse_model(f"{head} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(data), name) for name, data in weights.items())
    return model


def layers(**weights: np.ndarray) -> onnx.ModelProto:
    """Two products with a bias and a ReLU between them."""
    usual = {"w": numbers(WIDTH, WIDTH), "bias": numbers(WIDTH, seed=1), "v": numbers(WIDTH, WIDTH, seed=2)}
    return model_of(LAYERS, **usual | weights)


def samples(count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def ops(path: Path) -> Counter[str]:
    """How often each operator is in a model, in its subgraphs too."""
    graphs = [onnx.load(path).graph]
    for graph in graphs:
        graphs += [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return Counter(node.op_type for graph in graphs for node in graph.node)


def cosine(original: Path, made: Path, feeds: Mapping[str, np.ndarray]) -> float:
    """Between all outputs of two models, both as onnxruntime runs them."""
    found = []
    with Runner(timeout=60) as runner:
        for path in (original, made):
            with runner.load(path, optimize=True) as session:
                found.append(np.concatenate([one.ravel().astype(float) for one in session.run(feeds).values()]))
    a, b = found
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


class Took:
    """A latency of which only the ratio is known."""

    def __init__(self, ratio: float) -> None:
        self.cpu_ratio = self.ratio = Ratio(ratio, ratio * 0.9, ratio * 1.1, 21)


@pytest.fixture
def timed() -> None:
    """Asked for by a test that takes real times."""


@pytest.fixture(autouse=True)
def _untimed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "timed" not in request.fixturenames:
        monkeypatch.setattr(Workspace, "latency", lambda workspace, made: Took(0.5))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(layers(), path)
    return path


@pytest.fixture
def calib(model: Path) -> Path:
    path = model.with_name("data.npz")
    np.savez(path, x=samples(64))
    return path


MODES = {
    "dynamic": ("dynamic", "DynamicQuantizeLinear"),
    "static": ("static", "QuantizeLinear"),
    "weight-only": ("weights8", "MatMulNBits"),
    "auto": ("static", "QuantizeLinear"),
    "float16": ("float16", "Cast"),
}
"""For each mode the scheme of the products, and an operator by which it is known in the file."""


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_writes_a_model_that_is_near(cli: Cli, model: Path, calib: Path, timed: None, mode: str) -> None:
    scheme, op = MODES[mode]
    before = snapshot(model.parent)
    data = ("--calib", calib, "--calib-batch", 8) if mode in ("static", "auto") else ()

    done = cli("quantize", model, "--mode", mode, *data, "--allow-slower", "--json", "-")

    assert done.code == 0, done.err
    output = model.with_suffix(".float16.onnx" if mode == "float16" else ".int8.onnx")
    assert snapshot(model.parent).keys() - before.keys() == {output.name}
    assert snapshot(model.parent).items() >= before.items()
    report = done.report
    assert report.keys() >= REPORT
    assert (report["schema"], report["command"], report["mode"]) == ("graphopt/1", "quantize", mode)
    assert report["verdict"] == "equal"
    assert [site["name"] for site in report["sites"]] == ["h", "y"]
    assert {site["scheme"] for site in report["sites"]} == {scheme}
    assert report["size"] == {"before": model.stat().st_size, "after": output.stat().st_size}
    assert report["size"]["after"] < report["size"]["before"] * 0.6
    assert report["integer"]["running"] == (0 if mode == "float16" else 2)
    assert report["accuracy"]["holdout"] > 0.999
    assert report["latency"]["ratio"] > 0
    assert report["accuracy"]["made"] is (not data)
    assert op in ops(output)
    assert cosine(model, output, {"x": samples(5, seed=9)}) > 0.999


def test_words_say_what_was_written_and_on_what_it_was_judged(cli: Cli, model: Path) -> None:
    done = cli("quantize", model, *QUICK)
    assert done.code == 0, done.err
    assert str(model.with_suffix(".int8.onnx")) in done.out
    assert "auto is dynamic quantization" in done.out
    assert "made-up" in done.out
    assert "100 %: 2 of 2 products" in done.out


def test_a_dry_run_reports_and_writes_no_model(cli: Cli, model: Path) -> None:
    page, report = model.with_name("page.html"), model.with_name("report.json")
    done = cli("quantize", model, *QUICK, "--dry-run", "--report", page, "--json", report)
    assert done.code == 0, done.err
    assert snapshot(model.parent).keys() == {"model.onnx", "page.html", "report.json"}
    assert json.loads(report.read_text())["output"] is None
    assert "<html" in page.read_text()
    assert "DynamicQuantizeMatMul" in page.read_text()


@pytest.mark.parametrize(
    ("flags", "schemes"),
    [
        (["--exclude", "h"], ["float", "dynamic"]),
        (["--scheme", "v=weights4", "--scheme", "h=float"], ["float", "weights4"]),
        (["--mode", "weight-only", "--weight-bits", "4", "--block", "16"], ["weights4", "weights4"]),
    ],
)
def test_single_products_are_what_is_asked_for(cli: Cli, model: Path, flags: list[str], schemes: list[str]) -> None:
    done = cli("quantize", model, *QUICK, *flags, "--json", "-")
    assert done.code == 0, done.err
    assert [site["scheme"] for site in done.report["sites"]] == schemes


def test_a_metric_of_ones_own_sees_both_models_outputs(cli: Cli, model: Path) -> None:
    metric = model.with_name("own.py")
    metric.write_text(
        "def distance(float_model, quantized, feed):\n    return -abs(float_model['y'] - quantized['y']).max()\n"
    )
    done = cli("quantize", model, *QUICK, "--metric", f"{metric}:distance", "--json", "-")
    assert done.code == 0, done.err
    assert -0.1 < done.report["accuracy"]["holdout"] < 0


def test_a_budget_is_kept_by_what_is_less_cheap(cli: Cli, model: Path, calib: Path) -> None:
    def run(budget: float) -> tuple[float, set[str]]:
        done = cli("quantize", model, *QUICK, "--calib", calib, "--max-drop", budget, "--json", "-")
        assert done.code == 0, done.err
        report = done.report
        return report["accuracy"]["holdout"], {site["scheme"] for site in report["sites"]}

    _, cheap = run(0.05)
    near, dear = run(3e-5)
    assert cheap == {"static"}
    assert dear == {"static", "float"}
    assert near >= 1 - 3e-5


# ---- models that are not just products in a row ----------------------------------------------------------------------

BODY = f"""<ir_version: 8, opset_import: ["": 17]> branches (float[N, {WIDTH}] x, bool c) => (float[N, {WIDTH}] y) {{
    y = If (c) <
        then_branch = yes () => (float[N, {WIDTH}] t) {{ t = MatMul(x, w) }},
        else_branch = no () => (float[N, {WIDTH}] e) {{ p = MatMul(x, v) e = Relu(p) }}
    >
}}"""
TIED = """tied (int64[B, S] ids) => (float[B, S, 100] y) {
    e = Gather(table, ids)
    h = MatMul(e, w)
    r = Relu(h)
    turned = Transpose<perm = [1, 0]>(table)
    y = MatMul(r, turned)
}"""


def test_products_in_branches_are_dynamic(cli: Cli, tmp_path: Path) -> None:
    path, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    model = parser.parse_model(BODY)
    weights = {"w": numbers(WIDTH, WIDTH), "v": numbers(WIDTH, WIDTH, seed=1)}
    model.graph.initializer.extend(numpy_helper.from_array(data, name) for name, data in weights.items())
    onnx.save(model, path)
    done = cli("quantize", path, "-o", output, "--allow-slower", "--json", "-")
    assert done.code == 0, done.err
    assert [site["scheme"] for site in done.report["sites"]] == ["dynamic", "dynamic"]
    assert ops(output)["DynamicQuantizeLinear"] >= 1
    for branch in (True, False):
        assert cosine(path, output, {"x": samples(3), "c": np.array(branch)}) > 0.999


def test_a_table_that_is_a_matrix_as_well_stays_a_table(cli: Cli, tmp_path: Path) -> None:
    path, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(model_of(TIED, table=numbers(100, WIDTH) * 10, w=numbers(WIDTH, WIDTH, seed=1)), path)
    done = cli("quantize", path, "-o", output, *QUICK, "--json", "-")
    assert done.code == 0, done.err
    assert done.report["integer"] | {"share": 1} == {"planned": 2, "running": 2, "all": 2, "share": 1}
    assert ops(output)["Gather"] == 1
    assert cosine(path, output, {"ids": np.arange(14).reshape(2, 7)}) > 0.999


def test_what_the_callers_may_override_is_no_constant(cli: Cli, tmp_path: Path) -> None:
    path, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    text = f"""own (float[N, {WIDTH}] x, float[{WIDTH}, {WIDTH}] w) => (float[N, {WIDTH}] y) {{
        h = MatMul(x, w)
        r = Relu(h)
        y = MatMul(r, v)
    }}"""
    onnx.save(model_of(text, w=numbers(WIDTH, WIDTH), v=numbers(WIDTH, WIDTH, seed=1)), path)
    done = cli("quantize", path, "-o", output, *QUICK, "--json", "-")
    assert done.code == 0, done.err
    assert [site["name"] for site in done.report["sites"]] == ["y"]
    assert cosine(path, output, {"x": samples(3), "w": numbers(WIDTH, WIDTH, seed=7)}) > 0.999


TRAINED = f"""trained (float[N, {WIDTH}] x) => (float[N, {WIDTH}] y) {{
    q = QuantizeLinear(x, scale, zero)
    d = DequantizeLinear(q, scale, zero)
    w = DequantizeLinear(integers, step, none)
    y = MatMul(d, w)
}}"""


@pytest.mark.parametrize("mode", ["dynamic", "weight-only"])
def test_a_model_trained_with_quantization_keeps_its_integers(cli: Cli, tmp_path: Path, mode: str) -> None:
    path, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    integers = np.random.default_rng(0).integers(-127, 128, (WIDTH, WIDTH), np.int8)
    grid = {"scale": np.float32(0.03), "zero": np.uint8(128), "step": np.float32(0.002), "none": np.int8(0)}
    onnx.save(model_of(TRAINED, integers=integers, **grid), path)
    done = cli("quantize", path, "-o", output, *QUICK, "--mode", mode, "--json", "-")
    assert done.code == 0, done.err
    assert done.report["integer"]["share"] == 1
    assert cosine(path, output, {"x": samples(3)}) > 0.9999
    assert cli("quantize", output).code == 3


def test_sizes_are_found_at_which_the_model_runs(cli: Cli, tmp_path: Path) -> None:
    # 12 and its multiples alone: none of the usual lengths.
    text = f"""rows (float[N, S] x) => (float[M, {WIDTH}] y) {{
        cut = Constant<value_ints = [-1, 3, 4]>()
        long = Constant<value_ints = [-1, 12]>()
        a = Reshape(x, cut)
        b = Reshape(a, long)
        y = MatMul(b, w)
    }}"""
    onnx.save(model_of(text, w=numbers(12, WIDTH)), tmp_path / "model.onnx")
    done = cli("quantize", tmp_path / "model.onnx", *QUICK)
    assert done.code == 0, done.err


@pytest.mark.parametrize("mode", ["static", "weight-only"])
@pytest.mark.parametrize("rank", [None, 1])
def test_activations_of_one_axis_or_of_no_known_rank(cli: Cli, tmp_path: Path, rank: int | None, mode: str) -> None:
    model = model_of(f"one (float[{WIDTH}] x) => (float[{WIDTH}] y) {{ h = MatMul(x, w) y = Add(h, b) }}")
    model.graph.initializer.append(numpy_helper.from_array(numbers(WIDTH, WIDTH), "w"))
    model.graph.initializer.append(numpy_helper.from_array(numbers(WIDTH), "b"))
    if rank is None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    feeds = [{"x": samples(1, seed=i)[0]} for i in range(8)]
    for number, feed in enumerate(feeds):
        np.savez(tmp_path / "data" / f"{number}.npz", **feed)
    done = cli("quantize", tmp_path / "model.onnx", *QUICK, "--mode", mode, "--calib", tmp_path / "data")
    assert (done.code, done.err) == (0, "")
    assert cosine(tmp_path / "model.onnx", tmp_path / "model.int8.onnx", feeds[0]) > 0.99


def test_numbers_that_overflow_when_squared_warn_nobody(cli: Cli, tmp_path: Path) -> None:
    onnx.save(layers(w=numbers(WIDTH, WIDTH) * np.float32(1e25)), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=samples(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = cli("quantize", tmp_path / "model.onnx", *QUICK, "--mode", "dynamic", "--calib", tmp_path / "data.npz")
    assert (done.code, done.err) == (0, "")


def test_random_numbers_are_said_to_make_the_accuracy_what_it_is(cli: Cli, tmp_path: Path) -> None:
    text = f"""noisy (float[N, {WIDTH}] x) => (float[N, {WIDTH}] y) {{
        h = MatMul(x, w)
        noise = RandomNormalLike(h)
        y = Add(h, noise)
    }}"""
    onnx.save(model_of(text, w=numbers(WIDTH, WIDTH)), tmp_path / "model.onnx")
    done = cli("quantize", tmp_path / "model.onnx", *QUICK)
    assert done.code == 0, done.err
    assert "the model draws random numbers" in done.out


def test_strings_pass_through(cli: Cli, tmp_path: Path) -> None:
    text = f"""both (float[N, {WIDTH}] x, string[N] s) => (float[N, {WIDTH}] y, string[N] t) {{
        y = MatMul(x, w)
        t = Identity(s)
    }}"""
    onnx.save(model_of(text, w=numbers(WIDTH, WIDTH)), tmp_path / "model.onnx")
    done = cli("quantize", tmp_path / "model.onnx", *QUICK)
    assert done.code == 0, done.err


# ---- large weights, and other runs beside ----------------------------------------------------------------------------


def large(path: Path, count: int, width: int) -> None:
    """A chain of `count` products whose weights (width, width) lie beside the model."""
    nodes = "".join(f"h{i} = MatMul(x{i}, w{i})\n x{i + 1} = Tanh(h{i})\n" for i in range(count))
    model = parser.parse_model(f"{HEAD} chain (float[N, {width}] x0) => (float[N, {width}] x{count}) {{ {nodes} }}")
    size = 4 * width * width
    with path.with_suffix(".bin").open("wb") as file:
        for i in range(count):
            file.write(numbers(width, width, seed=i).tobytes())
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": path.with_suffix(".bin").name, "offset": i * size, "length": size}.items():
                tensor.external_data.add(key=key, value=str(value))
            model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())


def test_weights_are_not_in_memory_all_at_once(tmp_path: Path) -> None:
    count, width = 16, 512
    largest = 4 * width * width
    large(tmp_path / "small.onnx", 1, 64)
    large(tmp_path / "model.onnx", count, width)
    # What is imported on the way is not counted.
    pipeline.quantize(tmp_path / "small.onnx", mode="weight-only", verify="off")
    tracemalloc.start()
    try:
        result = pipeline.quantize(tmp_path / "model.onnx", mode="weight-only", verify="off")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.integer_running == count
    # Twice the largest, and what Python itself takes.
    assert peak < 2 * largest + (5 << 20) < count * largest / 2


def test_two_runs_in_one_folder_do_not_meet(root: Path, model: Path) -> None:
    scratch = model.parent / "scratch"
    scratch.mkdir()
    runs = [
        subprocess.Popen(
            [*GRAPHOPT, "quantize", model, "-o", model.with_name("out.onnx"), *QUICK, "--quiet"],
            env=environment(root, TMPDIR=str(scratch), PYTHONDONTWRITEBYTECODE="1"),
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    assert [(*run.communicate(), run.returncode) for run in runs] == [(None, b"", 0)] * 2
    assert snapshot(model.parent).keys() == {"model.onnx", "out.onnx"}
    assert cosine(model, model.with_name("out.onnx"), {"x": samples(3)}) > 0.999
