"""What a child may do to its parent: nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from onnx import parser

from graphopt.errors import RuntimeCrash
from graphopt.runtime import RunError, Runner, Unavailable
from graphopt.runtime.protocol import receive
from graphopt.runtime.worker import MOST_WRITTEN

HEAD = '<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>'

# The kernel of com.microsoft.Attention dereferences the bias without asking whether there is one.
SEGFAULT = "(float[2, 4, 8] x, float[8, 24] w) => (y) { y = com.microsoft.Attention<num_heads = 2>(x, w) }"
ENDLESS = """(int64 n, bool c, float[1] x) => (float[1] y) {
    y = Loop(n, c, x) <body = b (int64 i, bool k, float[1] a) => (bool k2, float[1] a2) {
        k2 = Identity(k) a2 = Identity(a) }> }"""
FOREVER = {"n": np.array(2**62), "c": np.array(True), "x": np.ones(1, np.float32)}
NEGATE = "(float[N] x) => (float[N] y) { y = Neg(x) }"


def model(text: str) -> bytes:
    return bytes(parser.parse_model(f"{HEAD} g {text}").SerializeToString())


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_a_crash_is_an_error_and_open_sessions_survive_it() -> None:
    x = np.ones(3, np.float32)
    with Runner(timeout=60) as runner:
        other = runner.load(model(NEGATE), optimize=False)
        session = runner.load(model(SEGFAULT), optimize=False, name="attention")
        with pytest.raises(RuntimeCrash, match="SIGSEGV while running") as raised:
            session.run({"x": np.ones((2, 4, 8), np.float32), "w": np.ones((8, 24), np.float32)})
        assert (raised.value.code, raised.value.where) == ("GO051", "attention")
        np.testing.assert_array_equal(other.run({"x": x})["y"], -x)
        assert runner.time([other, other], {"x": x}, runs=1, warmup=0)


WRECK = """
import os, signal, subprocess, sys, time
import onnxruntime as ort

def run(self, *arguments):
    how = os.environ["HOW"]
    if how == "exit":
        os._exit(7)
    if how == "flood":
        print("out\\n" * 5_000_000)
        os.write(2, b"error\\n" * 5_000_000 + b"the last line\\n")
        os.abort()
    if os.fork() == 0:
        open(os.environ["PID"], "w").write(str(os.getpid()))
        time.sleep(600)
    while not os.path.exists(os.environ["PID"]):
        time.sleep(0.01)
    if how == "crash beside a child":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)

ort.InferenceSession.run = run
"""
"""In the child, a runtime that ends in some other way."""


@pytest.fixture
def wreck(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that has the id of the process that the child started, if it did."""
    (tmp_path / "sitecustomize.py").write_text(WRECK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")
    monkeypatch.setenv("PID", str(tmp_path / "pid"))
    return tmp_path / "pid"


@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "ended with exit code 7"), ("flood", r"SIGABRT \(the last line\)")],
)
def test_other_ends_are_errors(wreck: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str) -> None:
    monkeypatch.setenv("HOW", how)
    with Runner(timeout=60) as runner:
        session = runner.load(model(NEGATE), optimize=False)
        with pytest.raises(RuntimeCrash, match=said):
            session.run({"x": np.ones(3, np.float32)})
        assert runner.version()


