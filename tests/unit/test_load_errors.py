"""A bad model gives one clear error, in a file and in memory, with its place; odd but valid ones pass through.

Files that are no models at all are in `corpora.bad_files`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from graphopt.errors import ModelError
from graphopt.ir import load, model_to_proto, validate

HEAD = '<ir_version: 10, opset_import: ["" : 20]> '


def text(body: str, head: str = HEAD) -> onnx.ModelProto:
    return onnx.parser.parse_model(head + body)


def good() -> onnx.ModelProto:
    return text("g (float[N] x) => (float[N] y) <float[2] w = {1, 2}> { a = Add(x, w) y = Relu(a) }")


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = good()
    change(proto)
    return proto


def tensor(**fields: object) -> onnx.ModelProto:
    """The good model with another `w`."""
    proto = good()
    proto.graph.initializer[0].CopyFrom(TensorProto(name="w", **fields))  # type: ignore[arg-type]
    return proto


def external(**entries: str) -> onnx.ModelProto:
    proto = tensor(data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        proto.graph.initializer[0].external_data.add(key=key, value=value)
    return proto


BRANCHES = """g (bool c, float[N] x) => (float[N] y) {
    y = If(c) <then_branch = a () => (float[N] t) { t = Neg(%s) }, else_branch = b () => (float[N] e) { e = Neg(x) }>
    z = Relu(y)
}"""
BAD_PROTOS: dict[str, tuple[onnx.ModelProto, str, str, str]] = {
    "nothing": (onnx.ModelProto(), "GO023", "no graph in it", ""),
    "no opsets, no IR": (onnx.ModelProto(graph=good().graph), "GO023", "no graph in it", ""),
    "standard domain": (
        text("g (float[N] x) => (float[N] y) { y = Relu(x) }", '<ir_version: 10, opset_import: ["here" : 1]> '),
        "GO043",
        "the domain 'ai.onnx' has no opset import",
        "node 'y' (Relu)",
    ),
    "custom domain": (
        text("g (float[N] x) => (float[N] y) { y = my.domain.Relu(x) }"),
        "GO043",
        "the domain 'my.domain' has no opset import",
        "node 'y' (Relu)",
    ),
    "domain of the IR": (
        text("g (float[N] x) => (float[N] y) { y = ir.Input(x) }", '<ir_version: 10, opset_import: ["ir" : 1]> '),
        "GO043",
        "the domain 'ir' is graphopt's own",
        "node 'y' (Input)",
    ),
    "domain in a subgraph": (
        text(BRANCHES.replace("Neg(%s)", "far.Neg(x)")),
        "GO043",
        "the domain 'far' has no opset import",
        "node 't' (Neg)",
    ),
    "newer opset": (
        changed(lambda p: setattr(p.opset_import[0], "version", 1000)),
        "GO041",
        "opset 1000 is newer than any this tool knows",
        "",
    ),
    "opset 0": (changed(lambda p: setattr(p.opset_import[0], "version", 0)), "GO040", "has no opset 0", ""),
    "opset 0 after another": (
        changed(lambda p: p.opset_import.add(domain="ai.onnx", version=0)),
        "GO040",
        "has no opset 0",
        "",
    ),
    "dangling input": (
        changed(lambda p: p.graph.node[0].input.__setitem__(1, "lost")),
        "GO044",
        "nothing produces 'lost'",
        "node 'a' (Add)",
    ),
    "dangling in a subgraph": (text(BRANCHES % "lost"), "GO044", "nothing produces 'lost'", "node 't' (Neg)"),
    "dangling output": (
        changed(lambda p: setattr(p.graph.output[0], "name", "lost")),
        "GO044",
        "nothing produces 'lost', which is a graph output",
        "the graph's outputs",
    ),
    "inner value from outside": (
        text(BRANCHES.replace("Relu(y)", "Relu(t)") % "x"),
        "GO044",
        "nothing produces 't'",
        "node 'z' (Relu)",
    ),
    "cycle of two": (
        changed(lambda p: p.graph.node[0].input.__setitem__(0, "y")),
        "GO045",
        "the graph has a cycle",
        "node 'a' (Add)",
    ),
    "cycle of one": (
        changed(lambda p: p.graph.node[0].input.__setitem__(0, "a")),
        "GO045",
        "the graph has a cycle",
        "node 'a' (Add)",
    ),
    "cycle through a subgraph": (text(BRANCHES % "z"), "GO045", "the graph has a cycle", ""),
    "two outputs of one name": (
        changed(lambda p: p.graph.node[1].output.__setitem__(0, "a")),
        "GO042",
        "two values called 'a'",
        "node 'a' (Relu)",
    ),
    "an output called as an input": (
        changed(lambda p: p.graph.node[0].output.__setitem__(0, "x")),
        "GO042",
        "two values called 'x'",
        "node 'x' (Add)",
    ),
    "two inputs of one name": (
        changed(lambda p: p.graph.input.append(p.graph.input[0])),
        "GO042",
        "two values called 'x'",
        "graph input",
    ),
    "two initializers of one name": (
        changed(lambda p: p.graph.initializer.append(p.graph.initializer[0])),
        "GO042",
        "two initializers called 'w'",
        "tensor 'w'",
    ),
    "two functions of one name": (
        changed(lambda p: p.functions.extend([onnx.FunctionProto(name="f", domain="d")] * 2)),
        "GO042",
        "two functions called 'f'",
        "",
    ),
    "negative size": (
        tensor(data_type=1, dims=[-2], raw_data=bytes(8)),
        "GO034",
        "the shape [-2] has a negative size",
        "tensor 'w'",
    ),
    "overflowing size": (
        tensor(data_type=1, dims=[2**40, 2**40], raw_data=bytes(8)),
        "GO034",
        "has more elements than 64 bits count",
        "tensor 'w'",
    ),
    "short data": (
        tensor(data_type=1, dims=[2], raw_data=bytes(7)),
        "GO034",
        "float32[2] takes 8 bytes, its data has 7",
        "tensor 'w'",
    ),
    "short typed data": (
        tensor(data_type=1, dims=[2], float_data=[1.0]),
        "GO034",
        "float32[2] takes 2 entries, its data has 1",
        "tensor 'w'",
    ),
    "no data": (tensor(data_type=1, dims=[2]), "GO034", "takes 2 entries, its data has 0", "tensor 'w'"),
    "unknown type": (tensor(data_type=99, dims=[2]), "GO034", "unknown element type 99", "tensor 'w'"),
    "short data of a Constant": (
        changed(
            lambda p: p.graph.node.append(
                helper.make_node("Constant", [], ["k"], value=TensorProto(data_type=7, dims=[3], raw_data=bytes(8)))
            )
        ),
        "GO034",
        "int64[3] takes 24 bytes, its data has 8",
        "node 'k' (Constant)",
    ),
    "external data missing": (external(location="w.bin"), "GO031", "w.bin' is missing", "tensor 'w'"),
    "external data too short": (external(location="short.bin"), "GO031", "is too short: 8 bytes at 0", "tensor 'w'"),
    "external data behind the end": (
        external(location="long.bin", offset="96"),
        "GO031",
        "is too short: 8 bytes at 96 wanted, 100 there",
        "tensor 'w'",
    ),
    "external data of wrong length": (
        external(location="long.bin", length="12"),
        "GO034",
        "take 8 bytes, its external data has 12",
        "tensor 'w'",
    ),
    "external data before the start": (external(location="long.bin", offset="-8"), "GO037", "not a num", "tensor 'w'"),
    "external data at no number": (external(location="long.bin", offset="a"), "GO037", "not a number", "tensor 'w'"),
    "external data in a folder": (external(location="folder"), "GO031", "is not a file", "tensor 'w'"),
    "external data nowhere": (external(), "GO037", "has no location", "tensor 'w'"),
    "external data at an absolute path": (external(location="/etc/hostname"), "GO030", "outside", "tensor 'w'"),
    "external data above": (external(location="../outside.bin"), "GO030", "outside", "tensor 'w'"),
    "external data through a link": (external(location="link.bin"), "GO038", "link", "tensor 'w'"),
    "external data through a linked folder": (external(location="up/outside.bin"), "GO038", "link", "tensor 'w'"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for models with data of several lengths in it, and some outside."""
    folder = tmp_path / "models"
    (folder / "folder").mkdir(parents=True)
    (folder / "short.bin").write_bytes(bytes(7))
    (folder / "long.bin").write_bytes(bytes(100))
    (tmp_path / "outside.bin").write_bytes(bytes(100))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "up").symlink_to(tmp_path)
    return folder


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.mark.parametrize("case", BAD_PROTOS)
def test_a_bad_model(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto, code, message, place = BAD_PROTOS[case]
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString() or b"\0")
    if case == "nothing":
        path.write_bytes(onnx.ModelProto(producer_name="someone").SerializeToString())
    before = files(folder)
    with pytest.raises(ModelError) as caught:
        load(path)
    error = caught.value
    assert (error.code, error.exit_code) == (code, 3)
    assert message in error.message
    assert error.where == (f"{path}: {place}" if place else error.where)
    assert error.where.startswith(str(path))
    assert files(folder) == before
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError) as in_memory:
        load(proto)
    assert (in_memory.value.code, in_memory.value.where) == (code, error.where.replace(str(path), "model"))


