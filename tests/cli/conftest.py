"""The command line in this process: exit code, stdout, stderr."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from graphopt.cli.app import run


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """stdout as JSON."""
        loaded: dict[str, Any] = json.loads(self.out)
        return loaded


Cli = Callable[..., Outcome]

HEAD = '<ir_version: 8, opset_import: ["": 17]>'

GELU = f"""{HEAD} gelu_layer (float[N, 16] x) => (float[N, 32] y)
<float root = {{1.4142135}}, float one = {{1.0}}, float half = {{0.5}}> {{
    product = MatMul(x, w)
    h = Add(product, b)
    scaled = Div(h, root)
    erf = Erf(scaled)
    shifted = Add(erf, one)
    doubled = Mul(h, shifted)
    y = Mul(doubled, half)
}}"""
"""A linear layer with GELU in parts: y = h/2 · (1 + erf(h/√2)), h = x·w + b."""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs one command line."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


def gelu_layer() -> onnx.ModelProto:
    """`GELU` with seeded weights."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(0, 0.25, (16, 32)), "b": rng.normal(0, 0.5, 32)}
    model = parser.parse_model(GELU)
    model.graph.initializer.extend(
        numpy_helper.from_array(data.astype(np.float32), name) for name, data in weights.items()
    )
    return model


@pytest.fixture
def gelu(tmp_path: Path) -> Path:
    """A file with the GELU layer."""
    path = tmp_path / "model.onnx"
    onnx.save(gelu_layer(), path)
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """What is in a folder: paths and hashes of their content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