@pytest.mark.parametrize("how", ["hang beside a child", "crash beside a child"])
def test_what_the_child_started_ends_with_it(wreck: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("HOW", how)
    with Runner(timeout=60) as runner:
        session = runner.load(model(NEGATE), optimize=False)
        runner.timeout = 2
        with pytest.raises(RuntimeCrash, match=r"GO05[12]"):
            session.run({"x": np.ones(3, np.float32)})
        assert eventually(lambda: gone(int(wreck.read_text())))


def test_where_there_is_no_waitid_a_crash_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid")
    with Runner(timeout=60) as runner:
        with runner.load(model(SEGFAULT), optimize=False) as session, pytest.raises(RuntimeCrash, match="SIGSEGV"):
            session.run({"x": np.ones((2, 4, 8), np.float32), "w": np.ones((8, 24), np.float32)})
        assert runner.version()


def test_nobody_is_killed_by_the_number_of_a_child_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Once it was waited for, its number may be given to somebody else, and that of its group.
    kill = os.killpg

    def watched(group: int, number: int) -> None:
        assert Path(f"/proc/{group}").exists(), "nobody, or a stranger"
        kill(group, number)

    monkeypatch.setattr(os, "killpg", watched)
    with Runner(timeout=60) as runner:
        session = runner.load(model(SEGFAULT), optimize=False)
        with pytest.raises(RuntimeCrash):
            session.run({"x": np.ones((2, 4, 8), np.float32), "w": np.ones((8, 24), np.float32)})
    with Runner(timeout=60) as runner:
        runner.version()
        assert runner._child is not None
        os.kill(runner._child._process.pid, signal.SIGKILL)
        assert eventually(lambda: runner._child is not None and not runner._child.alive)
        assert runner.version()


def test_large_outputs_pass() -> None:
    with (
        Runner(timeout=60) as runner,
        runner.load(model("(int64[1] s) => (float[N] y) { y = ConstantOfShape(s) }"), optimize=False) as s,
    ):
        assert s.run({"s": np.array([30_000_000])})["y"].nbytes == 120_000_000


def test_where_memory_ends_the_child_is_the_one_to_go_and_no_file_grows_without_end() -> None:
    with Runner(timeout=60) as runner:
        runner.version()
        assert runner._child is not None
        process = Path(f"/proc/{runner._child._process.pid}")
        assert (process / "oom_score_adj").read_text().strip() == "1000"
        assert re.search(rf"Max file size +{MOST_WRITTEN} ", (process / "limits").read_text())


def test_a_crash_leaves_nothing_in_the_folders_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, models, scratch = (tmp_path / name for name in ("here", "models", "scratch"))
    for folder in (here, models, scratch):
        folder.mkdir()
    (models / "m.onnx").write_bytes(model(SEGFAULT))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.chdir(here)
    shared = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    with Runner(timeout=60) as runner:
        session = runner.load(models / "m.onnx", optimize=False, profile=True)
        with pytest.raises(RuntimeCrash):
            session.run({"x": np.ones((2, 4, 8), np.float32), "w": np.ones((8, 24), np.float32)})
    assert [path.name for path in models.iterdir()] == ["m.onnx"]
    assert not list(here.iterdir())
    assert not list(scratch.iterdir())
    assert not Path("/dev/shm").is_dir() or set(Path("/dev/shm").iterdir()) <= shared


def test_a_run_that_does_not_end_is_ended() -> None:
    with Runner(timeout=60) as runner:
        session = runner.load(model(ENDLESS), optimize=False)
        runner.timeout = 1
        start = time.monotonic()
        with pytest.raises(RuntimeCrash, match="longer than 1 s while running") as raised:
            session.run(FOREVER)
        assert time.monotonic() - start < 10
        assert raised.value.code == "GO052"
        runner.timeout = 60
        assert session.run(FOREVER | {"n": np.array(2)})["y"].tolist() == [1]


def test_more_memory_than_allowed_is_an_error() -> None:
    text = model("(int64[2] s) => (float[N, M] y) { y = ConstantOfShape(s) }")
    with Runner(timeout=60, memory=400 << 20) as runner, runner.load(text, optimize=False) as session:
        with pytest.raises(RunError) as raised:
            session.run({"s": np.array([20_000, 20_000])})
        assert raised.value.status == "MEMORY"
        assert session.run({"s": np.array([2, 2])})["y"].shape == (2, 2)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = children()
    with Runner(timeout=60) as runner:
        runner.load(model(NEGATE), optimize=False, profile=True)
        assert children() - before
        assert list(tmp_path.iterdir())
    assert children() == before
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="closed"):
        runner.available_providers()


PARENT = f"""
import numpy as np, sys
from onnx import parser
from graphopt.runtime import Runner
with Runner(timeout=60) as runner:
    session = runner.load(parser.parse_model({HEAD + " g " + ENDLESS!r}).SerializeToString(), optimize=False)
    print(runner._child._process.pid, flush=True)
    session.run({{"n": np.array(2**62), "c": np.array(True), "x": np.ones(1, np.float32)}})
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_its_parent_in_the_middle_of_a_run(root: Path, tmp_path: Path, how: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(root), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.send_signal(how)
    parent.wait(10)
    assert eventually(lambda: gone(child))
    assert eventually(lambda: not list(tmp_path.iterdir()))


def test_its_files_are_gone_before_the_child_is(tmp_path: Path) -> None:
    """Who waits for it finds nothing, however long removing them takes."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for number in range(3000):
        (scratch / str(number)).touch()
    command = [sys.executable, "-P", "-m", "graphopt.runtime.worker", str(scratch), "0"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdout:
        receive(cast(BinaryIO, child.stdout))
        child.stdin.close()
        child.wait(30)
    assert not scratch.exists()


def test_nothing_is_reported_and_no_identity_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with Runner(timeout=60) as runner, runner.load(model(NEGATE), optimize=False) as session:
        session.run({"x": np.ones(1, np.float32)})
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_one_error_names_both_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Runner(timeout=60) as runner, pytest.raises(Unavailable) as raised:
        runner.load(model(NEGATE), optimize=False)
    assert "graphopt[cpu]" in raised.value.hint
    assert "graphopt[cuda]" in raised.value.hint
    assert raised.value.exit_code == 4


def test_a_child_that_cannot_start_is_an_error() -> None:
    with Runner(timeout=60, memory=20 << 20) as runner, pytest.raises(RuntimeCrash, match="GO056"):
        runner.available_providers()


def test_modules_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    with Runner(timeout=60) as runner:
        assert "cpu" in runner.available_providers()


def test_the_parent_never_imports_onnxruntime(root: Path) -> None:
    code = """
import sys
from graphopt.runtime import Runner
with Runner() as runner:
    runner.available_providers()
assert not {"onnxruntime", "onnx", "graphopt.ir"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(root)})
