"""Whenever a run ends, the model that a reader finds has its own weights; what was the user's stays."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import ModelError, UsageError
from graphopt.ir import load, publish, save, side
from graphopt.ir.publish import Draft, folder_at

W = np.arange(2000, dtype=np.float32)


class Killed(BaseException):
    """Ends a run where it stands: what comes after is as if it did not."""


def model_of(value: float) -> onnx.ModelProto:
    """A model whose output is 2,000 times `value`."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "main",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2000])],
        [numpy_helper.from_array(np.full(2000, value, np.float32), "w")],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def saved(path: Path, value: float) -> list[str]:
    """Writes the model of `value` with its weights beside it; the names of the files."""
    return [file.name for file in save(load(model_of(value)), path, external="always")]


def content(path: Path) -> float:
    """What the model in a file computes, as onnx reads it. Its weights are all equal, or it is torn."""
    values = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    assert (values == values[0]).all()
    return float(values[0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WORK = ("fsync", "link", "rename", "replace", "unlink")
"""What a run does to the disk, but for the bytes of files."""


def killed_at(monkeypatch: pytest.MonkeyPatch, function: str, call: int, after: bool) -> None:
    """Ends the run at the given call of a function of `os`, before or after it did its work; then nothing happens."""
    left, dead = [call], [False]

    def ending(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **options: object) -> object:
            left[0] -= name == function
            now = name == function and left[0] == 0
            if not dead[0] and (not now or after):
                done = real(*args, **options)
                if not now:
                    return done
            dead[0] = True
            raise Killed

        return run

    for name in WORK:
        monkeypatch.setattr(os, name, ending(name, getattr(os, name)))


STEPS = [("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4), ("link", 1), ("link", 2), ("link", 3)]
STEPS += [("replace", 1), ("unlink", 1), ("unlink", 2)]


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("function", "call"), STEPS)
def test_a_pair_is_never_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, after: bool, nameless: bool
) -> None:
    """A run ends at each step: there is the old pair or the new one, and the next run leaves nothing but its own."""
    out = tmp_path / "out.onnx"
    saved(out, 1)
    with monkeypatch.context() as patch:
        if not nameless:
            patch.setattr(Draft, "_nameless", lambda self: None)
            function = "rename" if function == "link" else function
        killed_at(patch, function, call, after)
        with pytest.raises(Killed):
            saved(out, 2)
    published = (function, call) in (("unlink", 1), ("unlink", 2), ("fsync", 4)) or (function == "replace" and after)
    assert content(out) == (2 if published else 1)
    saved(out, 3)
    assert content(out) == 3
    refers = onnx.load(out, load_external_data=False).graph.initializer[0].external_data[0].value
    # Where files always have names, a name that was taken may be left with nothing in it.
    assert {file.name for file in tmp_path.iterdir() if nameless or file.stat().st_size} == {refers, "out.onnx"}


def test_what_is_killed_for_good_leaves_nothing(tmp_path: Path) -> None:
    """A process that is killed while it writes: its files had no name."""
    out = tmp_path / "out.onnx"
    saved(out, 1)
    before = names(tmp_path)
    code = (
        "import os, signal, sys\n"
        "sys.path[:0] = [sys.argv[2]]\n"
        "from test_save_whole import saved\nfrom pathlib import Path\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "saved(Path(sys.argv[1]), 2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, out, Path(__file__).parent], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == before
    assert content(out) == 1


def test_a_side_file_never_takes_the_name_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "out.onnx.data").write_bytes(b"the user's")
    (tmp_path / "out.onnx.1.data").symlink_to("nowhere")
    for _ in range(2):
        assert len(saved(tmp_path / "out.onnx", 1)) == 2
    assert (tmp_path / "out.onnx.data").read_bytes() == b"the user's"
    assert (tmp_path / "out.onnx.1.data").is_symlink()
    assert len(names(tmp_path)) == 4


def test_nor_one_that_the_old_model_waits_for(tmp_path: Path) -> None:
    """Its weights are lost, and other weights must not pass for them."""
    out = tmp_path / "out.onnx"
    saved(out, 1)
    (tmp_path / "out.onnx.data").unlink()
    assert saved(out, 2) == ["out.onnx.1.data", "out.onnx"]


def test_a_side_file_of_somebody_else_stays(tmp_path: Path) -> None:
    """torch.onnx calls its files so as well."""
    out = tmp_path / "out.onnx"
    onnx.save(model_of(1), out, save_as_external_data=True, location="out.onnx.data")
    theirs = (tmp_path / "out.onnx.data").read_bytes()
    saved(out, 2)
    assert (tmp_path / "out.onnx.data").read_bytes() == theirs
    assert content(out) == 2


@pytest.mark.parametrize("name", ["other.onnx", "other.bin"])
@pytest.mark.parametrize("large", [False, True])
def test_a_side_file_that_another_model_uses_stays(
    tmp_path: Path, name: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model made from the output goes on to read its weights."""
    out, other = tmp_path / "out.onnx", tmp_path / name
    saved(out, 1)
    assert [file.name for file in save(load(out), other)] == [name]
    if large:
        monkeypatch.setattr(side, "_SMALL_FILE", 1)
    saved(out, 2)
    assert (content(other), content(out)) == (1, 2)
    saved(out, 3)
    assert names(tmp_path) == [name, "out.onnx", "out.onnx.2.data", "out.onnx.data"]


def test_a_model_that_cannot_be_read_may_use_it(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    saved(out, 1)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\xff out.onnx.data")
    saved(out, 2)
    assert (tmp_path / "out.onnx.data").exists()


def test_what_is_no_model_does_not_count(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    saved(out, 1)
    (tmp_path / "notes.txt").write_text("see out.onnx.data")
    os.mkfifo(tmp_path / "pipe.onnx")
    saved(out, 2)
    assert not (tmp_path / "out.onnx.data").exists()


def test_in_place_the_weights_stay(tmp_path: Path) -> None:
    """They are the input's."""
    out = tmp_path / "out.onnx"
    saved(out, 1)
    model = load(out)
    save(model, out, in_place=True)
    assert names(tmp_path) == ["out.onnx", "out.onnx.data"]
    save(load(out), out, external="never", in_place=True)
    assert names(tmp_path) == ["out.onnx", "out.onnx.data"]
    assert content(out) == 1


@pytest.mark.parametrize("nameless", [True, False])
def test_two_runs_at_once_each_write_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool) -> None:
    """One begins and ends between the choice of the other's names and its end; the last one wins."""
    out = tmp_path / "out.onnx"
    if not nameless:
        monkeypatch.setattr(Draft, "_nameless", lambda self: None)
    announce, calls = Draft.announce, []

    def late(self: Draft, companion: int, witness: int = 0) -> None:
        announce(self, companion, witness)
        if not calls:
            calls.append("once")
            assert saved(out, 1) == ["out.onnx.data", "out.onnx"]
            assert content(out) == 1

    monkeypatch.setattr(Draft, "announce", late)
    assert saved(out, 2) == ["out.onnx.1.data", "out.onnx"]
    assert content(out) == 2
    assert names(tmp_path) == ["out.onnx", "out.onnx.1.data"]


def test_many_processes_on_one_output(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    code = (
        "import sys\nsys.path[:0] = [sys.argv[2]]\nfrom test_save_whole import saved\nfrom pathlib import Path\n"
        "for value in range(6): saved(Path(sys.argv[1]), value)\n"
    )
    command = [sys.executable, "-c", code, str(out), str(Path(__file__).parent)]
    runs = [subprocess.Popen(command) for _ in range(2)]
    while any(run.poll() is None for run in runs):
        if out.exists():
            content_or_gone(out)
    assert [run.returncode for run in runs] == [0, 0]
    assert content(out) == 5
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def content_or_gone(path: Path) -> None:
    """A reader who opens a model and then its weights may find that these have gone meanwhile, never others."""
    with suppress(OSError, onnx.checker.ValidationError):
        content(path)


# ---- leftovers -----------------------------------------------------------------------------------------------------


def left(folder: Path, companion: int = 0, witness: int = 0) -> Path:
    path = folder / publish.hidden_name(companion, witness)
    path.write_bytes(b"\x08")
    return path


def test_what_a_dead_run_left_is_removed(tmp_path: Path) -> None:
    gone = left(tmp_path)
    (tmp_path / ".graphopt-notes.tmp").touch()
    saved(tmp_path / "out.onnx", 1)
    assert not gone.exists()
    assert (tmp_path / ".graphopt-notes.tmp").exists()


def test_what_a_living_run_writes_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draft, "_nameless", lambda self: None)
    with folder_at(tmp_path) as folder, closing(Draft(folder)) as draft:
        before = names(tmp_path)
        assert len(before) == 1
        saved(tmp_path / "out.onnx", 1)
        assert set(before) < set(names(tmp_path))
        draft.discard()
    assert names(tmp_path) == ["out.onnx", "out.onnx.data"]


def test_a_companion_that_a_model_uses_is_not_removed(tmp_path: Path) -> None:
    """As after a restart of the machine, where a hidden name came back and the model is there as well."""
    saved(tmp_path / "out.onnx", 1)
    gone = left(tmp_path, (tmp_path / "out.onnx.data").stat().st_ino)
    saved(tmp_path / "other.onnx", 2)
    assert not gone.exists()
    assert content(tmp_path / "out.onnx") == 1


def test_one_that_was_to_go_stays_when_its_model_was_not_replaced(tmp_path: Path) -> None:
    """The run died before that, and somebody moved the model."""
    saved(tmp_path / "out.onnx", 1)
    left(tmp_path, (tmp_path / "out.onnx.data").stat().st_ino, witness=1)
    (tmp_path / "out.onnx").unlink()
    saved(tmp_path / "other.onnx", 2)
    assert names(tmp_path) == ["other.onnx", "other.onnx.data", "out.onnx.data"]


# ---- what is replaced ----------------------------------------------------------------------------------------------


def test_what_is_replaced_gives_its_permissions(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    mask = os.umask(0o027)
    try:
        saved(out, 1)
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names(tmp_path)]
        assert modes == [0o640, 0o640]
        out.chmod(0o600)
        for name in saved(out, 2):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    finally:
        os.umask(mask)


def test_a_file_that_is_read_only_is_not_replaced(nobody: Callable[[], AbstractContextManager[None]]) -> None:
    # The folders of pytest are root's alone.
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o777)
        out = folder / "out.onnx"
        with nobody():
            saved(out, 1)
            out.chmod(0o444)
            with pytest.raises(ModelError, match="read-only") as caught:
                saved(out, 2)
            assert caught.value.code == "GO032"
            assert content(out) == 1
            out.chmod(0o644)
            saved(out, 2)
            assert content(out) == 2


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.onnx", tmp_path / "out.onnx"
    if exists:
        saved(real, 1)
    link.symlink_to(real)
    assert save(load(model_of(2)), link)[-1] == real
    assert link.is_symlink()
    assert content(real) == 2
    assert names(tmp_path) == ["out.onnx", "there"]


def test_weights_would_not_be_found_through_a_link_to_another_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "out.onnx"
    link.symlink_to("there/real.onnx")
    with pytest.raises(UsageError, match="would not find its weights") as caught:
        save(load(model_of(2)), link, external="always")
    assert caught.value.code == "GO011"
    assert names(tmp_path / "there") == []
    link.unlink()
    link.symlink_to("real.onnx")
    save(load(model_of(2)), link, external="always")
    assert content(link) == 2


@pytest.mark.parametrize("name", [b"\xff\xfe.onnx", b"a\\b.onnx", "é".encode() * 123 + b".onnx", b"a\nb.onnx"])
def test_any_name_of_a_file_may_have_a_side_file(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    for value in (1, 2):
        save(load(model_of(value)), path, external="always")
        weights = load(path).graph.names["w"].node.data
        assert weights is not None
        assert weights.external is not None
        assert weights.numpy()[0] == value
        assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("prefix", ["sub/", "./sub/"])
def test_a_side_file_that_a_model_of_a_folder_above_uses_stays(tmp_path: Path, prefix: str, large: bool) -> None:
    out = tmp_path / "sub" / "out.onnx"
    out.parent.mkdir()
    save(load(model_of(1)), out, external="always")
    above = onnx.load(out, load_external_data=False)
    for tensor in above.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = prefix + entry.value
    if large:
        above.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 22, np.float32), "more"))
    onnx.save(above, tmp_path / "above.onnx")
    save(load(model_of(2)), out, external="always")
    assert content(out) == 2
    assert content(tmp_path / "above.onnx") == 1


