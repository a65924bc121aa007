"""The commands of docs/explain.md run, and print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import onnx
import pytest

from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

from .conftest import Cli

MODEL = """opset 17
(x: float32[N, 16]) -> (y) {
  h = Add(MatMul(x, float32[16, 32] random(1)), float32[32] random(2))
  cube = Mul(Pow(h, 3.0), CONSTANT)
  t = Tanh(Mul(Add(h, cube), 0.7978845608))
  y = Mul(Mul(h, Add(t, 1.0)), 0.5)
}"""


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "explain.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, constant in (("model", "0.0447"), ("encoder", "0.044715")):
        onnx.save(model_to_proto(parse(MODEL.replace("CONSTANT", constant))), tmp_path / f"{name}.onnx")
    return tmp_path


def test_commands_run(page: str, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```(?:sh|yaml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^(?: +- run: )?graphopt (.*)$", "\n".join(blocks), re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["explain"] * 5
    for command in commands:
        done = cli(*shlex.split(command))
        assert (done.code, done.err) == (0, ""), command
    assert (folder / "explain.json").is_file()


def test_the_example_is_what_is_printed(page: str, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shown = re.search(r"^```text shown\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown is not None
    out = cli("explain", "model.onnx", "--require", "Gelu=1").out
    printed = [re.sub(r"\S+/(?=patterns/)", "", line.rstrip()) for line in out.splitlines()]
    wanted = shown[1].splitlines()
    assert printed[: len(wanted)] == wanted
