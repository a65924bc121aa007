"""Constants that are computed when they are read: in memory one at a time, however many a model has."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.ir import Model, Tensor, dtypes, load, model_from_proto, model_to_proto, save
from graphopt.ir.tensor import Array
from graphopt.quantize.rounding import weights
from graphopt.quantize.rounding.shelf import Shelf
from graphopt.quantize.rounding.weights import integers
from graphopt.verify.weights import Weights

INT4 = np.arange(-8, 7, dtype=np.int8).astype(ml_dtypes.int4).reshape(3, 5)
ARRAYS: dict[str, Array] = {
    "float32": np.linspace(-1, 1, 30_000, dtype=np.float32).reshape(100, 300),
    "int8": np.arange(-100, 100, dtype=np.int8).reshape(2, 100),
    "int4": INT4,
    "uint4": np.arange(16, dtype=np.uint8).astype(ml_dtypes.uint4),
    "bfloat16": np.ones((), ml_dtypes.bfloat16),
}


def deferred(array: Array, calls: list[int] | None = None) -> Tensor:
    def make() -> Array:
        if calls is not None:
            calls.append(1)
        return array.copy()

    return Tensor.deferred(dtypes.from_numpy(array.dtype), array.shape, make)


def with_constant(tensor: Tensor) -> Model:
    """A model that holds `tensor`."""
    text = '<ir_version: 10, opset_import: ["" : 21]> main (float[1] x) => (float[1] y) { y = Identity(x) }'
    model = model_from_proto(onnx.parser.parse_model(text))
    model.graph.add_constant(tensor, "made")
    return model


@pytest.mark.parametrize("name", ARRAYS)
def test_it_is_the_tensor_that_its_numbers_make(name: str, tmp_path: Path) -> None:
    array, made = ARRAYS[name], deferred(ARRAYS[name])
    eager = Tensor.of(array)
    assert (made.dtype, made.shape, made.nbytes, made.size) == (eager.dtype, eager.shape, eager.nbytes, eager.size)
    assert bytes(made.raw() or b"") == bytes(eager.raw() or b"?")
    assert made.to_proto("t") == eager.to_proto("t")
    assert not made.numpy().flags.writeable
    assert made.place() is None
    made.check()


@pytest.mark.parametrize("external", ["never", "always"])
@pytest.mark.parametrize("name", ARRAYS)
def test_what_was_saved_is_read_back(name: str, external: str, tmp_path: Path) -> None:
    calls: list[int] = []
    model = with_constant(deferred(ARRAYS[name], calls))
    assert not calls
    save(model, tmp_path / "m.onnx", external=external)  # type: ignore[arg-type]
    assert len(calls) == 1
    read = onnx.load(tmp_path / "m.onnx")
    assert np.array_equal(numpy_helper.to_array(read.graph.initializer[0]), ARRAYS[name])
    tensor = load(tmp_path / "m.onnx").graph.names["made"].tensor
    assert tensor is not None
    assert np.array_equal(tensor.numpy(), ARRAYS[name])


def test_only_small_numbers_are_kept() -> None:
    calls: list[int] = []
    small, large = deferred(INT4, calls), deferred(ARRAYS["float32"], calls)
    for _ in range(3):
        small.numpy()
        large.numpy()
    assert len(calls) == 1 + 3


def test_a_maker_that_breaks_its_promise_is_found() -> None:
    with pytest.raises(ValueError, match=r"int8\[2, 3\] was promised, int8\[6\] made"):
        Tensor.deferred(dtypes.NUMBERS["int8"], (2, 3), lambda: np.zeros(6, np.int8)).numpy()
    with pytest.raises(ValueError, match=r"int8\[6\] was promised, float64\[6\] made"):
        Tensor.deferred(dtypes.NUMBERS["int8"], (6,), lambda: np.zeros(6)).numpy()


def test_the_runtime_reads_it_from_a_file() -> None:
    array = np.arange(10_000, dtype=np.uint8).astype(ml_dtypes.uint4)
    with Weights() as files:
        declared, place = files.declare("w", deferred(array))
        assert declared.data_location == TensorProto.EXTERNAL
        assert place is not None
        data = place.path.read_bytes()[place.offset : place.offset + place.length]
    assert data == numpy_helper.from_array(array).raw_data


def external_model(folder: Path, count: int, shape: tuple[int, int]) -> Path:
    """A model whose `count` weights lie in a file."""
    names = [f"w{i}" for i in range(count)]
    size = 4 * shape[0] * shape[1]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        "main",
        [],
        [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, shape) for name in names],
    )
    rng = np.random.default_rng(0)
    with (folder / "weights.bin").open("wb") as file:
        for index, name in enumerate(names):
            file.write(rng.normal(size=shape).astype(np.float32).tobytes())
            proto = graph.initializer.add(name=name, data_type=1, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", "weights.bin"), ("offset", index * size), ("length", size)):
                proto.external_data.add(key=key, value=str(value))
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]), folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("axis", [0, 1])
def test_saving_holds_one_tensor_at_a_time(axis: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_ELEMENTS", 1 << 16)
    shape, count = (1024, 512), 16
    model = load(external_model(tmp_path, count, shape))
    for value in list(model.graph.names.values()):
        if value.tensor is not None:
            found = integers(value.tensor, axis=axis, block=64)
            for part in (found.values, found.scale):
                model.graph.add_constant(part, f"{value.name}_{part.dtype}")
    out = tmp_path / "out"
    out.mkdir()
    tracemalloc.start()
    try:
        save(model, out / "m.onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Twice a tensor in float32, where all of them as bytes are four times that.
    assert peak < 2 * 4 * 1024 * 512
    assert (out / "m.onnx.data").stat().st_size > count * 5 * 1024 * 512


def test_a_shelf_gives_back_what_was_put_there() -> None:
    shelf, rng = Shelf(), np.random.default_rng(0)
    arrays: list[Array] = [rng.normal(size=size) for size in ((100, 100), (3,), (50_000,))]
    arrays.append(rng.integers(0, 15, (300, 300)).astype(ml_dtypes.uint4))
    readers = [shelf.put(array) for array in arrays]
    for array, read in zip(arrays[::-1], readers[::-1], strict=True):
        assert read().dtype == array.dtype
        assert np.array_equal(read(), array)


def test_what_takes_long_is_computed_once() -> None:
    calls: list[int] = []

    def compute() -> tuple[Array, ...]:
        calls.append(1)
        return np.ones(100_000), np.zeros(3)

    read = Shelf().once(compute)
    assert not calls
    assert [read(index).sum() for index in (0, 1, 0, 1)] == [100_000, 0, 100_000, 0]
    assert len(calls) == 1


def test_the_model_is_the_same_whether_it_is_streamed_or_not(tmp_path: Path) -> None:
    array = ARRAYS["float32"]
    model = with_constant(Tensor.deferred(dtypes.FLOAT, array.shape, partial(np.copy, array)))
    save(model, tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == model_to_proto(model)
