"""Weights are copied by the kernel: not through memory, holes as holes, whatever file they lie in."""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphopt
from graphopt.errors import ModelError
from graphopt.ir import Model, Tensor, load, save, wire
from graphopt.ir.copying import Sources, copy_range
from graphopt.report import schema, terminal

GB = 1 << 30


def external(name: str, location: str, offset: int, shape: tuple[int, ...]) -> TensorProto:
    proto = TensorProto(name=name, data_type=1, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", 4 * int(np.prod(shape)))):
        proto.external_data.add(key=key, value=str(value))
    return proto


def model_with(*weights: TensorProto) -> onnx.ModelProto:
    """A model that gives its weights back."""
    nodes = [helper.make_node("Identity", [one.name], [f"{one.name}_out"]) for one in weights]
    outputs = [helper.make_tensor_value_info(f"{one.name}_out", 1, list(one.dims)) for one in weights]
    graph = helper.make_graph(nodes, "main", [], outputs, weights)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def sparse(folder: Path, size: int) -> Path:
    """A model with `size` bytes of weights in a file that is a hole but for its first and last numbers."""
    rows = size // 4096
    onnx.save(model_with(external("w", "weights.bin", 0, (rows, 1024))), folder / "model.onnx")
    with (folder / "weights.bin").open("wb") as file:
        file.write(np.float32([1, 2]).tobytes())
        file.truncate(size - 8)
        file.seek(size - 8)
        file.write(np.float32([3, 4]).tobytes())
    return folder / "model.onnx"


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def outputs(path: Path) -> list[np.ndarray]:  # type: ignore[type-arg]
    ort = pytest.importorskip("onnxruntime")
    return list(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {}))


def test_a_hole_stays_one_and_memory_small(tmp_path: Path) -> None:
    path = sparse(tmp_path, 8 * GB)
    (tmp_path / "other").mkdir()
    tracemalloc.start()
    try:
        save(load(path), tmp_path / "other" / "out.onnx")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    copy = tmp_path / "other" / "out.onnx.data"
    assert copy.stat().st_size >= 8 * GB
    assert on_disk(copy) < 1 << 20
    numbers = load(tmp_path / "other" / "out.onnx").graph.names["w"].tensor.numpy().reshape(-1)
    assert [*numbers[:3], *numbers[-3:]] == [1, 2, 0, 0, 3, 4]


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_fusing_a_model_of_8_gb(tmp_path: Path, where: str) -> None:
    """In a process of its own: little memory that no file backs, next to nothing on the disk, the weights untouched."""
    path = sparse(tmp_path, 8 * GB)
    (tmp_path / "elsewhere").mkdir()
    out = (tmp_path if where == "beside" else tmp_path / "elsewhere") / "out.onnx"
    before = (tmp_path / "weights.bin").stat()
    code = """
import sys, graphopt
graphopt.fuse(sys.argv[1], sys.argv[2], verify="off")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")][0])
"""
    done = subprocess.run([sys.executable, "-c", code, path, out], stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) * 1024 < 100e6
    after = (tmp_path / "weights.bin").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_blocks) == (before.st_ino, before.st_mtime_ns, before.st_blocks)
    assert sum(on_disk(file) for file in out.parent.glob("out.onnx*")) < 1e6
    numbers = load(out).graph.names["w"].tensor.numpy()
    assert (numbers[0, 1], numbers[-1, -1]) == (2, 4)


def regions(folder: Path, *sizes: int) -> Model:
    """A model whose weights lie in its own file, which has holes for them."""
    model = Model.empty(20)
    model.path = folder / "model.onnx"
    with model.path.open("wb") as file:
        file.truncate(sum(sizes))
    view = np.memmap(model.path, np.uint8, "r").data
    for index, size in enumerate(sizes):
        at = sum(sizes[:index])
        region = wire.Region(model.path, at, view[at : at + size], wire.stamp(model.path.stat()))
        tensor = Tensor(TensorProto(name=f"w{index}", data_type=TensorProto.UINT8, dims=[size]), region=region)
        value = model.graph.add_constant(tensor, f"w{index}")
        model.graph.add_slot(model.graph.output, model.graph.add_op("Identity", [value]).output)
    return model


