"""Protobuf's wire format as far as graphopt reads and writes it itself: what protobuf says of the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphopt.ir import wire

STAMP = (1, 2)
LARGE = np.arange(40_000, dtype=np.float32)
SMALL = np.arange(10_000, dtype=np.float32)


def model(*arrays: np.ndarray) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(arrays)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["w0"], ["y"])], "g", [], [output], tensors, "doc")
    return helper.make_model(graph, producer_name="somebody")


def split(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[int, wire.Region]]:
    data = memoryview(proto.SerializeToString())
    rest, regions = wire.without_weights(data, Path("model.onnx"), STAMP)
    for region in regions.values():
        assert region.view == data[region.offset : region.offset + len(region.view)]
        assert (region.path, region.stamp) == (Path("model.onnx"), STAMP)
    return onnx.load_from_string(rest), regions


# ---- numbers and fields -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(number=st.integers(0, (1 << 64) - 1), before=st.binary(max_size=3), after=st.binary(max_size=3))
def test_numbers_there_and_back(number: int, before: bytes, after: bytes) -> None:
    written = wire.varint(number)
    data = before + written + after
    assert wire.read_varint(data, len(before), len(data)) == (number, len(before) + len(written))
    with pytest.raises(DecodeError):
        wire.read_varint(data, len(before), len(before) + len(written) - 1)


@pytest.mark.parametrize(
    ("number", "written"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), ((1 << 64) - 1, "ff" * 9 + "01")]
)
def test_numbers_as_protobuf_has_them(number: int, written: str) -> None:
    assert wire.varint(number).hex() == written


def test_a_number_has_ten_bytes_at_most() -> None:
    assert wire.read_varint(b"\x80" * 9 + b"\x01", 0, 10) == (1 << 63, 10)
    with pytest.raises(DecodeError):
        wire.read_varint(b"\x80" * 10 + b"\x01", 0, 11)


@pytest.mark.parametrize("kind", range(6))
def test_fields_that_the_schema_does_not_know(kind: int) -> None:
    value = {
        0: wire.varint(300),
        1: b"12345678",
        2: b"\x03abc",
        3: wire.key(7, 0) + b"\x05" + wire.key(2) + b"\x01z" + wire.key(999, 4),
        4: b"",
        5: b"1234",
    }[kind]
    data = wire.key(999, kind) + value + wire.key(998, 0) + b"\x01"
    if kind == 4:
        with pytest.raises(DecodeError):
            onnx.NodeProto.FromString(data)
    else:
        assert wire.encode(UnknownFieldSet(onnx.NodeProto.FromString(data))) == data


# ---- reading without weights --------------------------------------------------------------------------------------


def test_only_large_weights_are_left_where_they_are() -> None:
    original = model(SMALL, LARGE, SMALL, LARGE * 2)
    rest, regions = split(original)
    assert sorted(regions) == [1, 3]
    assert [len(tensor.raw_data) for tensor in rest.graph.initializer] == [40_000, 0, 40_000, 0]
    for index, region in regions.items():
        rest.graph.initializer[index].raw_data = bytes(region.view)
    assert rest == original


@pytest.mark.parametrize(("count", "left"), [((1 << 16) // 4, False), ((1 << 16) // 4 + 1, True)])
def test_what_is_large(count: int, left: bool) -> None:
    _, regions = split(model(np.zeros(count, np.float32)))
    assert bool(regions) == left


def test_what_is_small_or_typed_stays() -> None:
    typed = model(SMALL)
    typed.graph.initializer[0].ClearField("raw_data")
    typed.graph.initializer[0].float_data.extend(LARGE.tolist())
    rest, regions = split(typed)
    assert (rest, regions) == (typed, {})


def test_weights_before_the_rest_of_their_tensor() -> None:
    """Fields may come in any order; those behind the data are kept."""
    tensor = numpy_helper.from_array(LARGE, "w0")
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    rest = tensor.SerializeToString()
    body = wire.key(TensorProto.RAW_DATA_FIELD_NUMBER) + wire.varint(len(raw)) + raw + rest
    graph = wire.key(onnx.GraphProto.INITIALIZER_FIELD_NUMBER) + wire.varint(len(body)) + body
    data = wire.key(onnx.ModelProto.GRAPH_FIELD_NUMBER) + wire.varint(len(graph)) + graph + wire.key(1, 0) + b"\x0a"
    kept, regions = wire.without_weights(memoryview(data), Path("m"), STAMP)
    read = onnx.load_from_string(kept)
    assert (read.ir_version, read.graph.initializer[0]) == (10, tensor)
    assert bytes(regions[0].view) == raw


def test_data_that_stands_twice_is_for_protobuf_to_read() -> None:
    raw = wire.key(TensorProto.RAW_DATA_FIELD_NUMBER) + wire.varint(LARGE.nbytes) + LARGE.tobytes()
    body = raw + raw
    graph = wire.key(onnx.GraphProto.INITIALIZER_FIELD_NUMBER) + wire.varint(len(body)) + body
    data = wire.key(onnx.ModelProto.GRAPH_FIELD_NUMBER) + wire.varint(len(graph)) + graph
    kept, regions = wire.without_weights(memoryview(data), Path("m"), STAMP)
    assert (kept, regions) == (data, {})


def test_what_was_read_is_left_as_it_is() -> None:
    data = b"anything"
    assert wire.without_weights(data, Path("m"), STAMP) == (data, {})


GRAPH = wire.key(onnx.ModelProto.GRAPH_FIELD_NUMBER)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GRAPH + b"\x05ab", id="a graph that ends behind the file"),
        pytest.param(b"\x00\x00" + GRAPH + b"\x00", id="field 0"),
        pytest.param(wire.key(9, 1) + b"1234567", id="eight bytes that are seven"),
        pytest.param(wire.key(9, 5) + b"123", id="four bytes that are three"),
        pytest.param(wire.key(9, 3) + wire.key(9, 4) + GRAPH + b"\x00", id="a group"),
        pytest.param(wire.key(9, 7) + GRAPH + b"\x00", id="a wire type that is none"),
        pytest.param(wire.key(9, 0) + b"\x80", id="half a number"),
        pytest.param(b"\x80", id="half a key"),
        pytest.param(GRAPH + b"\x02\x2a\x05" + b"abcde", id="an initializer that ends behind its graph"),
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.without_weights(memoryview(data), Path("m"), STAMP)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="no graph"),
        pytest.param(GRAPH + b"\x00" + GRAPH + b"\x00", id="two graphs, which add up"),
        pytest.param(wire.key(onnx.ModelProto.GRAPH_FIELD_NUMBER, 0) + b"\x01", id="a graph that is a number"),
    ],
)
def test_what_is_for_protobuf_to_read(data: bytes) -> None:
    assert wire.without_weights(memoryview(data), Path("m"), STAMP) == (data, {})


def test_fields_of_all_kinds_are_stepped_over() -> None:
    ahead = wire.key(900, 0) + b"\xac\x02" + wire.key(901, 1) + b"12345678" + wire.key(902, 5) + b"1234"
    data = ahead + GRAPH + b"\x00" + ahead
    kept, regions = wire.without_weights(memoryview(data), Path("m"), STAMP)
    assert (kept, regions) == (data, {})


@pytest.mark.parametrize("more", [0, 1])
def test_a_message_of_too_many_fields(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_FIELDS", 10)
    data = memoryview(GRAPH + b"\x00" + (wire.key(900, 0) + b"\x01") * (9 + more))
    if more:
        with pytest.raises(OverflowError, match="more than 10 fields"):
            wire.without_weights(data, Path("m"), STAMP)
    else:
        wire.without_weights(data, Path("m"), STAMP)


@pytest.mark.parametrize(("size", "kind"), [((1 << 24) - 1, bytes), (1 << 24, memoryview)])
def test_what_is_small_is_read_what_is_large_mapped(tmp_path: Path, size: int, kind: type) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(size)
    with open(path, "rb") as file:
        found = wire.contents(file)
        assert (type(found), len(found)) == (kind, size)


def test_a_region_is_current_as_long_as_the_file_is_there_and_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    region = wire.Region(path, 2, memoryview(b"3456"), wire.stamp(path.stat()))
    assert region.is_current()
    region.let_go()
    os.utime(path, ns=(5, 5))
    assert not region.is_current()
    path.unlink()
    assert not region.is_current()


# ---- writing in pieces --------------------------------------------------------------------------------------------


def test_pieces_are_the_message() -> None:
    original = model(SMALL, LARGE)
    head, graph, pieces = onnx.ModelProto(), onnx.GraphProto(), []
    head.CopyFrom(original)
    head.ClearField("graph")
    graph.CopyFrom(original.graph)
    graph.ClearField("initializer")
    for tensor in original.graph.initializer:
        header = TensorProto()
        header.CopyFrom(tensor)
        header.ClearField("raw_data")
        pieces.append(wire.tensor(header, memoryview(tensor.raw_data)))
    rest = onnx.GraphProto()
    rest.CopyFrom(graph)
    rest.ClearField("node")
    for parts in ([graph], [onnx.GraphProto(node=graph.node), rest]):
        written = b"".join(bytes(piece) for piece in wire.model(head, parts, pieces))  # type: ignore[arg-type]
        assert onnx.load_from_string(written) == original


def test_pieces_that_come_later_have_their_length() -> None:
    assert len(wire.Later(7, lambda: b"")) == 7
    assert len(wire.Stored(Path("w"), 3, 9)) == 9
