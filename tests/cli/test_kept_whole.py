"""What is kept beside a model, a case or a calibration, is all there or not at all."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.ir import publish
from graphopt.quantize.observe.cache import Cache
from graphopt.quantize.observe.statistics import Statistics
from graphopt.verify.failures import cases

from .conftest import gelu_layer

SHARD = {"x": Statistics.of(np.arange(12, dtype=np.float32).reshape(3, 4))}


def killed(work: Callable[[], object]) -> None:
    """Does `work`, which kills its process, in a process of its own."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def dies(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_case_that_cannot_be_kept_is_said_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        assert (tmp_path / "rule_root" / "case.onnx").exists()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "other").mkdir()
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UsageError, match="a case cannot be kept: No space left on device") as caught:
        cases.keep(tmp_path, "rule root", {"case": gelu_layer()}, {"x": np.ones(3)})
    assert (caught.value.code, caught.value.where) == ("GO028", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_crash_that_cannot_be_kept_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(np, "savez", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cases.keep(None, "crash", {"case": gelu_layer()}, {"x": np.ones(3)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("where", "name"), [(np, "savez"), (publish.os, "fsync"), (publish.os, "replace")])
def test_a_calibration_that_is_killed_leaves_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    cache = Cache("key", tmp_path / "cache")
    path = cache.path({}, [])
    cache.write(path, SHARD, 1)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, dies)
        killed(lambda: cache.write(path, SHARD, 2))
    assert cache.read(path, SHARD)[1] == 1
    cache.write(path, SHARD, 3)
    assert cache.read(path, SHARD)[1] == 3
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_calibration_in_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish.os, "O_TMPFILE", 0)
    cache = Cache("key", tmp_path / "cache")
    path = cache.path({}, [])
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", dies)
        killed(lambda: cache.write(path, SHARD, 1))
    assert [one.suffix for one in path.parent.iterdir()] == [".tmp"]
    cache.write(path, SHARD, 1)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