def test_more_than_2_gb_without_external_data_is_split(tmp_path: Path) -> None:
    model = regions(tmp_path, 3 * GB // 2, GB)
    out = tmp_path / "out.onnx"
    assert [file.name for file in save(model, out)] == ["out.onnx.data", "out.onnx"]
    assert out.stat().st_size < 1000
    assert (tmp_path / "out.onnx.data").stat().st_size >= 5 * GB // 2
    assert on_disk(tmp_path / "out.onnx.data") < 1 << 20
    with pytest.raises(ModelError, match="more than 2 GB") as caught:
        save(model, tmp_path / "one.onnx", external="never")
    assert (caught.value.code, caught.value.hint) == ("GO033", "allow external data")
    assert not (tmp_path / "one.onnx").exists()


def test_less_stays_in_one_file_and_is_not_read(tmp_path: Path) -> None:
    model = regions(tmp_path, GB, GB // 2)
    assert [file.name for file in save(model, tmp_path / "out.onnx")] == ["out.onnx"]
    assert (tmp_path / "out.onnx").stat().st_size > 3 * GB // 2
    assert on_disk(tmp_path / "out.onnx") < 1 << 20
    assert load(tmp_path / "out.onnx").graph.names["w1"].tensor.nbytes == GB // 2


@pytest.mark.parametrize("external", ["auto", "never", "always"])
def test_what_is_no_weight_may_be_too_much(tmp_path: Path, external: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant node that holds more than a file can."""
    monkeypatch.setattr(importlib.import_module("graphopt.ir.save"), "_PROTO_END", 4000)
    proto = model_with(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    proto.graph.node.add(op_type="Constant", output=["c"]).attribute.append(
        helper.make_attribute("value", numpy_helper.from_array(np.ones(2000, np.float32)))
    )
    with pytest.raises(ModelError, match="more than 2 GB") as caught:
        save(load(proto), tmp_path / "out.onnx", external=external)  # type: ignore[arg-type]
    assert caught.value.code == "GO033"
    assert not list(tmp_path.iterdir())


def safetensors(folder: Path, arrays: dict[str, np.ndarray]) -> Path:  # type: ignore[type-arg]
    """A .safetensors file, and a model that points into it."""
    entries, data = {}, b""
    for name, array in arrays.items():
        places = [len(data), len(data) + array.nbytes]
        entries[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": places}
        data += array.tobytes()
    head = json.dumps(entries).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    begins = {name: 8 + len(head) + entry["data_offsets"][0] for name, entry in entries.items()}
    weights = [external(name, "model.safetensors", begins[name], array.shape) for name, array in arrays.items()]
    onnx.save(model_with(*weights), folder / "model.onnx")
    return folder / "model.onnx"


def test_weights_in_a_safetensors_file(tmp_path: Path) -> None:
    """Beside it they are pointed to, elsewhere they are copied; onnxruntime reads both."""
    arrays = {"a": np.arange(3000, dtype=np.float32), "b": np.ones((50, 50), np.float32)}
    path = safetensors(tmp_path, arrays)
    before = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "other").mkdir()
    beside, elsewhere = tmp_path / "out.onnx", tmp_path / "other" / "out.onnx"
    assert [file.name for file in save(load(path), beside)] == ["out.onnx"]
    assert [file.name for file in save(load(path), elsewhere)] == ["out.onnx.data", "out.onnx"]
    for out in (beside, elsewhere):
        for found, array in zip(outputs(out), arrays.values(), strict=True):
            np.testing.assert_array_equal(found, array)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_weights_that_vanished_meanwhile(tmp_path: Path) -> None:
    """Another program removed them after the model was read: nothing is written that points nowhere."""
    path = sparse(tmp_path, 1 << 20)
    model = load(path)
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "other").mkdir()
    for out in (tmp_path / "out.onnx", tmp_path / "other" / "out.onnx"):
        with pytest.raises(ModelError, match="missing") as caught:
            save(model, out)
        assert caught.value.code == "GO031"
        assert not [*out.parent.glob("out*"), *out.parent.glob(".graphopt*")]


# ---- one range -----------------------------------------------------------------------------------------------------


def refusing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    for name in names:
        monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize("way", ["kernel", "sendfile", "memory"])
@pytest.mark.parametrize(("offset", "length"), [(0, 300_000), (1, 299_999), (4097, 8192), (70_000, 4096), (299_999, 1)])
def test_a_range_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, offset: int, length: int) -> None:
    """Data, a hole of 128 KiB, data; between file systems; and where the kernel has no such call."""
    if way == "sendfile":
        refusing(monkeypatch, "copy_file_range")
    if way == "memory":
        monkeypatch.delattr(os, "copy_file_range")
    data = np.random.default_rng(0).bytes(65_536) + bytes(131_072) + np.random.default_rng(1).bytes(103_392)
    (tmp_path / "a").write_bytes(b"")
    with (tmp_path / "a").open("r+b") as source, (tmp_path / "b").open("w+b") as target:
        source.write(data[:65_536])
        source.seek(196_608)
        source.write(data[196_608:])
        source.flush()
        os.write(target.fileno(), b"before")
        copy_range(source.fileno(), offset, length, target.fileno())
        os.write(target.fileno(), b"after")
    assert (tmp_path / "b").read_bytes() == b"before" + data[offset : offset + length] + b"after"


def test_a_source_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"short")
    with Sources() as sources, pytest.raises(ModelError, match="became shorter") as caught:
        sources.copy(wire.Stored(tmp_path / "a", 0, 6), -1)
    assert caught.value.code == "GO031"


def test_weights_in_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    """They are copied one after the other; onnxruntime's process, which maps them all, asks for a higher limit."""
    count, least = 150, 100
    for index in range(count):
        (tmp_path / f"w{index}").write_bytes(np.full(2000, index, np.float32).tobytes())
    onnx.save(model_with(*(external(f"w{i}", f"w{i}", 0, (2000,)) for i in range(count))), tmp_path / "model.onnx")
    (tmp_path / "other").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    try:
        result = graphopt.fuse(tmp_path / "model.onnx", tmp_path / "other" / "out.onnx", verify="full")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.verdict == "equal", result.error
    assert [array[0] for array in outputs(tmp_path / "other" / "out.onnx")] == list(range(count))


def test_the_report_says_where_weights_stay(tmp_path: Path) -> None:
    """Who moves the model has to know what belongs to it."""
    path = sparse(tmp_path, 1 << 20)
    (tmp_path / "other").mkdir()
    beside = graphopt.fuse(path, tmp_path / "out.onnx", verify="off")
    elsewhere = graphopt.fuse(path, tmp_path / "other" / "out.onnx", verify="off")
    nowhere = graphopt.fuse(path, verify="off")
    said = [[" ".join(line) for line in terminal.written(result.saved)] for result in (beside, elsewhere, nowhere)]
    assert said == [
        [f"written {tmp_path}/out.onnx", "shared weights stay in weights.bin, which the input uses, too"],
        [f"written {tmp_path}/other/out.onnx, {tmp_path}/other/out.onnx.data"],
        ["written nothing"],
    ]
    files = [schema.fusion(result)["files"] for result in (beside, elsewhere, nowhere)]
    assert [len(found["written"]) for found in files] == [1, 2, 0]
    assert [found["shared"] for found in files] == [["weights.bin"], [], []]
