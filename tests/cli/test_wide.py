"""Wide and deep graphs through the command: done, and the same model still."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from .conftest import Cli

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from scale_models import (
    DEEPEST,
    Shape,
    captures,
    chain,
    concat,
    equals,
    functions,
    identities,
    nested,
    outputs,
    readers,
)

EQUAL = {
    "concat": (concat, 200),
    "readers": (readers, 2_000),
    "outputs": (outputs, 300),
    "chain": (chain, 2_000),
    "captures": (captures, 300),
    "functions": (functions, 60),
    "equals": (equals, 300),
    "identities": (identities, 300),
}
LARGE = {
    "readers": (readers, 20_000),
    "chain": (chain, 20_000),
    "nested": (nested, DEEPEST),
    "functions": (functions, 1_000),
}


@pytest.mark.parametrize(("shape", "number"), EQUAL.values(), ids=EQUAL.keys())
def test_a_wide_graph_stays_equal(cli: Cli, tmp_path: Path, shape: Shape, number: int) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(shape(number), path)
    done = cli("fuse", path, "--json", "-", "--timeout", 300)
    assert (done.code, done.report["verdict"]) == (0, "equal"), done.err
    onnx.checker.check_model(tmp_path / "model.fused.onnx")


@pytest.mark.parametrize(("shape", "number"), LARGE.values(), ids=LARGE.keys())
def test_a_very_large_graph_comes_out_whole(cli: Cli, tmp_path: Path, shape: Shape, number: int) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(shape(number), path)
    done = cli("fuse", path, "--verify", "off")
    assert done.code == 0, done.err
    found = onnx.load(tmp_path / "model.fused.onnx").graph
    given = onnx.load(path).graph
    assert ([one.name for one in found.input], [one.name for one in found.output]) == (
        [one.name for one in given.input],
        [one.name for one in given.output],
    )
