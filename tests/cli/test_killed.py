"""Runs that end in the middle: killed, interrupted, terminated, two at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphopt.ir import load, save
from graphopt.quantize.observe import shards

from .conftest import gelu_layer, snapshot
from .processes import GRAPHOPT, WAITING, at_once, environment, finished, killed_at, nothing_goes_on, workers

X = np.linspace(-2, 2, 48, dtype=np.float32).reshape(3, 16)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where temporary files go; nothing else is there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the GELU layer, its weights in a file beside it."""
    place = tmp_path / "models"
    place.mkdir()
    onnx.save(gelu_layer(), place / "model.onnx", save_as_external_data=True, location="w", size_threshold=64)
    return place


def computed(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


def old_model(path: Path) -> None:
    """Another model, where the output goes, with a side file of its own."""
    proto = gelu_layer()
    proto.graph.initializer[-1].raw_data = np.full(32, 0.25, np.float32).tobytes()
    onnx.save(proto, path)
    save(load(path), path, external="always", in_place=True)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_killed_run_leaves_the_old_model_or_the_new_one(
    root: Path, gelu: Path, scratch: Path, in_place: bool
) -> None:
    folder = gelu.parent / "models"
    folder.mkdir()
    given = gelu.rename(folder / gelu.name)
    output = given if in_place else folder / "out.onnx"
    line = ["fuse", given, "-o", output, "--external-data", "always", "--verify", "off", "--in-place", "--quiet"]
    if not in_place:
        old_model(output)
    first, original, old = snapshot(folder), computed(given), computed(output)
    operation = 0
    with killed_at(root, scratch, *line) as run:
        while (code := run(operation)) == -signal.SIGKILL:
            after = snapshot(folder)
            assert in_place or after["model.onnx"] == first["model.onnx"]
            expected = old if after[output.name] == first[output.name] else original
            np.testing.assert_allclose(computed(output), expected, rtol=1e-5, atol=1e-6)
            operation += 1
    assert code == 0
    np.testing.assert_allclose(computed(output), original, rtol=1e-5, atol=1e-6)
    assert operation > 3
    (side,) = {path.name for path in folder.iterdir()} - {given.name, output.name}
    assert side in (f"{output.name}.data", f"{output.name}.1.data")


def test_a_killed_run_leaves_no_temporary_file_and_no_process(root: Path, gelu: Path, scratch: Path) -> None:
    begun = "import graphopt.pipeline.workspace as w, time, sys\n" + (
        "def waits(*_, **__):\n    print('begun', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "w.Workspace.proof = waits\nfrom graphopt.cli import main\nmain()"
    )
    line = [sys.executable, "-c", begun, "quantize", str(gelu), "--mode", "weight-only", "--no-cache"]
    run = subprocess.Popen(line, env=environment(root, scratch), stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    with run.stderr:
        assert run.stderr.readline() == "begun\n"
        assert workers(scratch)
        assert any(path.name.startswith("candidate") for path in scratch.rglob("*"))
        run.kill()
        run.wait(10)
    assert nothing_goes_on(scratch)


@pytest.mark.parametrize(
    ("number", "said", "times"),
    [(signal.SIGINT, "interrupted", 2), (signal.SIGTERM, "terminated", 1), (signal.SIGHUP, "hung up", 1)],
)
def test_a_signal_is_told_of_in_one_line(
    root: Path, gelu: Path, scratch: Path, number: signal.Signals, said: str, times: int
) -> None:
    rules = gelu.with_name("waits.py")
    rules.write_text(WAITING)
    before = snapshot(gelu.parent)
    line = [*GRAPHOPT, "fuse", str(gelu), "--rules", str(rules)]
    run = subprocess.Popen(line, env=environment(root, scratch), stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    with run.stderr:
        assert run.stderr.readline() == "begun\n"
        for _ in range(times):
            run.send_signal(number)
            time.sleep(0.01)
        assert run.wait(10) == 128 + number
        assert run.stderr.read() == f"{said}: nothing was written\n"
    assert snapshot(gelu.parent) == before
    assert not any(scratch.iterdir())


def test_what_was_written_before_a_signal_is_told(root: Path, gelu: Path, scratch: Path) -> None:
    script = (
        "import os, signal, graphopt.report.terminal as t\n"
        "t.fusion = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "from graphopt.cli import main\nmain()"
    )
    done = finished([sys.executable, "-c", script, "fuse", str(gelu)], environment(root, scratch))
    assert done == (130, f"interrupted: {gelu.with_suffix('.fused.onnx')} was written\n")
    onnx.checker.check_model(gelu.with_suffix(".fused.onnx"))


@pytest.mark.parametrize("module", ["graphopt.cli.app", "networkx"])
def test_a_signal_during_imports_is_told_of_in_one_line(root: Path, gelu: Path, scratch: Path, module: str) -> None:
    script = f"""
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from graphopt.cli import main
main()
"""
    done = finished([sys.executable, "-c", script, "inspect", str(gelu)], environment(root, scratch))
    assert done == (130, "interrupted: nothing was written\n")


def test_a_signal_that_a_destructor_swallows_comes_again(root: Path, gelu: Path, scratch: Path) -> None:
    script = """
import os, signal, time
from graphopt import pipeline
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
def inspect(path):
    Swallows()
    time.sleep(60)
pipeline.inspect = inspect
from graphopt.cli import main
main()
"""
    done = finished([sys.executable, "-c", script, "inspect", str(gelu)], environment(root, scratch))
    assert done == (143, "terminated: nothing was written\n")


def test_what_is_to_be_ignored_is_ignored(root: Path, gelu: Path, scratch: Path) -> None:
    """As under nohup, and in the background of a shell without job control."""
    script = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from graphopt import pipeline
inspect = pipeline.inspect
def hung_up(path):
    os.kill(os.getpid(), signal.SIGHUP)
    return inspect(path)
pipeline.inspect = hung_up
from graphopt.cli import main
main()
"""
    assert finished([sys.executable, "-c", script, "inspect", str(gelu)], environment(root, scratch)).code == 0


def test_two_runs_at_once_do_not_meet(root: Path, folder: Path, scratch: Path) -> None:
    given, other = folder / "model.onnx", folder / "other.onnx"
    before, original = snapshot(folder), computed(given)
    one = ["fuse", str(given), "-o", str(folder / "same.onnx"), "--external-data", "always", "--quiet"]
    lines = [one, one, ["fuse", str(given), "-o", str(other), "--quiet"]]
    lines.append(["quantize", str(given), "--mode", "weight-only", "--allow-slower", "--verify", "off", "--quiet"])
    assert at_once(root, scratch, [lines]) == [[0] * len(lines)]
    assert {name: snapshot(folder)[name] for name in before} == before
    for path in (folder / "same.onnx", other):
        np.testing.assert_allclose(computed(path), original, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(computed(folder / "model.int8.onnx"), original, atol=0.1)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not [path for path in scratch.iterdir() if path.name.startswith("graphopt-")]


def test_runs_in_place_at_once_end_with_a_whole_model(root: Path, folder: Path, scratch: Path) -> None:
    """Each replaces what the others read: one may be told so, and one is the last."""
    given = folder / "model.onnx"
    weights, original = snapshot(folder)["w"], computed(given)
    line = ["fuse", str(given), "-o", str(given), "--in-place", "--verify", "off", "--quiet"]
    out, into = [*line, "--external-data", "always"], [*line, "--external-data", "never"]
    rounds = at_once(root, scratch, [[into, out, into], [out, into, out], [out, out, out], [into, out, out]])
    assert {code for codes in rounds for code in codes} <= {0, 3}
    assert [0 in codes for codes in rounds] == [True] * 4
    np.testing.assert_allclose(computed(given), original, rtol=1e-5, atol=1e-6)
    assert snapshot(folder)["w"] == weights
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_two_runs_share_what_calibration_found(root: Path, gelu: Path, scratch: Path) -> None:
    data = gelu.with_name("calib.npz")
    np.savez(data, x=np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32))
    outputs = [gelu.with_name(name) for name in ("a.onnx", "b.onnx")]
    line = ["quantize", str(gelu), "--mode", "static", "--calib", str(data), "--allow-slower", "--verify", "off"]
    assert at_once(root, scratch, [[[*line, "--quiet", "-o", str(output)] for output in outputs]]) == [[0, 0]]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    (kept,) = (scratch / "graphopt").iterdir()
    assert shards.load(kept)


def test_an_interrupted_program_does_not_take_its_memory_apart(root: Path, gelu: Path, scratch: Path) -> None:
    script = """
import atexit, os, signal, time
atexit.register(time.sleep, 60)
from graphopt import pipeline
pipeline.inspect = lambda path: os.kill(os.getpid(), signal.SIGINT)
from graphopt.cli import main
main()
"""
    done = finished([sys.executable, "-c", script, "inspect", str(gelu)], environment(root, scratch))
    assert done == (130, "interrupted: nothing was written\n")
