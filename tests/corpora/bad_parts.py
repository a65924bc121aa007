"""What bad models are made of: a good one, and ways to break it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, parser

from graphopt.ir.wire import key, varint

Make = Callable[[Path], None]
Case = tuple[Make, str, str]
"""How a file is made, the code of the error, a regular expression for its message."""

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
GOOD = f"{HEAD} g (float[N] x) => (float[N] y) <float[2] w = {{1, 2}}> {{ a = Add(x, w) y = Relu(a) }}"
BRANCHES = f"""{HEAD} g (bool c, float[N] x) => (float[N] y) {{
    y = If(c) <then_branch = a () => (float[N] t) {{ t = Neg(x) }}, else_branch = b () => (float[N] e) {{ e = Abs(x) }}>
}}"""
CALL = f"""{HEAD.replace("]>", ', "my" : 1]>')} g (float[N] x) => (float[N] y) {{ y = my.F(x) }}
<domain: "my", opset_import: ["" : 20, "my" : 1]> F (a) => (b) {{ b = Neg(a) }}"""


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(text)


def good() -> onnx.ModelProto:
    return parsed(GOOD)


def save(model: onnx.ModelProto | bytes, folder: Path) -> None:
    # Not onnx.save: it may look at what it writes.
    (folder / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())


def of_bytes(data: bytes) -> Make:
    return lambda folder: save(data, folder)


def of_text(text: str) -> Make:
    return lambda folder: save(parsed(text), folder)


def changed(change: Callable[[onnx.ModelProto], object], text: str = GOOD) -> Make:
    """The model of `text` after `change`."""

    def make(folder: Path) -> None:
        model = parsed(text)
        change(model)
        save(model, folder)

    return make


def replaced(old: bytes, new: bytes, change: Callable[[onnx.ModelProto], object] = bool, text: str = GOOD) -> Make:
    """The file after `change` with some bytes replaced by as many others."""
    assert len(old) == len(new)

    def make(folder: Path) -> None:
        model = parsed(text)
        change(model)
        data = model.SerializeToString()
        assert data.count(old) >= 1
        save(data.replace(old, new), folder)

    return make


def constant(**fields: object) -> TensorProto:
    return TensorProto(name="w", **fields)  # type: ignore[arg-type]


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, as it stands in a file."""
    return key(number) + varint(len(data)) + data


def model_of(graph: bytes) -> bytes:
    """A model of IR version 10 and opset 20 with this graph, as it stands in a file."""
    return b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x14")


def socket_called(name: str) -> Make:
    """A socket in the model's folder."""

    def make(folder: Path) -> None:
        # The path of a socket may have some hundred bytes only.
        here = os.open(folder, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"/proc/self/fd/{here}/{name}")
        finally:
            os.close(here)

    return make
