"""Published holes of readers and writers of ONNX, each as it would show here. None is to work."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.cli.app import run
from graphopt.errors import ModelError
from graphopt.ir import Model, Tensor, load, save

SECRET = b"the bytes of another file ......"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, beside a file that no model may reach."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def model_with(**entries: str) -> onnx.ModelProto:
    """y = x + w, where the 32 bytes of w are said to lie in external data."""
    weight = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[32], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.UINT8, [32]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def written(folder: Path, **entries: str) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model_with(**entries).SerializeToString())
    return path


def refused(path: Path, code: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.code == code
    assert SECRET.decode() not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("location", ["../secret.bin", "../models/../secret.bin", "/etc/passwd"])
def test_cve_2022_25882_a_location_leaves_the_folder(folder: Path, location: str) -> None:
    """onnx < 1.13 joined the model's folder and the `location` of external data, and read what `../` led to."""
    refused(written(folder, location=location), "GO030")


@pytest.mark.parametrize(
    "location", ["sub/../../secret.bin", "./../secret.bin", "a/b/../../../secret.bin", "..//secret.bin"]
)
def test_cve_2024_27318_a_location_leaves_the_folder_by_a_detour(folder: Path, location: str) -> None:
    """onnx <= 1.15 looked for `../` at the beginning of a location only: the mend of CVE-2022-25882 was too small."""
    (folder / "sub").mkdir()
    (folder / "a" / "b").mkdir(parents=True)
    refused(written(folder, location=location), "GO030")


def test_cve_2024_27319_a_long_name_in_an_error(folder: Path) -> None:
    """onnx <= 1.15 copied the text of a failed assertion one byte too far, into memory behind a buffer of fixed size.

    The writers of messages are other ones here: what a file calls its parts, however long, is cut, and stays one line.
    """
    model = model_with(location="w.bin")
    model.graph.node[0].name = "n" * 1_000_000
    model.graph.node[0].input[0] = "lost\n\x1b[2J" * 100_000
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (folder / "w.bin").write_bytes(bytes(32))
    lines = str(refused(path, "GO044")).splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 3000 for line in lines)


def test_cve_2025_51480_saving_overwrites_what_a_location_names(folder: Path) -> None:
    """onnx <= 1.17 wrote external data to wherever the model's own `location` led, `../` and links included.

    Here a file with such a location is not loaded; and what is saved goes to names made of the output's own.
    """
    refused(written(folder, location="../secret.bin"), "GO030")
    outside = folder.parent / "victim.bin"
    outside.write_bytes(SECRET)
    (folder / "out.onnx.data").symlink_to(outside)
    model = Model.empty()
    graph = model.graph
    graph.add_slot(graph.output, graph.add_constant(Tensor.of(np.arange(5000.0))))
    names = [path.name for path in save(model, folder / "out.onnx", external="always")]
    assert names == ["out.onnx.1.data", "out.onnx"]
    # Where a tensor with such a place came in all the same, its data is read no more than it is written.
    proto = model_with(location="../victim.bin").graph.initializer[0]
    graph.add_slot(graph.output, graph.add_constant(Tensor(proto, base=folder)))
    with pytest.raises(ModelError, match="outside the model's folder"):
        save(model, folder.parent / "other.onnx", external="never")
    assert outside.read_bytes() == SECRET
    assert sorted(path.name for path in folder.parent.iterdir()) == ["models", "secret.bin", "victim.bin"]


@pytest.mark.parametrize(("command", "suffix"), [("fuse", "fused"), ("quantize", "int8")])
def test_cve_2025_51480_a_link_lies_where_the_output_goes(
    folder: Path, command: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same, where the link came with the model, under the name that a command gives its output by itself."""
    (folder / "w.bin").write_bytes(bytes(32))
    path = written(folder, location="w.bin")
    outside = folder.parent / "secret.bin"
    (folder / f"model.{suffix}.onnx").symlink_to(outside)
    assert run([command, str(path)]) == 2
    assert "error[GO011]: the output would replace what a link leads to" in capsys.readouterr().err
    assert outside.read_bytes() == SECRET


@pytest.mark.parametrize("way", ["a file", "a folder", "a folder of a folder"])
def test_cve_2026_27489_a_link_leaves_the_folder(folder: Path, way: str) -> None:
    """onnx < 1.21 followed symbolic links out of the model's folder, of the file and of the folders that lead to it."""
    if way == "a file":
        (folder / "w.bin").symlink_to("../secret.bin")
        location = "w.bin"
    elif way == "a folder":
        (folder / "up").symlink_to("..")
        location = "up/secret.bin"
    else:
        (folder / "sub").mkdir()
        (folder / "sub" / "up").symlink_to("../..")
        location = "sub/up/secret.bin"
    refused(written(folder, location=location), "GO038")


def test_cve_2026_27489_a_link_that_comes_later(folder: Path) -> None:
    """The same where the link is put in place after the look: the file is opened anew, by the same rules."""
    (folder / "w.bin").write_bytes(bytes(32))
    model = load(written(folder, location="w.bin"))
    tensor = model.graph.names["w"].tensor
    assert tensor is not None
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("../secret.bin")
    for read in (tensor.numpy, tensor.raw, tensor.location, lambda: save(model, folder.parent / "out.onnx")):
        with pytest.raises(ModelError) as caught:
            read()
        assert caught.value.code == "GO038"
    assert not (folder.parent / "out.onnx").exists()


@pytest.mark.parametrize(
    "key", ["__class__", "__dict__", "__init__", "basepath", "checksum", "proto", "dtype", "base", "shape", "numpy"]
)
def test_cve_2026_34445_a_key_of_external_data_sets_an_attribute(
    folder: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """onnx <= 1.20 did `setattr(info, key, value)` for each entry, so that a file changed the reader's own objects.

    Here entries are looked up by name; the others are told of, and kept.
    """
    (folder / "w.bin").write_bytes(bytes(range(32)))
    model = load(written(folder, location="w.bin", **{key: "/"}))
    tensor = model.graph.names["w"].tensor
    assert type(tensor) is Tensor
    np.testing.assert_array_equal(tensor.numpy(), np.arange(32, dtype=np.uint8))
    assert (f"external data says '{key}'" in caplog.text) is (key not in ("basepath", "checksum"))


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-1"), ("length", "-1"), ("length", str(1 << 62)), ("offset", "x")]
)
def test_cve_2026_34445_offset_and_length_take_all_memory(folder: Path, key: str, value: str) -> None:
    """The same entries were taken for sizes without a look: a length of 2^62 was allocated, a negative one read all."""
    (folder / "w.bin").write_bytes(bytes(32))
    error = refused(written(folder, location="w.bin", **{key: value}), "GO034" if value == str(1 << 62) else "GO037")
    assert re.search("bytes|number", error.message)
