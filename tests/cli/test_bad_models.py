"""Files that are no models: one clear error, nothing written, nothing touched."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from .conftest import HEAD, Cli, gelu_layer, snapshot

ERROR = re.compile(r"error\[GO\d{3}\]: .+\n  --> .+\n(  hint: .+\n)?")

Break = Callable[[Path], None]


def save(model: onnx.ModelProto, path: Path) -> None:
    # The checker that onnx.save might run is of no use here: these models are broken on purpose.
    path.write_bytes(model.SerializeToString())


def missing(path: Path) -> None:
    pass


def directory(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    data = gelu_layer().SerializeToString()
    path.write_bytes(data[: len(data) // 2])


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4096))


def text(path: Path) -> None:
    path.write_text("# not a model\n")


def tensor(path: Path) -> None:
    path.write_bytes(numpy_helper.from_array(np.zeros(3, np.float32), "x").SerializeToString())


def domain_without_import(path: Path) -> None:
    save(parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = some.domain.Op(x) }}"), path)


def no_opset_at_all(path: Path) -> None:
    model = gelu_layer()
    del model.opset_import[:]
    save(model, path)


def opset_of_the_future(path: Path) -> None:
    model = gelu_layer()
    model.opset_import[0].version = 999
    save(model, path)


def dangling_input(path: Path) -> None:
    model = gelu_layer()
    model.graph.node[3].input[0] = "nobody"
    save(model, path)


def dangling_output(path: Path) -> None:
    model = gelu_layer()
    model.graph.output[0].name = "nobody"
    save(model, path)


def cyclic(path: Path) -> None:
    model = gelu_layer()
    model.graph.node[0].input[0] = "y"
    save(model, path)


def duplicate_values(path: Path) -> None:
    model = gelu_layer()
    model.graph.node[2].output[0] = "h"
    save(model, path)


def duplicate_initializers(path: Path) -> None:
    model = gelu_layer()
    model.graph.initializer.append(model.graph.initializer[0])
    save(model, path)


def external(path: Path, location: str, length: int | None = None) -> None:
    """A model whose weight `w` says that it lies in `location`."""
    model = gelu_layer()
    weight = next(t for t in model.graph.initializer if t.name == "w")
    entries = {"location": location, "offset": "0", "length": str(len(weight.raw_data))}
    if length is not None:
        (path.parent / location).write_bytes(weight.raw_data[:length])
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    save(model, path)


def external_missing(path: Path) -> None:
    external(path, "weights.bin")


def external_too_short(path: Path) -> None:
    external(path, "weights.bin", length=100)


def external_outside(path: Path) -> None:
    external(path, "../weights.bin")


def external_absolute(path: Path) -> None:
    external(path, str(path.parent / "weights.bin"))


def external_link(path: Path) -> None:
    external(path, "weights.bin", length=2048)
    (path.parent / "weights.bin").rename(path.parent.parent / "elsewhere.bin")
    (path.parent / "weights.bin").symlink_to(path.parent.parent / "elsewhere.bin")


def wrong_size(path: Path) -> None:
    model = gelu_layer()
    model.graph.initializer[-1].dims[0] += 1
    save(model, path)


BROKEN: dict[Break, str] = {
    missing: "no such file",
    directory: "directory",
    empty: "the file is empty",
    truncated: "not a readable ONNX protobuf|not an ONNX model",
    garbage: "not a readable ONNX protobuf",
    text: "not a readable ONNX protobuf",
    tensor: "not a readable ONNX protobuf|not an ONNX model",
    domain_without_import: "'some.domain' has no opset import",
    no_opset_at_all: "no opset import",
    opset_of_the_future: "opset 999 is newer",
    dangling_input: "nothing produces 'nobody'",
    dangling_output: "nothing produces 'nobody'",
    cyclic: "cycle",
    duplicate_values: "two values called 'h'",
    duplicate_initializers: "two initializers called 'root'",
    external_missing: "is missing",
    external_too_short: "is too short",
    external_outside: "outside the model's folder",
    external_absolute: "outside the model's folder",
    external_link: "symbolic link",
    wrong_size: "takes 132 bytes, its data has 128",
}


@pytest.mark.parametrize("command", ["fuse", "inspect", "verify"])
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_model_is_one_error(cli: Cli, tmp_path: Path, command: str, broken: Break) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.onnx"
    broken(path)
    save(gelu_layer(), folder / "whole.onnx")
    before = snapshot(tmp_path)

    done = cli(command, path, *([folder / "whole.onnx"] if command == "verify" else []))

    assert done.code == 3
    assert done.out == ""
    assert ERROR.fullmatch(done.err), done.err
    assert re.search(BROKEN[broken], done.err), done.err
    assert str(path) in done.err
    assert snapshot(tmp_path) == before


def test_the_error_of_a_cycle_names_a_node(cli: Cli, tmp_path: Path) -> None:
    cyclic(tmp_path / "model.onnx")
    err = cli("inspect", tmp_path / "model.onnx").err
    assert re.search(r"--> \S*model.onnx: node '\w+' \(\w+\)", err), err
