"""`graphopt verify`: two files that did not come from us, what is said of them, and what is bad about them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from graphopt.errors import ModelError
from graphopt.ir import load
from graphopt.report import schema
from graphopt.verify import Comparison, Options, Verification, check

from .conftest import GELU, HEAD, Cli, gelu_layer, snapshot

EXACT = f"""{HEAD} other (float[N, 16] x) => (float[N, 32] y)
<float root = {{0.70710677}}, float one = {{1.0}}, float half = {{0.5}}> {{
    p = MatMul(x, w)
    g = Add(b, p)
    s = Mul(g, root)
    e = Erf(s)
    t = Add(one, e)
    u = Mul(half, g)
    y = Mul(u, t)
}}"""
"""The GELU layer as another tool would write it."""

LOOP = f"""{HEAD} loop (float[2] x) => (float[2] y) <int64 n = {{1000000000}}, bool t = {{1}}> {{
    z = Loop(n, t, x)
        <body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w) {{ d = Identity(c) w = OP(v) }}>
    y = Identity(z)
}}"""

HUGE = f"{HEAD} huge (float[1] x) => (float[1] y) <int64[1] n = {{4000000000}}> {{ h = Expand(x, n) y = OP(h) }}"

CUSTOM = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.contrib": 1]> g (float[2, 2] x) => (float[2, 2] y) {
    p, q = ai.onnx.contrib.NegPos(x)
    y = Sub(p, q)
}"""


def written(path: Path, text: str, weighted: bool = False) -> Path:
    """A file with the model that `text` is."""
    model = parser.parse_model(text)
    if weighted:
        weights = gelu_layer().graph.initializer
        model.graph.initializer.extend(tensor for tensor in weights if tensor.name in ("w", "b"))
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, in which nothing may be left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_file_is_equal_to_itself_by_structure(cli: Cli, gelu: Path) -> None:
    done = cli("verify", gelu, gelu, "--json", "-")
    assert (done.code, done.report["verdict"], done.report["decided_by"], done.report["inputs"]) == (
        *(0, "equal", "structure"),
        [],
    )
    assert done.report["parting"]["same"] == done.report["parting"]["total"] == 7


def test_another_spelling_is_equal_and_the_report_has_all_figures(cli: Cli, gelu: Path, scratch: Path) -> None:
    other = written(gelu.parent / "other.onnx", EXACT, weighted=True)
    before = snapshot(gelu.parent)
    found = cli("verify", gelu, other, "--json", "-").report
    assert (found["verdict"], found["decided_by"], found["level"]) == ("equal", "end-to-end", "full")
    (output,) = found["outputs"]
    assert output["name"] == "y"
    assert 0 < output["ratio"] <= 16
    assert all(isinstance(output[key], float) for key in ("max_abs", "max_rel", "rms", "cosine", "floor"))
    assert {"ulp", "mismatches", "top1", "same_pattern"} <= output.keys()
    assert {(line["name"], line["dtype"]) for line in found["inputs"]} == {("x", "float32")}
    assert all(line["kind"] and isinstance(line["seed"], int) for line in found["inputs"])
    assert [(one["name"], one["verdict"]) for one in found["providers"]] == [("cpu", "equal")]
    assert snapshot(gelu.parent) == before
    assert not list(scratch.iterdir())


def test_equal_is_said_with_what_was_claimed_and_run(cli: Cli, gelu: Path) -> None:
    other = written(gelu.parent / "other.onnx", EXACT, weighted=True)
    done = cli("verify", gelu, other)
    runs = len({(one["feed"], one["seed"]) for one in cli("verify", gelu, other, "--json", "-").report["inputs"]})
    assert done.out.startswith(f"equal  decided end to end (full): {runs} runs, at most ")
    assert "noise floors apart, 16 are allowed\n" in done.out
    assert f"{runs} on cpu (seeds 0 to {runs - 1}): plain 2x16" in done.out
    full = cli("fuse", gelu, "--verify", "full", "--dry-run").out
    assert "equal (full): 1 region changed and was run" in full
    assert "the whole models in" in full
    assert "equal (sites): 1 region changed and was run" in cli("fuse", gelu, "--dry-run").out


