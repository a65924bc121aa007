"""What the gate lets in, and how files are opened behind it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, SparseTensorProto, TensorProto, helper, parser

from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.files import open_regular
from graphopt.ir import Tensor, gate, load, model_to_proto, save, validate, wire
from graphopt.ir.admission import MOST_MEMORY, Admission
from graphopt.runtime import External
from graphopt.runtime.tensors import initializer

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
GOOD = f"{HEAD} g (float[N] x) => (float[N] y) <float[2] w = {{1, 2}}> {{ a = Add(x, w) y = Relu(a) }}"


def good() -> onnx.ModelProto:
    return parser.parse_model(GOOD)


def external(*entries: tuple[str, str]) -> onnx.ModelProto:
    model = good()
    weight = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in entries:
        weight.external_data.add(key=key, value=value)
    model.graph.initializer[0].CopyFrom(weight)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "w.bin", folder / "sub" / "w.bin"):
        np.arange(8, dtype=np.float32).tofile(path)
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    return folder


def loaded(folder: Path, model: onnx.ModelProto) -> Tensor:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    again = load(path)
    validate(again)
    assert model_to_proto(again) == model
    tensor = again.graph.names["w"].tensor
    assert tensor is not None
    return tensor


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "sub/w.bin", "sub//w.bin", "./sub/./w.bin"])
def test_external_data_in_the_folder_or_below_is_read(folder: Path, location: str) -> None:
    tensor = loaded(folder, external(("location", location), ("offset", "4"), ("length", "8")))
    np.testing.assert_array_equal(tensor.numpy(), [1, 2])
    assert tensor.location() == ((folder / location).resolve(), 4, 8)


@pytest.mark.parametrize(
    "entry", [("length", "0"), ("length", "08"), ("offset", "00"), ("checksum", "?"), ("basepath", "/")]
)
def test_what_other_readers_accept_is_accepted(
    folder: Path, entry: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    np.testing.assert_array_equal(loaded(folder, external(("location", "w.bin"), entry)).numpy(), [0, 1])
    assert caplog.text == ""


def test_entries_nobody_knows_are_kept_and_told_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded(folder, external(("location", "w.bin"), ("colour", "blue")))
    assert "tensor 'w': external data says 'colour'" in caplog.text


def test_the_folder_of_a_model_may_be_reached_through_a_link(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(external(("location", "w.bin")).SerializeToString())
    (folder.parent / "link").symlink_to("models")
    model = load(folder.parent / "link" / "model.onnx")
    np.testing.assert_array_equal(model.graph.names["w"].tensor.numpy(), [0, 1])
    assert model.data_files == {"w.bin": folder / "w.bin"}


SWAPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: None, "GO031"),
    "a link": (lambda path: path.symlink_to("../../secret.bin"), "GO038"),
    "a hard link": (lambda path: os.link(path.parents[2] / "secret.bin", path), "GO038"),
    "a pipe": (os.mkfifo, "GO031"),
    "a folder": (lambda path: path.mkdir(), "GO031"),
    "a shorter file": (lambda path: path.write_bytes(bytes(7)), "GO031"),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_what_is_put_in_a_file_s_place_after_the_look_is_looked_at_again(folder: Path, swap: str) -> None:
    tensor = loaded(folder, external(("location", "sub/w.bin")))
    path = folder / "sub" / "w.bin"
    path.unlink()
    make, code = SWAPS[swap]
    make(path)
    start = time.monotonic()
    for read in (tensor.numpy, tensor.raw, tensor.place):
        with pytest.raises(ModelError) as caught:
            read()
        assert caught.value.code == code
    assert time.monotonic() - start < 5


def test_a_folder_that_becomes_a_link_is_not_followed(folder: Path) -> None:
    tensor = loaded(folder, external(("location", "sub/w.bin")))
    (folder / "sub").rename(folder.parent / "moved")
    (folder / "sub").symlink_to("../moved")
    with pytest.raises(ModelError) as caught:
        tensor.numpy()
    assert caught.value.code == "GO038"


def test_the_process_that_runs_models_follows_no_links_either(folder: Path) -> None:
    source = External(folder / "w.bin", 0, 8, np.dtype(np.float32), (2,))
    value = initializer(source)
    np.testing.assert_array_equal(value.numpy(), [0, 1])
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("../secret.bin")
    with pytest.raises(OSError, match="symbolic links") as caught:
        initializer(source)
    assert caught.value.errno == errno.ELOOP


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for links in (False, True):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / "pipe", links=links)


def test_no_descriptor_is_left_open(folder: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    tensor = loaded(folder, external(("location", "sub/w.bin")))
    (folder / "link.bin").symlink_to("w.bin")
    before = opened()
    tensor.numpy()
    for name in ("sub/lost", "lost/w.bin", "link.bin", "sub", "w.bin/x"):
        with pytest.raises(OSError):  # noqa: PT011
            open_regular(folder / name)
    assert opened() == before


def _with(change: Callable[[onnx.ModelProto], object], text: str = GOOD) -> onnx.ModelProto:
    model = parser.parse_model(text)
    change(model)
    return model


LEAKY = f"{HEAD} g (float[N] x) => (float[N] y) {{ y = LeakyRelu <alpha = 0.5> (x) }}"
SPARSE = SparseTensorProto(
    values=TensorProto(name="s", data_type=1, dims=[2], float_data=[1, 2]),
    indices=TensorProto(data_type=7, dims=[2, 2], int64_data=[0, 0, 2, 2]),
    dims=[3, 3],
)
VALID: dict[str, onnx.ModelProto] = {
    # As writers by the third version of protobuf's language do, which leave out zeros.
    "an attribute without its value": _with(lambda m: m.graph.node[0].attribute[0].ClearField("f"), LEAKY),
    "the newest IR": _with(lambda m: setattr(m, "ir_version", onnx.IR_VERSION)),
    "no IR version": _with(lambda m: m.ClearField("ir_version")),
    "an unknown domain of a large version": _with(lambda m: m.opset_import.add(domain="far", version=1 << 40)),
    "an opset twice": _with(lambda m: m.opset_import.add(domain="", version=20)),
    "a node that reads and writes nothing": _with(lambda m: m.graph.node.append(helper.make_node("Thing", [], []))),
    "outputs that are left out": _with(lambda m: m.graph.node.append(helper.make_node("Thing", ["", "x"], ["", ""]))),
    "an output twice": _with(lambda m: m.graph.output.append(m.graph.output[0])),
    "a sparse initializer": _with(lambda m: m.graph.sparse_initializer.append(SPARSE)),
    "a sparse initializer of nothing": _with(
        lambda m: m.graph.sparse_initializer.add(
            values=TensorProto(name="s", data_type=1, dims=[0]), indices=TensorProto(data_type=7, dims=[0]), dims=[9]
        )
    ),
    "a value of no type": _with(lambda m: m.graph.value_info.add(name="a")),
    "a tensor of no element type": _with(lambda m: m.graph.value_info.add(name="a").type.tensor_type.SetInParent()),
    "a tensor with a note of where it lay": _with(
        lambda m: m.graph.initializer[0].external_data.add(key="location", value="/somewhere")
    ),
}


@pytest.mark.parametrize("case", VALID)
def test_what_is_valid_comes_in(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(VALID[case].SerializeToString())
    model = load(path)
    validate(model)
    assert model_to_proto(model) == VALID[case]


def test_unknown_fields_and_groups_come_in(tmp_path: Path) -> None:
    unknown = b"\xfb\x3e\x08\x01\xfc\x3e" + wire.key(999, 0) + b"\x05"
    path = tmp_path / "model.onnx"
    path.write_bytes(good().SerializeToString() + unknown)
    assert unknown in model_to_proto(load(path)).SerializeToString()


MINE = HEAD.replace("]>", ', "my" : 1]>')


@pytest.mark.parametrize("more", [0, wire._SMALL_FILE])
def test_the_parts_of_a_graph_add_up(tmp_path: Path, more: int) -> None:
    """As protobuf has it: a field that comes twice is one, of both."""
    whole, rest = good(), onnx.ModelProto()
    weights = TensorProto(name="more", data_type=TensorProto.UINT8, dims=[more], raw_data=bytes(more))
    whole.graph.initializer.append(weights)
    rest.graph.node.extend(whole.graph.node)
    rest.graph.output.extend(whole.graph.output)
    for name in ("node", "output"):
        whole.graph.ClearField(name)
    (tmp_path / "model.onnx").write_bytes(whole.SerializeToString() + rest.SerializeToString())
    model = load(tmp_path / "model.onnx")
    assert model_to_proto(model).graph.node == good().graph.node
    more_node = model.graph.names["more"].node
    assert more_node.data is not None
    assert more_node.data.size == more


def test_the_weights_stay_where_they_are_when_the_current_folder_is_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "w.bin").write_bytes(bytes(64))
    onnx.save(external(("location", "w.bin")), folder / "model.onnx")
    monkeypatch.chdir(folder)
    model = load("model.onnx")
    monkeypatch.chdir("other")
    data = model.graph.names["w"].node.data
    assert data is not None
    assert data.location()[0] == (folder / "w.bin").resolve()
    with pytest.raises(UsageError, match="the output is the input"):
        save(model, folder / "model.onnx")


def test_a_reference_of_a_function_needs_no_value() -> None:
    text = f"""{MINE} g (float[N] x) => (float[N] y) {{ y = my.F <by = 0.5> (x) }}
    <domain: "my", opset_import: ["" : 20]> F <by> (a) => (b) {{ b = LeakyRelu <alpha: float = @by> (a) }}"""
    assert len(load(parser.parse_model(text)).functions) == 1


def test_functions_in_a_long_row_call_each_other() -> None:
    head = '<domain: "my", opset_import: ["" : 20, "my" : 1]>'
    steps = [f"{head} F{n} (a) => (b) {{ b = my.F{n - 1}(a) }}" for n in range(1, 2000)]
    text = f"{MINE} g (float[N] x) => (float[N] y) {{ y = my.F1999(x) }} {head} F0 (a) => (b) {{ b = Neg(a) }}"
    assert len(load(parser.parse_model(" ".join([text, *steps]))).functions) == 2000


def test_a_model_in_memory_is_looked_at_too() -> None:
    model = onnx.ModelProto()
    model.ParseFromString(good().SerializeToString().replace(b"Relu", b"Re\xff\xfe"))
    with pytest.raises(ModelError) as caught:
        load(model)
    assert (caught.value.code, caught.value.where) == ("GO039", "model")


def test_a_model_in_memory_may_be_nested_too_deep() -> None:
    model = good()
    graph = model.graph
    for _ in range(40):
        attribute = graph.node.add(op_type="If", input=["x"]).attribute.add(
            name="then_branch", type=AttributeProto.GRAPH
        )
        graph = attribute.g
    with pytest.raises(ModelError) as caught:
        load(model)
    assert caught.value.code == "GO130"


def test_graphs_that_would_take_too_much_are_refused() -> None:
    admission = Admission(Path(), "model")
    admission.room(MOST_MEMORY // 2500, 0, 0)
    with pytest.raises(ModelError) as caught:
        admission.room(1, 0, 0)
    assert caught.value.code == "GO130"


def test_what_begins_like_a_message_is_no_fewer_than_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_MESSAGES", 10)
    model = good()
    for index in range(100):
        model.metadata_props.add(key=str(index), value="")
    data = model.SerializeToString()
    with pytest.raises(ModelError, match="more than 10 parts"):
        gate.parsed(data, "here")
    monkeypatch.setattr(gate, "MOST_MESSAGES", 1000)
    assert gate.parsed(data, "here") == model


def test_a_name_cannot_forge_lines_of_an_error() -> None:
    error = GraphoptError("GO020", "no 'a\nerror[GO999]: b\x1b[31m\u202e'", "here\r", "x" * 1_000_000)
    error.exit_code = 3
    lines = str(error).split("\n")
    assert len(lines) == 3
    assert lines[0] == "error[GO020]: no 'a error[GO999]: b\\x1b[31m\\u202e'"
    assert lines[1] == "  --> here\\r"
    assert len(lines[2]) < 2100
