"""`graphopt quantize` where something is wrong: one clear error, nothing written, nothing touched."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import graphopt
from graphopt.errors import UsageError
from graphopt.pipeline.workspace import Workspace

from .conftest import Cli, Outcome, snapshot
from .test_bad_models import BROKEN, Break
from .test_process import interrupted
from .test_quantize import QUICK, WIDTH, Took, layers, model_of, numbers, samples

ERROR = re.compile(r"error\[GO\d{3}\]: .+\n(  --> .+\n)?(  hint: .+\n)?")
LIMITS = f"""cut (float[N, {WIDTH}] x) => (float[N, {WIDTH}] y) {{
    h = MatMul(x, w)
    threes = Constant<value_ints = [-1, 3, {WIDTH}]>()
    rows = Constant<value_ints = [-1, {WIDTH}]>()
    a = Reshape(h, threes)
    y = Reshape(a, rows)
}}"""
"""A model that runs on batches of three, six, … samples alone."""

Data = Callable[[Path], object]
"""Writes calibration data into a folder; returns what `--calib` is given."""


@pytest.fixture(autouse=True)
def _quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(Workspace, "latency", lambda workspace, made: Took(0.5))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(layers(), path)
    return path


def fails(cli: Cli, code: int, says: str, model: Path, *flags: object) -> Outcome:
    """Runs what must fail with one error that says `says`, and leaves the folder of the model as it was."""
    before = snapshot(model.parent)
    done = cli("quantize", model, "--verify", "off", *flags)
    assert done.code == code, done
    assert ERROR.fullmatch(done.err), done.err
    assert re.search(says, done.err), done.err
    assert snapshot(model.parent) == before
    return done


# ---- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_model_is_one_error(cli: Cli, tmp_path: Path, broken: Break) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    broken(folder / "model.onnx")
    fails(cli, 3, BROKEN[broken], folder / "model.onnx")


def plain(nodes: str, inputs: str = "", outputs: str = "", **weights: Any) -> onnx.ModelProto:
    inputs, outputs = inputs or f"float[N, {WIDTH}] x", outputs or f"float[N, {WIDTH}] y"
    return model_of(f"g ({inputs}) => ({outputs}) {{ {nodes} }}", **weights)


SQUARE = numbers(WIDTH, WIDTH)
HOLED = np.where(np.arange(SQUARE.size).reshape(SQUARE.shape) == 70, np.nan, SQUARE).astype(np.float32)
NOTHING = {
    "no product": (plain("y = Relu(x)"), "no product with constant float weights"),
    "no constants": (plain("y = MatMul(x, z)", f"float[N, {WIDTH}] x, float[{WIDTH}, {WIDTH}] z"), "no product"),
    "overridable": (
        plain("y = MatMul(x, w)", f"float[N, {WIDTH}] x, float[{WIDTH}, {WIDTH}] w", w=SQUARE),
        "no product with constant float weights",
    ),
    "NaN": (plain("y = MatMul(x, w)", w=HOLED), "hold NaN or infinities"),
    "half precision": (
        plain("y = MatMul(x, w)", f"float16[N, {WIDTH}] x", f"float16[N, {WIDTH}] y", w=SQUARE.astype(np.float16)),
        "float16, not float32",
    ),
    "a batch of matrices": (
        plain("y = MatMul(x, w)", f"float[2, N, {WIDTH}] x", f"float[2, N, {WIDTH}] y", w=np.stack([SQUARE, SQUARE])),
        "a batch of matrices",
    ),
    "empty weights": (
        plain("y = MatMul(x, w)", outputs="float[N, 0] y", w=np.zeros((WIDTH, 0), np.float32)),
        "weights are empty",
    ),
    "a convolution without data": (
        plain("y = Conv(x, w)", "float[N, 3, 8, 8] x", "float[N, 4, 8, 8] y", w=numbers(4, 3, 1, 1)),
        "convolutions need calibration",
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_to_quantize_is_said_with_the_reason(cli: Cli, tmp_path: Path, name: str) -> None:
    model, reason = NOTHING[name]
    onnx.save(model, tmp_path / "model.onnx")
    fails(cli, 1, rf"\[GO146\].*{reason}", tmp_path / "model.onnx")


def test_an_opset_that_has_no_integers_is_the_reason(cli: Cli, tmp_path: Path) -> None:
    model = plain("y = MatMul(x, w)", w=SQUARE)
    model.opset_import[0].version = 9
    onnx.save(model, tmp_path / "model.onnx")
    before = snapshot(tmp_path)
    done = cli("quantize", tmp_path / "model.onnx", *QUICK)
    assert done.code == 1
    assert re.search(r"\[GO146\].*opset 9 is older than", done.err), done.err
    assert snapshot(tmp_path) == before


def test_weights_with_nan_leave_the_others_alone(cli: Cli, model: Path) -> None:
    onnx.save(layers(v=HOLED), model)
    done = cli("quantize", model, *QUICK, "--json", "-")
    assert done.code == 0, done.err
    assert [site["scheme"] for site in done.report["sites"]] == ["dynamic", "float"]
    assert done.report["unfused"] == [{"reason": "its weights hold NaN or infinities", "sites": ["y"]}]


def test_outputs_that_no_metric_compares_are_named_before_any_work(cli: Cli, tmp_path: Path) -> None:
    nodes = "h = MatMul(x, w) y = ArgMax<axis = -1>(h)"
    onnx.save(plain(nodes, outputs="int64[N, 1] y", w=SQUARE), tmp_path / "model.onnx")
    fails(cli, 3, r"\[GO143\].*no output is of floating-point numbers.*\n.*\n.*--metric", tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (plain("h = MatMul(x, w) y = Add(h, b)", w=SQUARE, b=numbers(3)), "GO054"),
        (
            helper.make_model(
                helper.make_graph(
                    [helper.make_node("Bar", ["x"], ["y"], domain="foo")],
                    "g",
                    [helper.make_tensor_value_info("x", 1, ["N"])],
                    [helper.make_tensor_value_info("y", 1, ["N"])],
                ),
                opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("foo", 1)],
                ir_version=8,
            ),
            "--custom-ops",
        ),
    ],
    ids=["shapes", "custom op"],
)
def test_what_onnxruntime_refuses_is_the_users_model(
    cli: Cli, tmp_path: Path, model: onnx.ModelProto, says: str
) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    done = fails(cli, 3, says, tmp_path / "model.onnx")
    assert f"--> {tmp_path / 'model.onnx'}" in done.err


def test_inputs_of_no_known_rank_ask_for_data(cli: Cli, tmp_path: Path) -> None:
    model = plain("y = MatMul(x, w)", w=SQUARE)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    fails(cli, 4, r"\[GO017\].*'x'.*\n.*\n.*--calib DATA", tmp_path / "model.onnx")


def test_a_quantized_model_is_not_quantized_again(cli: Cli, model: Path) -> None:
    assert cli("quantize", model, *QUICK).code == 0
    output = model.with_suffix(".int8.onnx")
    for mode in ("dynamic", "float16"):
        done = fails(cli, 3, r"\[GO140\]", output, "--mode", mode)
        assert f"--> {output}" in done.err


# ---- calibration data ------------------------------------------------------------------------------------------------


def archive(**arrays: Any) -> Data:
    def write(folder: Path) -> Path:
        np.savez(folder / "data.npz", **arrays)
        return folder / "data.npz"

    return write


def files(sizes: Sequence[int]) -> Data:
    """A folder with one batch of each of these numbers of samples; below zero: a file that is none."""

    def write(folder: Path) -> Path:
        (folder / "data").mkdir()
        for number, size in enumerate(sizes):
            path = folder / "data" / f"{number}.npz"
            if size < 0:
                path.write_bytes(b"none")
            else:
                np.savez(path, x=samples(size, seed=number))
        return folder / "data"

    return write


def script(body: str) -> Data:
    def write(folder: Path) -> Path:
        (folder / "data.py").write_text(f"import numpy as np\n{body}\n")
        return folder / "data.py"

    return write


def holed(count: int, at: int) -> np.ndarray:
    data = samples(count)
    data[at, 0] = np.nan
    return data


BAD_DATA: dict[str, tuple[Data, str]] = {
    "wrong name": (archive(xx=samples(8)), r"no input 'xx'[\s\S]*did you mean x"),
    "one too many": (archive(x=samples(8), z=samples(8)), "no input 'z'"),
    "wrong shape": (archive(x=samples(8)[:, :9]), f"a size of {WIDTH} is wanted, not 9"),
    "wrong rank": (archive(x=samples(8)[:, :, None, None]), "dimensions are wanted"),
    "wrong type": (archive(x=samples(8).astype(np.int64)), r"astype\('float32'\)"),
    "text": (archive(x=samples(8).astype(str)), r"astype\('float32'\)"),
    "NaN": (archive(x=holed(8, 5)), r"'x' has NaN: 1 of 64 numbers\n  --> .*: sample 5"),
    "infinities": (archive(x=np.full((8, WIDTH), np.inf, np.float32)), "has infinities"),
    "no sample": (archive(x=samples(0)), r"\[GO118\]"),
    "no array": (archive(), r"\[GO118\]"),
    "nowhere": (lambda folder: folder / "nope.npz", r"\[GO115\].*no such"),
    "another file": (lambda folder: folder / "model.onnx", "no .npz archive"),
    "an empty folder": (files([]), "no .npz file in the folder"),
    "a bad file": (files([3, 3, 3, -1]), r"3\.npz"),
    "an empty batch": (files([3, 3, 0, 3]), r"\[GO117\].*empty[\s\S]*2\.npz"),
    "no function": (script("x = 1"), r"\[GO119\].*no function batches"),
    "a file that fails": (script("1 / 0"), "ZeroDivisionError"),
    "no dict": (script("def batches():\n    return [3]"), "a dict is wanted"),
    "a generator that fails": (
        script(f"def batches():\n    yield {{'x': np.ones((2, {WIDTH}), 'f')}}\n    raise OSError('disk')"),
        "batch 1 cannot be had.*disk",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_one_error(cli: Cli, model: Path, name: str) -> None:
    write, says = BAD_DATA[name]
    fails(cli, 3, says, model, "--mode", "static", "--calib", write(model.parent))


def test_static_asks_for_data(cli: Cli, model: Path) -> None:
    fails(cli, 2, r"\[GO145\].*\n  hint: give --calib", model, "--mode", "static")
    fails(cli, 2, r"\[GO145\].*\n  hint: give --calib", model, "--scheme", "h=static")


ODD_DATA = {
    "one sample": archive(x=samples(1)),
    "nothing but zeros": archive(x=samples(8) * 0),
    "a constant": archive(x=samples(8) * 0 + 3),
    "hardly anything": archive(x=samples(8) * np.float32(1e-30)),
}


@pytest.mark.parametrize("name", ODD_DATA)
def test_odd_data_serves_as_it_is(cli: Cli, model: Path, name: str) -> None:
    done = cli("quantize", model, *QUICK, "--mode", "static", "--calib", ODD_DATA[name](model.parent), "--json", "-")
    assert (done.code, done.err) == (0, "")
    assert done.report["accuracy"]["holdout"] > 0.99


def test_a_mask_among_activations_gets_no_grid(cli: Cli, model: Path) -> None:
    data = archive(x=samples(8) * np.float32(1e30))(model.parent)
    fails(cli, 1, "its activation reaches .*: a mask", model, "--mode", "static", "--exclude", "y", "--calib", data)


@pytest.mark.parametrize("bad", [1, 3, 5])
def test_a_batch_that_does_not_run_is_named_or_left_out(cli: Cli, tmp_path: Path, bad: int) -> None:
    # Batches 1 and 5 are searched on, 3 is held out.
    model = tmp_path / "model.onnx"
    onnx.save(model_of(LIMITS, w=SQUARE), model)
    sizes = [3] * 8
    sizes[bad] = 4
    data = files(sizes)(tmp_path)
    fails(cli, 3, rf"\[GO055\][\s\S]*--> .*{bad}\.npz", model, "--mode", "static", "--calib", data)
    done = cli("quantize", model, *QUICK, "--mode", "static", "--calib", data, "--skip-bad", "--json", "-")
    assert done.code == 0, done.err
    assert any("left out" in note and f"{bad}.npz" in note for note in done.report["notes"])


def test_where_a_quarter_of_the_data_is_bad_the_rest_serves_all(cli: Cli, model: Path) -> None:
    data = files([3, 3, 3, -1, 3])(model.parent)
    done = cli("quantize", model, *QUICK, "--mode", "static", "--calib", data, "--skip-bad", "--json", "-")
    assert done.code == 0, done.err
    assert any("too few good batches" in note for note in done.report["notes"])


def test_no_batch_that_runs_is_said(cli: Cli, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(model_of(LIMITS, w=SQUARE), model)
    data = files([4] * 4)(tmp_path)
    fails(cli, 3, r"\[GO118\][\s\S]*left out", model, "--mode", "dynamic", "--calib", data, "--skip-bad")


# ---- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--cpu", "x86-vnn"], "'x86-vnni'"),
        (["--mode", "dynamc"], "'dynamic'"),
        (["--target", "ort-cpuu"], "did you mean ort-cpu"),
        (["--observer", "minmax"], "did you mean min-max"),
        (["--observer", "percentile-200"], "GO123"),
        (["--metric", "cosin"], "did you mean cosine"),
        (["--metric", "nope.py:f"], r"GO142.*no such file"),
        (["--exclude", "yy"], "did you mean y"),
        (["--scheme", "yy=dynamic"], "did you mean y"),
        (["--scheme", "y=dynamc"], "did you mean dynamic"),
        (["--scheme", "y"], "PATTERN=SCHEME"),
        (["--weight-bits", "3"], "GO001"),
        (["--block", "48"], "GO001"),
        (["--smooth", "2"], "GO001"),
        (["--max-drop", "-1"], "GO001"),
        (["--max-drop", "nan"], "GO001"),
        (["--require-integer", "nan"], "GO001"),
        (["--require-integer", "90"], "GO001"),
        (["--calib-batch", "0"], "GO001"),
        (["--dim", "M=3"], "GO016"),
        (["--calibb", "x"], "did you mean --calib"),
        (["--disable", "DynamicProductt"], "did you mean DynamicProduct"),
    ],
    ids=" ".join,
)
def test_unknown_names_are_usage_errors(cli: Cli, model: Path, flags: list[str], says: str) -> None:
    fails(cli, 2, says, model, *flags)


@pytest.mark.parametrize("flags", [["--disable", "DynamicProduct"], ["--exclude", "*"], ["--scheme", "*=float"]])
def test_a_model_without_integers_is_not_written(cli: Cli, model: Path, flags: list[str]) -> None:
    before = snapshot(model.parent)
    done = cli("quantize", model, *QUICK, *flags)
    assert done.code == 1
    assert "error[GO146]" in done.err
    assert snapshot(model.parent) == before


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('no')", r"raised ValueError\('no'\)"),
        ("return float('nan')", "returned nan"),
        ("return 'good'", "could not convert"),
        ("return None", "NoneType"),
        ("exit(3)", "SystemExit"),
    ],
)
def test_a_metric_of_ones_own_that_fails(cli: Cli, model: Path, body: str, says: str) -> None:
    own = model.with_name("own.py")
    own.write_text(f"def f(reference, candidate):\n    {body}\n")
    done = fails(cli, 2, rf"\[GO144\].*{says}", model, "--metric", f"{own}:f")
    assert f"--> {own}:f" in done.err


def test_a_metric_that_says_nothing_of_its_arguments_is_given_the_outputs(cli: Cli, model: Path) -> None:
    own = model.with_name("own.py")
    own.write_text("from builtins import max as f\n")
    fails(cli, 2, r"\[GO144\].*raised TypeError", model, "--metric", f"{own}:f")


CONDITIONS = {
    "drop": (["--max-drop", "0.5", "--metric", "own.py:same"], "GO149"),
    "integers": (["--exclude", "h", "--require-integer", "0.9"], "GO150"),
    "slower": ([], "GO151"),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_that_does_not_hold_exits_1(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flags, code = CONDITIONS[name]
    monkeypatch.chdir(model.parent)
    Path("own.py").write_text("def same(a, b):\n    return float((a['y'] == b['y']).all())\n")
    if name == "slower":
        monkeypatch.setattr(Workspace, "latency", lambda workspace, made: Took(1.3))
    before = snapshot(model.parent)
    done = cli("quantize", model, "--verify", "off", *flags, "--json", "-")
    assert done.code == 1
    assert done.err.count(f"error[{code}]") == 1
    assert done.report["output"] is None
    assert snapshot(model.parent) == before
    pardoned = {"drop": ["--best-effort"], "integers": ["--require-integer", "0.5"], "slower": ["--allow-slower"]}
    assert cli("quantize", model, "--verify", "off", *flags, *pardoned[name]).code == 0
    assert model.with_suffix(".int8.onnx").is_file()


# ---- files -----------------------------------------------------------------------------------------------------------

COLLISIONS = {
    "output is the input": (["-o", "model.onnx"], "GO011"),
    "output is the data": (["-o", "data.npz", "--calib", "data.npz"], "GO011"),
    "output is the metric": (["-o", "own.py", "--metric", "own.py:f"], "GO011"),
    "JSON is the output": (["-o", "out.onnx", "--json", "out.onnx"], "GO014"),
    "page is the output": (["-o", "out.onnx", "--report", "out.onnx"], "GO014"),
    "page is the JSON": (["--json", "r", "--report", "r"], "GO014"),
    "page is the input": (["--report", "model.onnx"], "GO014"),
    "page is the data": (["--report", "data.npz", "--calib", "data.npz"], "GO014"),
    "JSON is the data": (["--json", "data.npz", "--calib", "data.npz"], "GO014"),
    "page in no folder": (["--report", "none/page.html"], "GO014"),
}


@pytest.mark.parametrize("name", COLLISIONS)
def test_files_that_collide_are_refused(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(model.parent)
    archive(x=samples(4))(model.parent)
    Path("own.py").write_text("def f(a, b):\n    return 1\n")
    flags, code = COLLISIONS[name]
    fails(cli, 2, rf"\[{code}\]", model, *flags)


@pytest.mark.parametrize("place", [".", "none/out.onnx"])
def test_an_output_that_cannot_be_written(cli: Cli, model: Path, place: str) -> None:
    fails(cli, 3, r"\[GO032\]", model, "-o", model.parent / place)


def test_in_place_is_what_it_says(cli: Cli, model: Path) -> None:
    assert cli("quantize", model, *QUICK, "-o", model, "--in-place").code == 0
    assert snapshot(model.parent).keys() == {"model.onnx"}
    assert cli("quantize", model).code == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_calibration_leaves_nothing(root: Path, model: Path, number: signal.Signals, code: int) -> None:
    body = f"""
