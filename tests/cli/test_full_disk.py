"""No room: for the model, for temporary files, for the report."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from .conftest import Cli, gelu_layer, snapshot
from .processes import GRAPHOPT, environment, finished

_FULL = "No space left on device"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 512 KiB."""
    folder = tmp_path_factory.mktemp("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def full(disk: Path) -> Iterator[Path]:
    """The disk, with no room left on it."""
    (disk / "full").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    yield disk
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model of 2 MB whose weights fusing writes anew."""
    model = gelu_layer()
    rng = np.random.default_rng(0)
    spare = numpy_helper.from_array(rng.normal(size=(16, 32_768)).astype(np.float32), "spare")
    model.graph.initializer.append(spare)
    model.graph.node.append(onnx.helper.make_node("MatMul", ["x", "spare"], ["z"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "large.onnx")
    return tmp_path / "large.onnx"


@pytest.mark.parametrize("external", ["never", "always"])
def test_no_room_for_the_model(cli: Cli, disk: Path, large: Path, external: str) -> None:
    before = snapshot(large.parent)
    done = cli("fuse", large, "-o", disk / "out.onnx", "--verify", "off", "--external-data", external)
    assert (done.code, f"error[GO032]: cannot write: {_FULL}" in done.err) == (3, True)
    assert str(disk / "out.onnx") in done.err
    assert not list(disk.iterdir())
    assert snapshot(large.parent) == before


def test_no_room_for_the_model_of_a_run_that_replaces_one(cli: Cli, disk: Path, gelu: Path, large: Path) -> None:
    there = disk / "out.onnx"
    there.write_bytes(gelu.read_bytes())
    try:
        assert cli("fuse", large, "-o", there, "--verify", "off").code == 3
        assert snapshot(disk) == {"out.onnx": snapshot(gelu.parent)[gelu.name]}
    finally:
        there.unlink()


def test_no_room_for_temporary_files(root: Path, gelu: Path, full: Path) -> None:
    before = snapshot(gelu.parent)
    # Python looks for another folder where TMPDIR is of no use from the start.
    script = f"import tempfile\ntempfile.tempdir = {str(full)!r}\nfrom graphopt.cli import main\nmain()"
    done = finished([sys.executable, "-c", script, "quantize", str(gelu)], environment(root, full))
    assert (done.code, _FULL in done.err, str(full) in done.err) == (3, True, True)
    assert "Traceback" not in done.err
    assert snapshot(gelu.parent) == before
    assert [path.name for path in full.iterdir()] == ["full"]


def test_no_room_for_what_quantize_tries_out(root: Path, disk: Path, large: Path) -> None:
    before = snapshot(large.parent)
    line = [*GRAPHOPT, "quantize", str(large), "--mode", "weight-only", "--verify", "off", "--no-cache"]
    done = finished(line, environment(root, disk))
    assert (done.code, _FULL in done.err) == (3, True)
    assert str(disk) in done.err
    assert not list(disk.iterdir())
    assert snapshot(large.parent) == before


def test_no_room_for_the_report(cli: Cli, gelu: Path, full: Path) -> None:
    done = cli("fuse", gelu, "--verify", "off", "--json", full / "report.json")
    assert done.code == 2
    assert f"error[GO014]: the report cannot be written: {_FULL}" in done.err
    assert [path.name for path in full.iterdir()] == ["full"]


def test_no_room_for_what_calibration_found_is_no_error(
    cli: Cli, gelu: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(full))
    data = gelu.with_name("calib.npz")
    np.savez(data, x=np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32))
    done = cli("quantize", gelu, "--mode", "static", "--calib", data, "--allow-slower", "--verify", "off")
    assert done.code == 0, done.err
    assert [path.name for path in full.rglob("*") if path.is_file()] == ["full"]


@pytest.mark.parametrize("arguments", [["rules"], ["rules", "--json", "-"], ["--help"], ["--version"]])
def test_no_room_for_what_is_printed(root: Path, tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as stdout:
        done = subprocess.run(
            [*GRAPHOPT, *arguments], env=environment(root, tmp_path), stdout=stdout, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == f"error[GO014]: the report cannot be written: {_FULL}\n  --> standard output\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(root: Path, gelu: Path, tmp_path: Path, closed: str) -> None:
    line = f"'{sys.executable}' -c 'from graphopt.cli import main; main()' fuse '{gelu}' --json - {closed}"
    done = finished(["bash", "-c", line], environment(root, tmp_path))
    assert (done.code, done.err) == (0, "")
    onnx.checker.check_model(gelu.with_suffix(".fused.onnx"))


def test_a_limit_on_the_size_of_files(root: Path, large: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    done = finished(
        [*GRAPHOPT, "fuse", str(large), "--verify", "off"],
        environment(root, tmp_path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert (done.code, "error[GO032]: cannot write: File too large" in done.err) == (3, True)
    assert snapshot(tmp_path) == before