def large() -> onnx.ModelProto:
    return tensor(data_type=1, dims=[6_000_000], raw_data=bytes(24_000_000))


def test_a_file_that_may_not_be_read(tmp_path: Path, nobody: Callable[[], AbstractContextManager[None]]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(good().SerializeToString())
    path.chmod(0)
    with nobody(), pytest.raises(ModelError, match="Permission denied") as caught:
        load(path)
    assert (caught.value.code, caught.value.where) == ("GO022", str(path))


ODD: dict[str, onnx.ModelProto] = {
    "no nodes": text("g (float[N] x) => (float[N] x) { }"),
    "nothing but a name": onnx.ModelProto(ir_version=10, opset_import=good().opset_import, graph={"name": "g"}),
    "nodes of one name": text("g (float[N] x) => (float[N] y) { [same] a = Relu(x) [same] y = Relu(a) }"),
    "ops nobody knows": text(
        "g (float[N] x) => (float[N] y, float[N] z) { y, z = a.Thing<depth = 2>(x, , x) }",
        '<ir_version: 10, opset_import: ["" : 20, "a" : 9]> ',
    ),
    "a contrib op without import": text("g (float[N] x) => (float[N] y) { y = com.microsoft.Gelu(x) }"),
    "an unknown standard op": text("g (float[N] x) => (float[N] y) { y = Frobnicate(x) }"),
    "sizes that exporters do not know": changed(
        lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", -1)
    ),
    "one output twice": text("g (float[N] x) => (float[N] y, float[N] y) { y = Relu(x) }"),
    "an empty tensor": tensor(data_type=1, dims=[0, 3]),
    "packed elements": tensor(data_type=TensorProto.INT4, dims=[3], raw_data=b"\x21\x03"),
    "a name of an outer value": text(BRANCHES.replace("t = Neg", "z = Neg(x) t = Neg") % "z"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_model_passes_through(case: str, tmp_path: Path) -> None:
    proto = ODD[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    validate(model)
    assert model_to_proto(model) == proto


@pytest.mark.parametrize("versions", [(0, 17), (11, 17), (20, 17)])
def test_of_two_opsets_of_one_domain_the_last_counts(versions: tuple[int, int]) -> None:
    proto = good()
    del proto.opset_import[:]
    for domain, version in zip(("ai.onnx", ""), versions, strict=True):
        proto.opset_import.add(domain=domain, version=version)
    assert load(proto).opset == 17


def test_files_of_all_sizes_are_read_alike(tmp_path: Path) -> None:
    proto = large()
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert model_to_proto(load(path)) == proto


def test_external_data_that_vanishes_later_is_an_error_too(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(external(location="long.bin").SerializeToString())
    model = load(path)
    (folder / "long.bin").unlink()
    with pytest.raises(ModelError) as caught:
        model.graph.names["w"].tensor.numpy()
    assert caught.value.code == "GO031"