def test_runs_of_other_sizes_are_counted_and_told_apart(cli: Cli, tmp_path: Path) -> None:
    text = f"{HEAD} g (float[N] x) => (float[N] y) {{ n = Neg(x) y = Sub(x, n) }}"
    models = pair(tmp_path, text, "Sub(x, n)", "Add(x, x)")
    shown = cli("verify", *models).out
    assert all(f"plain {size}, " in shown for size in (16, 7, 1))


def test_what_is_not_checked_is_not_said_to_be_decided(cli: Cli, gelu: Path) -> None:
    other = written(gelu.parent / "other.onnx", EXACT, weighted=True)
    done = cli("verify", gelu, other, "--provider", "cpu", "--provider", "cuda")
    if done.code == 0:
        pytest.skip("there is a GPU")
    assert done.code == 4
    assert done.out.startswith("skipped  not checked; cuda: ")
    fused = cli("fuse", gelu, "--provider", "cuda")
    assert "skipped: 1 region changed, " in fused.out
    assert "--allow-unverified" in fused.err
    assert "--allow-unverified" not in cli("fuse", gelu, "--provider", "cuda", "--allow-unverified").err


def test_what_is_not_equal_is_named_with_its_place(cli: Cli, gelu: Path, scratch: Path) -> None:
    other = written(gelu.parent / "other.onnx", EXACT.replace("Erf(s)", "Tanh(s)"), weighted=True)
    done = cli("verify", gelu, other)
    assert done.code == 1
    assert done.out.startswith("unequal  decided end to end (full); 'y': off by")
    assert "they part at" in done.out
    assert "in numbers at" in done.out
    assert "seen on" in done.out
    assert "GO080" in done.err
    assert not list(scratch.iterdir())


def test_the_inputs_that_show_it_are_kept(cli: Cli, gelu: Path, tmp_path: Path) -> None:
    other = written(gelu.parent / "other.onnx", EXACT.replace("Erf(s)", "Tanh(s)"), weighted=True)
    done = cli("verify", gelu, other, "--keep-failed", tmp_path / "kept")
    (inputs,) = (tmp_path / "kept").rglob("inputs.npz")
    assert str(inputs) in "".join(done.err.split("\n"))
    assert cli("verify", gelu, other, "--inputs", inputs).code == 1


def test_one_constant_that_differs_is_told(cli: Cli, gelu: Path) -> None:
    other = written(gelu.parent / "other.onnx", GELU.replace("half = {0.5}", "half = {0.501}"), weighted=True)
    done = cli("verify", gelu, other)
    assert done.code == 1
    assert "the constant 'half' is 0.5 and 0.501" in done.out
    assert "6 of 7 nodes" in done.out


def test_many_outputs_are_cut_short_with_the_worst_first(cli: Cli, tmp_path: Path) -> None:
    def model(wrong: str) -> str:
        outputs = ", ".join(f"float[4] y{i}" for i in range(30))
        lines = " ".join(f"y{i} = {wrong if i == 20 else 'Sin'}(a)" for i in range(30))
        return f"{HEAD} g (float[4] x) => ({outputs}) {{ a = Abs(x) {lines} }}"

    done = cli("verify", written(tmp_path / "a.onnx", model("Sin")), written(tmp_path / "b.onnx", model("Cos")))
    rows = done.out.splitlines()
    first = next(number for number, row in enumerate(rows) if row.startswith("output"))
    assert rows[first + 1].split()[:2] == ["y20", "unequal"]
    assert "and 20 more  equal" in done.out


