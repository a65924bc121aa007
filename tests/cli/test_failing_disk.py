"""Disks that fail at any write: one error, and nothing changed; or all is there."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from .conftest import Cli, gelu_layer, snapshot

_CHANGES = ("copy_file_range", "fsync", "ftruncate", "link", "mkdir", "rename", "replace", "sendfile")
X = np.linspace(-2, 2, 48, dtype=np.float32).reshape(3, 16)


class Disk:
    """Logs what writes to files, and lets it fail from operation `end` on, with the error `number`."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, end: int | None) -> None:
        self.log: list[str] = []
        self._number = number
        self._end = end
        for name in _CHANGES:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))
        opened, real = os.open, io.open

        def open_file(path: Any, flags: int, *mode: int, **more: Any) -> int:
            if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE:
                self._next("open")
            return opened(path, flags, *mode, **more)

        def open_buffered(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if "b" not in mode or not set(mode) & set("wxa+"):
                return real(file, mode, *more, **options)
            kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
            plain = {key: value for key, value in options.items() if key in ("closefd", "opener")}
            return kind(self._raw(file, mode.replace("b", ""), **plain))

        patch.setattr(os, "open", open_file)
        patch.setattr(io, "open", open_buffered)
        patch.setattr(builtins, "open", open_buffered)

    def _next(self, what: str) -> None:
        self.log.append(what)
        if self._end is not None and len(self.log) > self._end:
            raise OSError(self._number, os.strerror(self._number))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._next(name)
            return real(*arguments, **options)

        return call

    def _raw(self, *arguments: Any, **options: Any) -> io.FileIO:
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                disk._next("write")
                return super().write(data)

        return Raw(*arguments, **options)


@contextmanager
def failing(number: int, end: int | None) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        yield Disk(patch, number, end)


def computed(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the GELU layer, its weights in a file beside it, and another model where the output goes."""
    place = tmp_path / "models"
    place.mkdir()
    onnx.save(gelu_layer(), place / "model.onnx", save_as_external_data=True, location="w", size_threshold=64)
    (place / "out.onnx").write_bytes(b"old")
    (place / "elsewhere").mkdir()
    return place


FUSE = ("fuse", "model.onnx", "--verify", "off", "--in-place", "--quiet", "-o")
QUANTIZE = ("quantize", "model.onnx", "--mode", "weight-only", "--verify", "off", "--allow-slower", "--no-cache", "-o")


@pytest.mark.parametrize(
    ("line", "output", "number", "step"),
    [
        (FUSE, "out.onnx", errno.ENOSPC, 1),
        (FUSE, "elsewhere/new.onnx", errno.EIO, 1),
        (FUSE, "model.onnx", errno.EDQUOT, 1),
        (QUANTIZE, "out.onnx", errno.ENOSPC, 12),
    ],
)
def test_a_disk_that_fails_at_any_write(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], output: str, number: int, step: int
) -> None:
    monkeypatch.chdir(folder)
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before, original = snapshot(folder), computed(folder / "model.onnx")
    end, done = 0, 3
    while done:
        with failing(number, end):
            result = cli(*line, output, "--external-data", "always")
        done = result.code
        assert not list(scratch.iterdir())
        if done:
            assert (done, result.err[:8]) == (3, "error[GO"), result.err
            assert f": {os.strerror(number)}\n" in result.err
            assert "GO070" not in result.err
            assert snapshot(folder) == before
        end += step
    assert end > 6
    np.testing.assert_allclose(computed(folder / output), original, atol=0.1)
    after = snapshot(folder)
    assert {name for name in before if after[name] != before[name]} <= {output}
    assert after.keys() - before.keys() <= {output, f"{output}.data"}


def test_all_is_on_the_disk_before_the_model_has_a_name(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with failing(0, None) as disk:
        assert cli(*FUSE, "elsewhere/new.onnx", "--external-data", "always").code == 0
    before = disk.log[: disk.log.index("replace")]
    # Of the side file, of the model, and of their folder once the side file has its name.
    assert before.count("fsync") == 3
    assert before[-2:] == ["link", "fsync"]
