"""Weights in files: several, in folders, shared, empty."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from corpora.exotic.base import Made, Theme, text

exotic = Theme("external")

_TWO = "g (float[2, 3] x) => (float[2, 3] y) { h = Mul(x, a) y = Add(h, b) }"
_A = np.arange(6, dtype=np.float32)
_B = np.linspace(-1, 1, 6, dtype=np.float32)


def _outside(
    name: str, location: str, shape: list[int], dtype: int = TensorProto.FLOAT, **entries: int | str
) -> TensorProto:
    tensor = TensorProto(name=name, data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _with(graph: str, *tensors: TensorProto) -> onnx.ModelProto:
    model = text(graph)
    model.graph.initializer.extend(tensors)
    return model


@exotic()
def several_files() -> Made:
    """Each weight in its own file."""
    model = _with(_TWO, _outside("a", "a.bin", [2, 3]), _outside("b", "b.bin", [2, 3]))
    return Made(model, {"a.bin": _A.tobytes(), "b.bin": _B.tobytes()})


@exotic()
def sub_folder() -> Made:
    """Weights in a folder below the model's, with signs of another script in its name."""
    model = _with(_TWO, _outside("a", "weights/ä ☃.bin", [2, 3], offset=0, length=24), _outside("b", "b.bin", [2, 3]))
    return Made(model, {"weights/ä ☃.bin": _A.tobytes(), "b.bin": _B.tobytes()})


@exotic()
def shared_region() -> Made:
    """Two weights over the same bytes."""
    region = {"offset": 24, "length": 24}
    model = _with(_TWO, _outside("a", "w.bin", [2, 3], **region), _outside("b", "w.bin", [2, 3], **region))
    return Made(model, {"w.bin": _A.tobytes() + _B.tobytes()})


@exotic()
def overlapping_regions() -> Made:
    """Two weights whose bytes overlap, at an offset that is no multiple of anything."""
    model = _with(
        _TWO, _outside("a", "w.bin", [2, 3], offset=3, length=24), _outside("b", "w.bin", [2, 3], offset=11, length=24)
    )
    return Made(model, {"w.bin": b"\x00" * 3 + _A.tobytes() + _B.tobytes()[:8]})


@exotic()
def no_offset() -> Made:
    """A region said by its file alone, one without a length, one with a checksum."""
    model = _with(_TWO, _outside("a", "a.bin", [2, 3]), _outside("b", "b.bin", [2, 3], offset=8, checksum="00" * 20))
    return Made(model, {"a.bin": _A.tobytes(), "b.bin": b"\x00" * 8 + _B.tobytes()})


@exotic()
def zero_length() -> Made:
    """A weight without elements in a file of weights."""
    model = _with(
        "g (float[2, 3] x) => (float[2, 3] y) { h = Concat<axis = 0>(x, a) y = Add(h, b) }",
        _outside("a", "w.bin", [0, 3], offset=0, length=0),
        _outside("b", "w.bin", [2, 3], offset=0, length=24),
    )
    return Made(model, {"w.bin": _B.tobytes()})


@exotic()
def narrow_types() -> Made:
    """int4 and bfloat16 in a file."""
    model = text(
        """g (float[5] x) => (float[5] y, float[5] z) {
            p = Cast<to = 1>(a) y = Add(x, p) q = Cast<to = 1>(b) z = Mul(x, q) }""",
        opset=21,
    )
    model.graph.initializer.append(_outside("a", "w.bin", [5], TensorProto.INT4, offset=0, length=3))
    model.graph.initializer.append(_outside("b", "w.bin", [5], TensorProto.BFLOAT16, offset=4, length=10))
    halves = np.array([0x3F80, 0xBF80, 0x4000, 0x0001, 0x7F80], np.uint16)
    return Made(model, {"w.bin": bytes([0x87, 0x21, 0x0F, 0]) + halves.tobytes()})


@exotic()
def in_a_branch() -> Made:
    """External weights of a subgraph, and of a Constant inside it."""
    model = text(
        """g (float[2, 3] x, bool c) => (float[2, 3] y) {
            y = If(c) <then_branch = t () => (float[2, 3] p) { p = Mul(x, a) },
                       else_branch = e () => (float[2, 3] q) { q = Neg(x) }> }"""
    )
    model.graph.node[0].attribute[0].g.initializer.append(_outside("a", "w.bin", [2, 3]))
    return Made(model, {"w.bin": _A.tobytes()})


@exotic()
def mixed_with_inside() -> Made:
    """A weight outside, one inside, and a file beside the model that is none of its own."""
    model = text("g (float[2, 3] x) => (float[2, 3] y) <float[3] b = {1, 2, 3}> { h = Mul(x, a) y = Add(h, b) }")
    model.graph.initializer.append(_outside("a", "model.onnx.data", [2, 3]))
    return Made(model, {"model.onnx.data": _A.tobytes(), "notes.txt": b"not a weight"})


@exotic()
def larger_than_its_region() -> Made:
    """A file with more in it than the model reads: what is not read goes nowhere."""
    model = _with(
        _TWO, _outside("a", "w.bin", [2, 3], offset=0, length=24), _outside("b", "w.bin", [2, 3], offset=48, length=24)
    )
    return Made(model, {"w.bin": _A.tobytes() + b"SECRET" * 4 + _B.tobytes() + b"SECRET"})