def test_figures_that_json_has_no_number_for_are_null(tmp_path: Path) -> None:
    output = Comparison("y", "unequal", max_abs=float("inf"), rms=float("nan"))
    report = schema.verification(Verification("unequal", "end-to-end", outputs=(output,)), "a", "b")
    schema.write(report, str(tmp_path / "report"))
    line = json.loads((tmp_path / "report").read_text())["outputs"][0]
    assert line["max_abs"] is line["rms"] is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("g (float[2] a, float[2] mask) => (float[2] y)", "the candidate has no 'masks', but 'mask'"),
        ("g (float[2] a) => (float[2] y)", "the candidate has no 'masks'"),
        ("g (float[2] masks, float[2] a) => (float[2] y)", "'a' stands where the candidate has 'masks'"),
        ("g (float[2] a, float[2] masks) => (float[2] y, float[2] a2)", "the reference has no 'a2'"),
        ("g (float[2] a, float16[2] masks) => (float[2] y)", "'masks' among the inputs differs: float32 and float16"),
        ("g (float[2] a, float[3] masks) => (float[2] y)", "'masks' is [2] in the reference, [3] in the candidate"),
    ],
)
def test_other_inputs_and_outputs_are_unequal(cli: Cli, tmp_path: Path, other: str, words: str) -> None:
    body = "{ y = Abs(a) a2 = Neg(a) }"
    a = written(tmp_path / "a.onnx", f"{HEAD} g (float[2] a, float[2] masks) => (float[2] y) {body}")
    done = cli("verify", a, written(tmp_path / "b.onnx", f"{HEAD} {other} {body}"))
    assert done.code == 1
    assert words in done.err


def pair(folder: Path, text: str, old: str, new: str) -> tuple[Path, Path]:
    assert old in text
    return written(folder / "a" / "m.onnx", text), written(folder / "b" / "m.onnx", text.replace(old, new))


def test_a_model_of_another_opset_and_ir_version_is_equal(cli: Cli, tmp_path: Path) -> None:
    text = f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Softmax<axis = 0>(x) }}"
    models = pair(tmp_path, text, HEAD, '<ir_version: 10, opset_import: ["": 21]>')
    assert cli("verify", *models).code == 0


def test_inputs_that_cannot_be_made_are_asked_for_by_name(cli: Cli, tmp_path: Path) -> None:
    models = pair(tmp_path, f"{HEAD} g (float x) => (float y) {{ y = Abs(x) }}", "Abs", "Relu")
    for path in models:
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.ClearField("shape")
        onnx.save(model, path)
    done = cli("verify", *models, "--json", "-")
    assert done.code == 4
    assert (done.report["verdict"], done.report["error"]["code"]) == ("inconclusive", "GO017")
    assert "GO017" in done.err
    assert "'x'" in done.err
    assert "--inputs" in done.err
    np.savez(tmp_path / "x.npz", x=np.float32([-1, 2]))
    assert cli("verify", *models, "--inputs", tmp_path / "x.npz").code == 1


def test_data_that_makes_the_reference_fail_is_bad_data(cli: Cli, tmp_path: Path) -> None:
    text = f"{HEAD} g (float[N] x) => (float[M] y) <int64[2] s = {{2, 2}}> {{ r = Reshape(x, s) y = Abs(r) }}"
    models = pair(tmp_path, text, "Abs", "Relu")
    np.savez(tmp_path / "x.npz", x=np.zeros(3, np.float32))
    done = cli("verify", *models, "--inputs", tmp_path / "x.npz")
    assert done.code == 3
    assert "GO035" in done.err
    assert "(Reshape)" in done.err
    assert "reshape_helper" not in done.err
    assert "code returned" not in done.err
    np.savez(tmp_path / "x.npz", x=np.zeros(4, np.float32))
    assert "'N' is 5" in cli("verify", *models, "--inputs", tmp_path / "x.npz", "--dim", "N=5").err
    np.savez(tmp_path / "z.npz", z=np.zeros(3, np.float32))
    assert "GO018" in cli("verify", *models, "--inputs", tmp_path / "z.npz").err
    with pytest.raises(ModelError, match="GO035"):  # of a model that was rewritten, region by region
        check(*map(load, models), Options(inputs={"x": np.zeros(3, np.float32)}))


def test_a_reference_that_is_no_valid_model_is_bad(cli: Cli, tmp_path: Path) -> None:
    models = pair(tmp_path, f"{HEAD} g (float[2] x, int64[2] i) => (float[2] y) {{ y = Add(x, i) }}", "Add", "Sub")
    done = cli("verify", *models)
    assert done.code == 3
    assert "GO054" in done.err
    assert f"--> {models[0]}" in done.err


def test_an_opset_that_onnxruntime_lacks_is_told_in_short(cli: Cli, tmp_path: Path) -> None:
    text = f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Abs(x) }}"
    newer = text.replace('"": 17', '"": 27')
    a, b = written(tmp_path / "a.onnx", text), written(tmp_path / "b.onnx", newer.replace("Abs", "Neg"))
    for models, code in (((a, b), 1), ((b, a), 4)):
        done = cli("verify", *models)
        assert done.code == code
        assert "model_load_utils" not in done.err
        assert len(done.err) < 600
        assert "upgrade onnxruntime" in done.err