def test_a_file_by_another_name_is_the_input_all_the_same(tmp_path: Path) -> None:
    save(load(model_of(1)), tmp_path / "model.onnx")
    os.link(tmp_path / "model.onnx", tmp_path / "mounted.onnx")
    with pytest.raises(UsageError, match="the output is the input"):
        save(load(tmp_path / "model.onnx"), tmp_path / "mounted.onnx")


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").symlink_to("out.onnx")
    with pytest.raises(ModelError, match="Too many levels") as caught:
        saved(tmp_path / "out.onnx", 1)
    assert (caught.value.code, caught.value.where) == ("GO032", str(tmp_path / "out.onnx"))


def test_another_name_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    save(load(model_of(1)), tmp_path / "out.onnx")
    os.link(tmp_path / "out.onnx", tmp_path / "backup.onnx")
    save(load(model_of(2)), tmp_path / "out.onnx")
    assert (content(tmp_path / "backup.onnx"), content(tmp_path / "out.onnx")) == (1, 2)


@pytest.mark.parametrize(("length", "fits"), [(255, True), (256, False)])
def test_long_names(tmp_path: Path, length: int, fits: bool) -> None:
    out = tmp_path / ("ä" * 120 + "x" * (length - 245) + ".onnx")
    if fits:
        for value in (1, 2, 3):
            saved(out, value)
        assert content(out) == 3
        assert len(names(tmp_path)) == 2
        return
    with pytest.raises(ModelError, match="File name too long"):
        saved(out, 1)


def test_a_folder_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    fsync = os.fsync

    def gone(file: int) -> None:
        fsync(file)
        if folder.exists():
            folder.rmdir()

    monkeypatch.setattr(os, "fsync", gone)
    with pytest.raises(ModelError, match="cannot write: No such file or directory"):
        saved(folder / "out.onnx", 1)


def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int, *args: int, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    for value in (1, 2):
        saved(tmp_path / "out.onnx", value)
        assert content(tmp_path / "out.onnx") == value
    assert len(names(tmp_path)) == 2
