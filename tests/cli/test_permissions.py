"""Files and folders that this user may not read or write, and those that are not there any more."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import onnx
import pytest

from .conftest import Cli, gelu_layer, snapshot
from .processes import environment, finished

User = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def somebody(cli: Cli, gelu: Path) -> User:
    """A context in which permissions count: root, who may do everything, is somebody else meanwhile."""
    # Modules that are imported where they are first used may lie where only this user reads.
    assert cli("fuse", gelu, "--dry-run", "--verify", "off").code == cli("inspect", gelu).code == 0

    @contextmanager
    def other() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    return other


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can enter. `tmp_path` lies in one that each start of pytest, of whatever project, closes
    to others."""
    with tempfile.TemporaryDirectory(prefix="public-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def reachable(public: Path) -> Path:
    """A folder that everybody can enter, with the GELU layer and its weights, in which nobody may write; beside it,
    `out`, in which everybody may."""
    place = public / "models"
    place.mkdir()
    onnx.save(gelu_layer(), place / "model.onnx", save_as_external_data=True, location="w", size_threshold=64)
    (place / "w").chmod(0o644)
    place.chmod(0o555)
    (public / "out").mkdir()
    (public / "out").chmod(0o777)
    return place


def test_a_model_in_a_folder_that_may_not_be_written_goes_elsewhere(cli: Cli, reachable: Path, somebody: User) -> None:
    before, out = snapshot(reachable), reachable.parent / "out" / "out.onnx"
    with somebody():
        beside = cli("fuse", reachable / "model.onnx", "--verify", "off")
        elsewhere = cli("fuse", reachable / "model.onnx", "-o", out, "--verify", "off")
    assert (beside.code, elsewhere.code) == (3, 0), elsewhere.err
    assert beside.err.startswith("error[GO032]: cannot write: Permission denied\n")
    assert str(reachable / "model.fused.onnx") in beside.err
    onnx.checker.check_model(out)
    assert snapshot(reachable) == before


def test_folders_on_the_way_need_not_be_readable(cli: Cli, reachable: Path, somebody: User) -> None:
    """As homes on machines that many share: who knows a name in them may use it."""
    out = reachable.parent / "out" / "out.onnx"
    reachable.parent.chmod(0o711)
    reachable.chmod(0o511)
    with somebody():
        done = cli("fuse", reachable / "model.onnx", "-o", out, "--verify", "off", "--external-data", "always")
    assert (done.code, done.err) == (0, "")
    onnx.checker.check_model(out)


def test_quantize_writes_nothing_beside_its_input(root: Path, reachable: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    script = f"""
import os, sys
def hook(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        assert not str(arguments[0]).startswith({str(reachable)!r}), arguments
sys.addaudithook(hook)
from graphopt.cli import main
main()
"""
    line = ["quantize", str(reachable / "model.onnx"), "-o", str(reachable.parent / "out" / "q.onnx")]
    line += ["--mode", "weight-only", "--allow-slower", "--verify", "off"]
    done = finished([sys.executable, "-c", script, *line], environment(root, scratch))
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in reachable.iterdir()} == {"model.onnx", "w"}


@pytest.mark.parametrize(("file", "code"), [("model.onnx", "GO022"), ("w", "GO031")])
def test_files_that_may_not_be_read(cli: Cli, reachable: Path, somebody: User, file: str, code: str) -> None:
    (reachable / file).chmod(0)
    with somebody():
        done = cli("fuse", reachable / "model.onnx", "-o", reachable.parent / "out" / "out.onnx", "--verify", "off")
    (reachable / file).chmod(0o644)
    assert (done.code, "Permission denied" in done.err, "Traceback" in done.err) == (3, True, False)
    assert f"error[{code}]" in done.err or "error[GO" in done.err
    assert not list((reachable.parent / "out").iterdir())


def test_a_report_that_may_not_be_written(cli: Cli, reachable: Path, somebody: User) -> None:
    report = reachable.parent / "report.json"
    report.touch()
    report.chmod(0o444)
    with somebody():
        done = cli("inspect", reachable / "model.onnx", "--json", report)
    assert done.code == 2
    assert done.err.startswith("error[GO014]: the report cannot be written: Permission denied\n")
    assert report.read_bytes() == b""


def test_settings_that_may_not_be_looked_for_are_none(
    cli: Cli, public: Path, reachable: Path, somebody: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    (public / "closed" / "inner").mkdir(parents=True)
    monkeypatch.chdir(public / "closed" / "inner")
    (public / "closed").chmod(0)
    with somebody():
        done = cli("inspect", reachable / "model.onnx")
    (public / "closed").chmod(0o755)
    assert (done.code, done.err) == (0, "")


def test_a_folder_for_temporary_files_that_is_not_there(
    cli: Cli, gelu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    done = cli("fuse", gelu)
    assert (done.code, done.err) == (0, "")


def test_no_folder_for_temporary_files_at_all(
    cli: Cli, gelu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    done = cli("fuse", gelu)
    assert done.code == 3
    assert done.err.startswith("error[GO076]: a temporary file cannot be written: No usable temporary directory")
    assert "hint: TMPDIR says where temporary files go" in done.err
    assert snapshot(tmp_path) == before


def test_a_current_folder_that_was_removed(
    cli: Cli, tmp_path: Path, gelu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli("fuse", gelu, "--verify", "off").code == 0
    relative = cli("fuse", "model.onnx")
    assert (relative.code, "Traceback" in relative.err) == (3, False)


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.quantize.observe.cache import Cache, cache_folder

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    cache = Cache("key", cache_folder())
    path = cache.path({}, [])
    cache.write(path, {}, 1)
    assert cache.read(path, []) == ({}, 0)
