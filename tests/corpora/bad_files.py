"""Bad files: what is no model, what is cut off, what no protobuf begins like, what is too much, what is no text."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format, text_format
from onnx import helper, numpy_helper

from graphopt.ir.wire import key, varint

from .bad_parts import (
    BRANCHES,
    CALL,
    GOOD,
    Case,
    Make,
    changed,
    field,
    good,
    model_of,
    of_bytes,
    replaced,
    save,
    socket_called,
)

NOT_A_MODEL = "not a readable ONNX protobuf|not an ONNX model"


def _zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": [1.0] * 100}))
    return data.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def _gzip() -> bytes:
    return gzip.compress(good().SerializeToString(), mtime=0)


def _link(to: str) -> Make:
    return lambda folder: (folder / "model.onnx").symlink_to(to)


def _truncated(part: float) -> Make:
    data = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"], f"n{i}") for i in range(40)], "g", [], [])
    )
    whole = data.SerializeToString()
    return of_bytes(whole[: int(len(whole) * part)])


def _nested(depth: int) -> bytes:
    graph = field(1, field(4, b"Relu"))
    for _ in range(depth):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"))
    return model_of(graph)


def _nested_type(depth: int) -> bytes:
    kind = b""
    for _ in range(depth):
        kind = field(4, field(1, kind))
    return model_of(field(11, field(1, b"x") + field(2, kind)))


def _groups(depth: int) -> bytes:
    start, end = key(999, 3), key(999, 4)
    return good().SerializeToString() + start * depth + end * depth


def _metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="the key", value="the value")


_NODES = field(1, b"") * 4_000_000
_ATTRIBUTES = field(1, field(4, b"Relu") + field(5, b"") * 500) * 22_000
_UNKNOWN = (key(999, 0) + b"\0") * 6_000_000
_INFOS = field(13, b"") * 11_000_000


FILES: dict[str, Case] = {
    "no file": (lambda folder: None, "GO020", "no such file"),
    "a link to nothing": (_link("nothing.onnx"), "GO020", "no such file"),
    "a link to itself": (_link("model.onnx"), "GO022", "cannot be read"),
    "a folder": (lambda folder: (folder / "model.onnx").mkdir(), "GO021", "directory"),
    "a pipe": (lambda folder: os.mkfifo(folder / "model.onnx"), "GO022", "not a regular file"),
    "a socket": (socket_called("model.onnx"), "GO022", "not a regular file"),
    "a link to a device": (_link("/dev/zero"), "GO022", "not a regular file"),
    "a link to a terminal": (_link("/dev/tty"), "GO022", "not a regular file"),
    "a link to a file of the system": (_link("/proc/self/environ"), "GO023", "empty"),
    "empty": (of_bytes(b""), "GO023", "empty"),
    "one byte": (of_bytes(b"\x08"), "GO023", NOT_A_MODEL),
    "zeros": (of_bytes(bytes(1 << 20)), "GO023", NOT_A_MODEL),
    "noise": (of_bytes(np.random.default_rng(0).bytes(4096)), "GO023", NOT_A_MODEL),
    "much noise": (of_bytes(np.random.default_rng(1).bytes(17 << 20)), "GO023", NOT_A_MODEL),
    "a program": (of_bytes(b"import torch\nmodel = torch.nn.Linear(3, 4)\n" * 9), "GO023", NOT_A_MODEL),
    "a pickle": (of_bytes(pickle.dumps({"weight": [1.0, 2.0]})), "GO023", NOT_A_MODEL),
    "a checkpoint of torch": (of_bytes(_zip()), "GO023", "zip archive"),
    "compressed": (of_bytes(_gzip()), "GO023", "gzip"),
    "safetensors": (of_bytes(_safetensors()), "GO023", "safetensors"),
    "JSON": (of_bytes(json_format.MessageToJson(good()).encode()), "GO023", "JSON"),
    "the text form of protobuf": (of_bytes(text_format.MessageToString(good()).encode()), "GO023", "text form"),
    "the text form of ONNX": (of_bytes(GOOD.encode()), "GO023", NOT_A_MODEL),
    "HDF5": (of_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "GO023", "HDF5"),
    "TensorFlow Lite": (of_bytes(b"\x1c\0\0\0TFL3" + bytes(90)), "GO023", "TensorFlow Lite"),
    "onnxruntime's own format": (of_bytes(b"\x1c\0\0\0ORTM" + bytes(90)), "GO023", "onnxruntime's own"),
    "GGUF": (of_bytes(b"GGUF\3\0\0\0" + bytes(90)), "GO023", "GGUF"),
    "a pointer of Git LFS": (
        of_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "GO023",
        "Git LFS",
    ),
    "a web page": (of_bytes(b"<!DOCTYPE html><html><body>404</body></html>"), "GO023", NOT_A_MODEL),
    "a tensor": (of_bytes(numpy_helper.from_array(np.arange(9), "x").SerializeToString()), "GO023", NOT_A_MODEL),
    "a graph": (of_bytes(good().graph.SerializeToString()), "GO023", NOT_A_MODEL),
    "a node": (of_bytes(good().graph.node[0].SerializeToString()), "GO023", NOT_A_MODEL),
    "a function": (changed(lambda m: m.CopyFrom(onnx.ModelProto(functions=m.functions)), CALL), "GO023", "no graph"),
    "no graph": (changed(lambda m: m.ClearField("graph")), "GO023", "no graph"),
    **{
        f"truncated at {part:.0%}": (_truncated(part), "GO023", NOT_A_MODEL)
        for part in (0.03, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99)
    },
    "large and truncated": (
        of_bytes(model_of(field(5, field(9, bytes(20 << 20))))[:-3]),
        "GO023",
        "ends inside a number",
    ),
    "large and cut off in its weights": (
        of_bytes(model_of(field(5, field(9, bytes(20 << 20))))[: 17 << 20]),
        "GO023",
        "ends behind what holds it",
    ),
    "bytes behind the end": (of_bytes(good().SerializeToString() + b"\xff\xff\xff"), "GO023", "ends inside a number"),
    "a number without end": (of_bytes(b"\x08" + b"\xff" * 40), "GO023", "ends inside a number"),
    "a length of 2^31": (of_bytes(b"\x3a" + varint(1 << 31) + b"x"), "GO023", "ends behind"),
    "a length of 2^63": (of_bytes(b"\x3a" + varint(1 << 63) + b"x"), "GO023", "ends behind"),
    "field 0": (of_bytes(good().SerializeToString() + b"\x02\x00"), "GO023", "no field begins"),
    "wire type 6": (of_bytes(good().SerializeToString() + b"\x0e\x00"), "GO023", "no field begins"),
    "wire type 7": (of_bytes(good().SerializeToString() + b"\x0f\x00"), "GO023", "no field begins"),
    "a group without end": (of_bytes(good().SerializeToString() + b"\xfb\x3e"), "GO023", "a group does not end"),
    "a group without begin": (of_bytes(good().SerializeToString() + b"\xfc\x3e"), "GO023", "no field begins"),
    "groups in groups": (of_bytes(_groups(1000)), "GO130", "nested too deep"),
    "graphs in graphs": (of_bytes(_nested(1000)), "GO130", "nested too deep"),
    "graphs in graphs, one too many": (of_bytes(_nested(33)), "GO130", "nested too deep"),
    "types in types": (of_bytes(_nested_type(1000)), "GO130", "nested too deep"),
    "millions of empty nodes": (of_bytes(model_of(_NODES)), "GO130", "would take more than"),
    "millions of empty attributes": (of_bytes(model_of(_ATTRIBUTES)), "GO130", "more than 10,000,000 parts"),
    "millions of empty types": (of_bytes(model_of(_INFOS)), "GO130", "more than"),
    "millions of unknown fields": (of_bytes(good().SerializeToString() + _UNKNOWN), "GO130", "more than"),
    "a node's name is no text": (
        replaced(b"nameXX", b"nam\xff\xfeX", lambda m: setattr(m.graph.node[0], "name", "nameXX")),
        "GO039",
        "the name .* of a NodeProto is not UTF-8",
    ),
    "an operator is no text": (replaced(b"Relu", b"Re\xc3\x28"), "GO039", "the op_type .* of a NodeProto"),
    "a domain is no text": (replaced(b"my", b"\xe2\x28", text=CALL), "GO039", "domain|of an? "),
    "a value is no text": (
        replaced(b"valueXX", b"value\xc0\x80", lambda m: setattr(m.graph.input[0], "name", "valueXX")),
        "GO039",
        "of a ValueInfoProto",
    ),
    "a note is no text": (
        replaced(b"noteXX", b"note\xed\xa0", lambda m: setattr(m.graph, "doc_string", "noteXX")),
        "GO039",
        "the doc_string .* of a GraphProto",
    ),
    "a key of the metadata is no text": (replaced(b"the key", b"the k\xf5y", _metadata), "GO039", "the key .* of a"),
    "a value of the metadata is no text": (
        replaced(b"the value", b"the valu\x80", _metadata),
        "GO039",
        "the value .* of a StringStringEntryProto",
    ),
    "the producer is no text": (
        replaced(b"someone", b"someon\xff", lambda m: setattr(m, "producer_name", "someone")),
        "GO039",
        "the producer_name .* of a ModelProto",
    ),
    "a dimension is no text": (
        replaced(b"batchX", b"batch\xff", lambda m: _dimension(m, "batchX")),
        "GO039",
        "the dim_param",
    ),
    "an attribute is no text": (replaced(b"then_branch", b"then\xffbranch", text=BRANCHES), "GO039", "AttributeProto"),
}


def _dimension(model: onnx.ModelProto, name: str) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name


def large(folder: Path) -> None:
    """A good model of 24 MB, whose weights are not read at once."""
    model = good()
    model.graph.initializer[0].CopyFrom(
        onnx.TensorProto(name="w", data_type=1, dims=[6_000_000], raw_data=bytes(24_000_000))
    )
    save(model, folder)
