"""`graphopt bench --plot`: what is in the picture, and where there can be none."""

from __future__ import annotations

import errno
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import parser

from graphopt import pipeline
from graphopt.errors import UsageError
from graphopt.pipeline import Bench
from graphopt.report.picture import draw

from .conftest import Cli, snapshot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, the second of which computes less than the first."""
    found = tmp_path_factory.mktemp("models")
    for name, body in (("long", "a = MatMul(x, x) y = MatMul(a, x)"), ("short", "y = MatMul(x, x)")):
        text = f'<ir_version: 8, opset_import: ["": 17]> g (float[N, N] x) => (float[N, N] y) {{ {body} }}'
        onnx.save(parser.parse_model(text), found / f"{name}.onnx")
    return found


@pytest.fixture(scope="module")
def found(folder: Path) -> Bench:
    """Both on two sets of shapes."""
    models = [folder / "long.onnx", folder / "short.onnx"]
    return pipeline.bench(models, shapes={"x": [(4, 4), (64, 64)]}, runs=6, threads=1)


def texts(path: Path) -> list[str]:
    """What is written in an SVG picture."""
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text())


def test_the_picture_shows_latencies_and_what_they_cost(found: Bench, tmp_path: Path) -> None:
    draw(found, tmp_path / "bench.svg")
    shown = texts(tmp_path / "bench.svg")
    assert {"4 × 4", "64 × 64", "6 runs of each model on cpu, 1 thread"} <= set(shown)
    sizes = [f"{Path(name).name}, {size.disk} bytes" for name, size in zip(found.models, found.sizes, strict=True)]
    assert [text for text in shown if text.endswith("bytes")] == sizes
    (first,) = [text for text in shown if text.startswith("latency") and "median" in text]
    factor = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}[re.findall(r"\((.*)\)", first)[0]]
    for series in found.series:
        for one in series.timing.latencies:
            assert f"{one.wall.median / factor:.4g}" in shown
    assert any(text.startswith("cosine") for text in shown)
    assert any(text.endswith("on 4 × 4; area: size on disk") for text in shown)


def test_the_same_bench_gives_the_same_picture(found: Bench, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    found: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "bench.svg").write_text("<svg >old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="the picture cannot be written: No space left on device"):
        draw(found, tmp_path / "bench.svg")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("bench.svg", "<svg >old")]


def test_models_that_cannot_be_compared_are_shown_by_latency_alone(found: Bench, tmp_path: Path) -> None:
    series = tuple(replace(one, cosines=(1.0, None)) for one in found.series)
    draw(replace(found, series=series), tmp_path / "bench.svg")
    assert not any(text.startswith("cosine") for text in texts(tmp_path / "bench.svg"))


def test_a_single_model_with_a_single_run_is_a_picture_too(cli: Cli, folder: Path, tmp_path: Path) -> None:
    before = snapshot(folder)
    path = tmp_path / "bench.png"
    done = cli("bench", folder / "short.onnx", "--runs", "1", "--dim", "N=4", "--plot", path, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert path.read_bytes().startswith(PNG)
    assert snapshot(folder) == before


def test_without_matplotlib_the_extra_is_named(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli("bench", folder / "short.onnx", "--plot", tmp_path / "bench.png")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[GO112]: ")
    assert "graphopt[plot]" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["bench.jpg", "bench", "nowhere/bench.png", "folder.png"])
def test_where_there_can_be_no_picture_nothing_runs(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    # The picture is asked for first: that there is no such model, nobody notices.
    done = cli("bench", "no-model.onnx", "--plot", tmp_path / name)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[GO113]: ")
    assert name in done.err


def test_a_picture_takes_the_place_of_none_but_pictures(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a a model")
    (tmp_path / "bench.svg").symlink_to("model.onnx")
    done = cli("bench", tmp_path / "model.onnx", "--plot", tmp_path / "bench.svg")
    assert done.code == 2
    assert done.err.startswith("error[GO113]: the picture would overwrite a file that is none\n")
    assert (tmp_path / "model.onnx").read_bytes() == b"\x08\x0a a model"
