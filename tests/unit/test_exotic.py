"""Exotic models: each is what it says, comes back from a load and a save as it was, and harms nothing beside it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from graphopt.ir import load, model_to_proto, save, validate

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpora.exotic import EXOTICS, Exotic

ort = pytest.importorskip("onnxruntime")


def test_there_are_enough_and_no_two_of_one_name() -> None:
    assert len({exotic.name for exotic in EXOTICS}) == len(EXOTICS) >= 200
    assert all(exotic.why for exotic in EXOTICS)
    assert sum(exotic.checked and exotic.runs for exotic in EXOTICS) >= 200


@pytest.mark.parametrize("exotic", EXOTICS, ids=str)
def test_each_is_valid(exotic: Exotic, tmp_path: Path) -> None:
    assert exotic.checked or exotic.loads
    path = exotic.write(tmp_path)
    if exotic.checked:
        onnx.checker.check_model(str(path))
    if exotic.loads:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("exotic", EXOTICS, ids=str)
def test_load_then_save_changes_nothing_that_a_reader_sees(exotic: Exotic, tmp_path: Path) -> None:
    path = exotic.write(tmp_path)
    before = hashes(tmp_path)
    model = load(path)
    validate(model)
    written = save(model, tmp_path / "saved.onnx")
    assert written == [tmp_path / "saved.onnx"]
    original = exotic.make().proto
    for found in (model_to_proto(model), onnx.load(written[0], load_external_data=False)):
        assert same(original, found)
    assert {name: at for name, at in hashes(tmp_path).items() if name != "saved.onnx"} == before


@pytest.mark.parametrize("exotic", [one for one in EXOTICS if one.name.startswith("external/")], ids=str)
def test_saved_elsewhere_it_has_its_weights_and_no_other_bytes(exotic: Exotic, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    model = load(exotic.write(tmp_path))
    written = save(model, tmp_path / "there" / "saved.onnx")[-1]
    again = load(written)
    for name, value in model.graph.names.items():
        if value.tensor is not None:
            one, other = value.tensor.numpy(), again.graph.names[name].tensor.numpy()
            assert one.tobytes() == other.tobytes(), name
    assert b"SECRET" not in b"".join(path.read_bytes() for path in written.parent.rglob("*") if path.is_file())


def hashes(folder: Path) -> dict[str, str]:
    """The files of a folder, and what is in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def same(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    """Whether two models are equal to the bit; nodes that stood before what they read have been sorted."""
    if not late_readers(before.graph):
        return before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
    return not late_readers(after.graph) and by_nodes(before) == by_nodes(after)


def by_nodes(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, with the nodes of its main graph in an order of their own."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = sorted(copy.graph.node, key=lambda node: node.SerializeToString(deterministic=True))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy.SerializeToString(deterministic=True)


def late_readers(graph: onnx.GraphProto) -> bool:
    """Whether a node reads what a later one writes."""
    late = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if late & read_by(node):
            return True
        late -= set(node.output)
    return False


def read_by(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, in its subgraphs as well."""
    graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    return set(node.input).union(*(captured_by(graph) for graph in graphs))


def captured_by(graph: onnx.GraphProto) -> set[str]:
    """The names that a subgraph reads from outside."""
    own = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    return {name for node in graph.node for name in read_by(node)} - own


def test_strings_that_are_no_text_stay_bytes_and_are_told_apart() -> None:
    def model(*strings: bytes) -> onnx.ModelProto:
        tensor = TensorProto(name="c", data_type=TensorProto.STRING, dims=[2], string_data=strings)
        text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (string[2] y) { y = Identity(c) }'
        made = onnx.parser.parse_model(text)
        made.graph.initializer.append(tensor)
        return made

    tensor = load(model(b"\xff\xfe", "ü".encode())).graph.names["c"].tensor
    assert tensor.numpy().tolist() == [b"\xff\xfe", "ü"]
    assert list(tensor.to_proto("d").string_data) == [b"\xff\xfe", "ü".encode()]