import sys, time
def batches():
    for i in range(8):
        yield {{"x": np.ones((2, {WIDTH}), "f")}}
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)"""
    data = script(body)(model.parent)
    report = model.with_name("report.json")
    interrupted(root, model.parent, number, code, "quantize", model, "--calib", data, *QUICK, "--json", report)


def test_a_rule_that_fails_while_integers_are_placed_is_told(cli: Cli, model: Path) -> None:
    rules = model.with_name("broken.py")
    rules.write_text("""
from graphopt.rewrite import Expr, Ops, Rule, Value

class Broken(Rule):
    "Raises."
    stage = "quantize"
    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Relu(x)
    def rewrite(self, op: Ops, x: Value) -> Expr:
        raise ValueError("on purpose")
""")
    done = cli("quantize", model, *QUICK, "--rules", rules)
    assert done.code == 6
    assert "on purpose" in done.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mode", "int8"),
        ("mode", "weight_only"),
        ("weight_bits", 5),
        ("block", 7),
        ("smooth", "on"),
        ("smooth", 1.5),
        ("max_drop", -1.0),
        ("require_integer", 90),
    ],
)
def test_python_refuses_what_the_command_line_refuses(model: Path, option: str, value: Any) -> None:
    with pytest.raises(UsageError) as raised:
        graphopt.quantize(model, model.with_name("out.onnx"), **{option: value})
    assert (raised.value.code, raised.value.where) == ("GO152", option)
    assert not model.with_name("out.onnx").exists()


def test_a_metric_may_be_a_function(model: Path) -> None:
    seen: list[int] = []

    def likeness(reference: dict[str, Any], candidate: dict[str, Any]) -> float:
        seen.append(len(candidate))
        return 1.0 if reference.keys() == candidate.keys() else 0.0

    found = graphopt.quantize(model, mode="dynamic", metric=likeness, verify="off")
    assert seen
    assert found.accuracy is not None
    assert (found.accuracy.metric, found.accuracy.holdout) == ("likeness", 1.0)
