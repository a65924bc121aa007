"""README's commands run and its map of the house is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

INSTALLED_BY_CI = {"use", "develop", "test"}
PROGRAMS = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable]}


class Block(NamedTuple):
    """A fenced block: "```language name", where a name is that of a set-up step or of the file it is."""

    language: str
    name: str
    body: str


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


@pytest.fixture(scope="module")
def blocks(readme: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)]


def gelu_layer() -> onnx.ModelProto:
    """A linear layer with GELU spelled out: y = h/2 · (1 + erf(h/√2)), h = x·w + b, on x (N, 512)."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 512**-0.5, (512, 2048)),
        "b": rng.normal(0, 0.5, 2048),
        "root": np.sqrt(2.0),
        "one": 1.0,
        "half": 0.5,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["h"]),
        helper.make_node("Div", ["h", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["shifted"]),
        helper.make_node("Mul", ["h", "shifted"], ["doubled"]),
        helper.make_node("Mul", ["doubled", "half"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gelu_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2048])],
        [numpy_helper.from_array(np.asarray(data, np.float32), name) for name, data in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_commands_and_programs_run_in_the_order_shown(blocks: list[Block], tmp_path: Path) -> None:
    onnx.save(gelu_layer(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).normal(size=(16, 512)).astype(np.float32))
    env = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    ran = 0
    for block in blocks:
        if block.language not in PROGRAMS or block.name in INSTALLED_BY_CI:
            continue
        script = tmp_path / (block.name or f"block.{block.language}")
        script.write_text(block.body)
        command = [*PROGRAMS[block.language], script.name]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.body}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 2


def test_every_block_is_of_a_kind_that_is_run(blocks: list[Block], root: Path) -> None:
    for block in blocks:
        assert block.language in {*PROGRAMS, "text"}, block
        if block.language == "sh":
            assert block.name in {"", *INSTALLED_BY_CI}, block
    ci = (root / ".ci" / "run").read_text()
    assert set(re.findall(r"\$\(readme (\w+)\)", ci)) == INSTALLED_BY_CI
    assert INSTALLED_BY_CI.issubset(block.name for block in blocks)


def packages(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"}


def test_the_tree_is_that_of_the_checkout(blocks: list[Block], root: Path) -> None:
    tree = next(block.body for block in blocks if block.name == "tree")
    top = set(re.findall(r"^(\w+)/", tree, re.MULTILINE))
    inner = set(re.findall(r"^  (\w+)(?:/| →)", tree, re.MULTILINE))
    assert top == {"graphopt", "patterns", "kernels", "tests", "tools"}
    assert all((root / name).is_dir() for name in top)
    assert inner == packages(root / "graphopt")
