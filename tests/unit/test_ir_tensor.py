"""Constants: what their data must be, numbers however they are kept, and what is written of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import ModelError
from graphopt.ir import Tensor, dtypes
from graphopt.ir.wire import Region

TYPED = {
    "float32": "float_data",
    "complex64": "float_data",
    "int32": "int32_data",
    "int8": "int32_data",
    "float16": "int32_data",
    "bool": "int32_data",
    "int4": "int32_data",
    "int64": "int64_data",
    "float64": "double_data",
    "complex128": "double_data",
    "uint64": "uint64_data",
    "uint32": "uint64_data",
}
# Entries of the field of that type for three elements.
ENTRIES = {"complex64": 6, "complex128": 6, "int4": 2}
BYTES = {"float32": 12, "complex64": 24, "int4": 2, "uint4": 2, "bool": 3, "float16": 6, "float8e4m3fn": 3, "int64": 24}


def refused(proto: TensorProto, region: Region | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        Tensor(proto, base=Path(), region=region).check()
    assert (caught.value.code, caught.value.where) == ("GO034", "tensor 'w'")
    return caught.value.message


def proto_of(kind: str, shape: list[int]) -> TensorProto:
    return TensorProto(name="w", data_type=dtypes.NUMBERS[kind], dims=shape)


# ---- how much data there is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPED)
def test_typed_data_has_as_many_entries_as_the_shape_says(kind: str) -> None:
    wanted = ENTRIES.get(kind, 3)
    proto = proto_of(kind, [3, 1])
    getattr(proto, TYPED[kind]).extend([1] * wanted)
    Tensor(proto).check()
    getattr(proto, TYPED[kind]).append(1)
    assert refused(proto) == f"{kind}[3, 1] takes {wanted} entries, its data has {wanted + 1}"
    getattr(proto, TYPED[kind])[:] = [1] * (wanted - 1)
    assert refused(proto) == f"{kind}[3, 1] takes {wanted} entries, its data has {wanted - 1}"


@pytest.mark.parametrize(("kind", "size"), BYTES.items())
def test_raw_data_has_as_many_bytes_as_type_and_shape_say(kind: str, size: int) -> None:
    for count in (size - 1, size, size + 1):
        proto = proto_of(kind, [3])
        proto.raw_data = bytes(count)
        if count == size:
            Tensor(proto).check()
            assert Tensor(proto).nbytes == size
        else:
            assert refused(proto) == f"{kind}[3] takes {size} bytes, its data has {count}"


@pytest.mark.parametrize("count", [11, 12, 13])
def test_data_that_stays_in_the_model_s_file(count: int) -> None:
    region = Region(Path("m.onnx"), 0, memoryview(bytes(count)), (0, 0))
    if count == 12:
        tensor = Tensor(proto_of("float32", [3]), region=region)
        tensor.check()
        assert tensor.numpy().tolist() == [0.0, 0.0, 0.0]
    else:
        assert refused(proto_of("float32", [3]), region) == f"float32[3] takes 12 bytes, its data has {count}"


def test_nothing_needs_no_data_and_has_none() -> None:
    proto = proto_of("float32", [0, 3])
    Tensor(proto).check()
    proto.raw_data = b""
    Tensor(proto).check()
    proto.raw_data = b"1234"
    assert "takes 0 bytes" in refused(proto)


def test_part_of_a_tensor_is_not_counted() -> None:
    proto = proto_of("float32", [3])
    proto.segment.begin = 1
    Tensor(proto).check()


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        (99, [3], "unknown element type 99"),
        (0, [3], "unknown element type 0"),
        (1, [2, -1], "the shape [2, -1] has a negative size"),
        (1, [1 << 32, 1 << 31], "more elements than 64 bits count"),
        (1, [0, 1 << 32, 1 << 31], "more elements than 64 bits count"),
    ],
)
def test_types_and_shapes_that_are_none(kind: int, shape: list[int], words: str) -> None:
    assert words in refused(TensorProto(name="w", data_type=kind, dims=shape))


@pytest.mark.parametrize("other", ["raw_data", "int64_data", "external", "region"])
def test_data_is_in_one_place(other: str) -> None:
    proto, region = proto_of("float32", [1]), None
    proto.float_data.append(1.0)
    match other:
        case "raw_data":
            proto.raw_data = b"1234"
        case "int64_data":
            proto.int64_data.append(1)
        case "external":
            proto.data_location = TensorProto.EXTERNAL
        case "region":
            region = Region(Path("m.onnx"), 0, memoryview(b"1234"), (0, 0))
    assert "its data is in more than one place: float_data" in refused(proto, region)


# ---- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in dtypes.NUMBERS if kind not in ("string", "undefined")])
def test_numbers_of_every_type_there_and_back(kind: str) -> None:
    dtype = dtypes.NUMBERS[kind]
    numbers = np.array([[0, 1, 1]]).astype(dtypes.to_numpy(dtype))
    tensor = Tensor.of(numbers, dtype)
    tensor.check()
    assert (tensor.dtype, tensor.shape, tensor.size) == (dtype, (1, 3), 3)
    proto = tensor.to_proto("n")
    assert (proto.name, proto.data_type, list(proto.dims)) == ("n", dtype, [1, 3])
    assert numpy_helper.to_array(proto).tobytes() == numbers.tobytes()
    raw = tensor.raw()
    assert raw is not None
    assert bytes(raw) == proto.raw_data
    assert len(raw) == tensor.nbytes
    assert Tensor(proto).numpy().tobytes() == numbers.tobytes()


def test_strings() -> None:
    tensor = Tensor.of(np.array(["ä", "b"], object))
    assert (tensor.dtype, tensor.raw()) == (dtypes.STRING, None)
    again = Tensor(tensor.to_proto("s"))
    assert again.numpy().tolist() == ["ä", "b"]
    assert again.nbytes == 3
    odd = TensorProto(name="w", data_type=dtypes.STRING, dims=[2], string_data=[b"a", b"\xff"])
    assert Tensor(odd).numpy().tolist() == ["a", b"\xff"]


def test_numbers_are_copied_and_read_only() -> None:
    given = np.array([1.0, 2.0], np.float32)
    tensor = Tensor.of(given)
    given[0] = 9.0
    assert tensor.numpy().tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        tensor.numpy()[0] = 3.0
    with pytest.raises(ValueError, match="read-only"):
        Tensor(tensor.to_proto("n")).numpy()[0] = 3.0


@pytest.mark.parametrize(("data", "item"), [(2.5, 2.5), ([7], 7.0), ([[True]], 1.0)])
def test_one_element(data: Any, item: float) -> None:
    assert Tensor.of(data, dtypes.FLOAT).item() == item
    with pytest.raises(ValueError, match="size 1"):
        Tensor.of([1.0, 2.0]).item()


def test_what_is_computed_when_it_is_asked_for() -> None:
    calls = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.array([1.0, 2.0], np.float32)

    tensor = Tensor.deferred(dtypes.FLOAT, (2,), make)
    assert (tensor.is_deferred, tensor.size, tensor.nbytes, calls) == (True, 2, 8, [])
    assert tensor.numpy().tolist() == [1.0, 2.0]
    assert tensor.numpy().tolist() == [1.0, 2.0]
    assert (tensor.is_deferred, calls) == (False, [1])


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        (dtypes.FLOAT, (3,), r"float32\[3\] was promised, float32\[2\] made"),
        (dtypes.FLOAT16, (2,), r"float16\[2\] was promised, float32\[2\] made"),
    ],
)
def test_a_promise_that_is_not_kept(dtype: int, shape: tuple[int, ...], message: str) -> None:
    tensor = Tensor.deferred(dtype, shape, lambda: np.array([1.0, 2.0], np.float32))
    with pytest.raises(ValueError, match=message):
        tensor.numpy()


def test_what_cannot_be_read_is_an_error_with_a_place() -> None:
    proto = proto_of("float32", [3])
    proto.raw_data = b"123"
    with pytest.raises(ModelError, match="its data cannot be read") as caught:
        Tensor(proto).numpy()
    assert (caught.value.code, caught.value.where) == ("GO034", "tensor 'w'")


# ---- what is written ----------------------------------------------------------------------------------------------


def test_a_proto_is_written_as_it_is_under_its_own_name() -> None:
    proto = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    proto.doc_string = "kept"
    tensor = Tensor(proto)
    assert tensor.to_proto("w") is proto
    renamed = tensor.to_proto("other")
    assert (renamed.name, proto.name) == ("other", "w")
    renamed.name = "w"
    assert renamed == proto


def test_data_that_stays_in_a_file_is_put_into_the_proto() -> None:
    proto = proto_of("float32", [1])
    tensor = Tensor(proto, region=Region(Path("m.onnx"), 0, memoryview(b"\0\0\x80?"), (0, 0)))
    written = tensor.to_proto("w")
    assert numpy_helper.to_array(written).tolist() == [1.0]
    assert not proto.raw_data