def test_a_candidate_that_does_not_load_is_unequal(cli: Cli, tmp_path: Path) -> None:
    text = f"{HEAD} g (float[2] x, float[2] i) => (float[2] y) {{ y = Add(x, i) }}"
    models = pair(tmp_path, text, "Add(x, i)", "Gather(x, i)")
    done = cli("verify", *models)
    assert done.code == 1
    assert "does not load the candidate" in done.err


def test_files_that_are_not_there_or_not_whole(cli: Cli, gelu: Path, tmp_path: Path) -> None:
    assert "GO020" in cli("verify", gelu, tmp_path / "no.onnx").err
    broken = written(tmp_path / "e" / "e.onnx", EXACT, weighted=True)
    onnx.save(onnx.load(broken), broken, save_as_external_data=True, location="e.data", size_threshold=0)
    assert cli("verify", gelu, broken).code == 0
    (broken.parent / "e.data").unlink()
    done = cli("verify", gelu, broken)
    assert (done.code, "GO031" in done.err) == (3, True)


# ---- custom ops ------------------------------------------------------------------------------------------------------


def test_custom_ops_need_their_library(cli: Cli, tmp_path: Path) -> None:
    models = pair(tmp_path, CUSTOM, "Sub(p, q)", "Abs(p)")
    done = cli("verify", *models)
    assert done.code == 4
    assert "--custom-ops LIB" in done.err
    assert "GO029" in cli("verify", *models, "--custom-ops", tmp_path / "no.so").err
    done = cli("verify", *models, "--custom-ops", models[0])
    assert (done.code, "GO036" in done.err) == (3, True)


def test_custom_ops_run_with_their_library(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing the package sets this for the whole process, and what it starts: protobuf without its fast half.
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "upb")
    library = pytest.importorskip("onnxruntime_extensions").get_library_path()
    right = pair(tmp_path, CUSTOM, "y = Sub(p, q)", "n = Neg(q) y = Add(p, n)")
    assert cli("verify", *right, "--custom-ops", library).code == 0
    wrong = pair(tmp_path, CUSTOM, "Sub(p, q)", "Add(p, q)")
    assert cli("verify", *wrong, "--custom-ops", library).code == 1
    twice = written(tmp_path / "t.onnx", CUSTOM.replace("y = Sub(p, q)", "r = Neg(p) s = Neg(r) y = Sub(s, q)"))
    assert cli("fuse", twice, "--custom-ops", library, "--dry-run", "--verify", "full").code == 0


# ---- limits, crashes, litter -----------------------------------------------------------------------------------------


def test_what_takes_too_long_ends_and_is_kept(cli: Cli, tmp_path: Path, scratch: Path) -> None:
    models = pair(tmp_path, LOOP.replace("OP", "Sin"), "Sin", "Cos")
    before = snapshot(models[0].parent)
    done = cli("verify", *models, "--timeout", "2", "--keep-failed", tmp_path / "kept")
    assert done.code == 5
    assert "GO052" in done.err
    assert "--> the whole model" in done.err
    assert list((tmp_path / "kept").rglob("*.onnx"))
    assert snapshot(models[0].parent) == before
    assert not list(scratch.iterdir())


def test_what_takes_too_much_memory_ends(cli: Cli, tmp_path: Path, scratch: Path) -> None:
    models = pair(tmp_path, HUGE.replace("OP", "Sin"), "Sin", "Cos")
    done = cli("verify", *models, "--memory", "500MB")
    assert done.code == 5
    assert "memory" in done.err
    least = cli("verify", *models, "--memory", "1kB")
    assert (least.code, "GO056" in least.err, "--memory" in least.err) == (5, True, True)
    assert not list(scratch.iterdir())


def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path) -> None:
    models = pair(tmp_path, LOOP.replace("OP", "Sin"), "Sin", "Cos")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", "from graphopt.cli import main; main()", "verify", *map(str, models)]
    running = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(scratch.rglob("stderr")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert not list(scratch.iterdir())
