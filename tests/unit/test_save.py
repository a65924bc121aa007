"""Files appear whole or not at all, and weights on disk are neither moved, copied nor overwritten without need."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.ir import Model, Tensor, load, model_to_proto, save, validate
from graphopt.ir.side import MARK
from graphopt.ir.text import parse

W = np.arange(2000, dtype=np.float32)


def with_weights() -> onnx.ModelProto:
    """Weights wherever a model may have them: initializers, a branch's, attributes, sparse ones, a function's."""
    proto = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20, "f" : 1]>
    main (float[2000] x, bool flag) => (float[2000] y, float[2000] z) {
        a = Add(x, w)
        b = If(flag) <then_branch = one () => (float[2000] t) { t = Add(a, inner) },
                      else_branch = two () => (float[2000] e) { e = Neg(a) }>
        k = Constant()
        c = Mul(b, k)
        d = Sub(c, small)
        y = f.F(d)
        z = Identity(w)
    }
    <domain: "f", opset_import: ["" : 20]> F (p) => (q) { l = Constant() q = Add(p, l) }
    """)
    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(W, "w"))
    graph.initializer.append(numpy_helper.from_array(W[:1], "small"))
    branch = graph.node[1].attribute[0].g
    branch.initializer.append(numpy_helper.from_array(W * 2, "inner"))
    graph.node[2].attribute.append(helper.make_attribute("value", numpy_helper.from_array(W * 3)))
    proto.functions[0].node[0].attribute.append(helper.make_attribute("value", numpy_helper.from_array(W * 4)))
    return proto


def in_files(folder: Path, name: str = "model.onnx", data: str = "weights.bin") -> Path:
    """The model in a folder, all tensors of a kilobyte and more in an external file."""
    path = folder / name
    # onnx's converter leaves functions alone.
    onnx.save(with_weights(), path, save_as_external_data=True, location=data, convert_attribute=True)
    return path


def outputs(path: Path) -> list[np.ndarray]:  # type: ignore[type-arg]
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": np.ones(2000, np.float32), "flag": np.array(True)}))


def state(path: Path) -> tuple[int, int, bytes]:
    return path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def with_new_weights(model: Model) -> Model:
    graph = model.graph
    new = graph.add_constant(W + 1, "new")
    graph.set_input(graph.names["z"].node, 0, new)
    return model


def module() -> object:
    return importlib.import_module("graphopt.ir.save")


def test_weights_in_the_same_folder_stay_where_they_are(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    before = state(tmp_path / "weights.bin")
    assert save(load(path), tmp_path / "out.onnx") == [tmp_path / "out.onnx"]
    assert names(tmp_path) == ["model.onnx", "out.onnx", "weights.bin"]
    assert state(tmp_path / "weights.bin") == before
    assert onnx.load(tmp_path / "out.onnx", load_external_data=False) == onnx.load(path, load_external_data=False)
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(path))


def test_new_weights_go_to_a_side_file(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    before = state(tmp_path / "weights.bin")
    out = tmp_path / "out.onnx"
    assert save(with_new_weights(load(path)), out) == [tmp_path / "out.onnx.data", out]
    assert (tmp_path / "out.onnx.data").read_bytes() == (W + 1).tobytes() + MARK
    assert state(tmp_path / "weights.bin") == before
    np.testing.assert_array_equal(outputs(out), [outputs(path)[0], W + 1])


def test_saving_in_another_folder_copies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    path = in_files(tmp_path / "a")
    expected = outputs(path)
    out = tmp_path / "b" / "out.onnx"
    save(load(path), out)
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    assert names(tmp_path / "b") == ["out.onnx", "out.onnx.data"]
    onnx.checker.check_model(out)
    np.testing.assert_array_equal(outputs(out), expected)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_side_file_never_takes_the_name_of_the_input_s_data(tmp_path: Path, in_place: bool) -> None:
    path = in_files(tmp_path, data="out.onnx.data", name="out.onnx" if in_place else "model.onnx")
    expected = outputs(path)
    before = state(tmp_path / "out.onnx.data")
    out = tmp_path / "out.onnx"
    assert save(with_new_weights(load(path)), out, in_place=in_place) == [tmp_path / "out.onnx.1.data", out]
    assert state(tmp_path / "out.onnx.data") == before
    np.testing.assert_array_equal(outputs(out), [expected[0], W + 1])


def test_the_next_run_leaves_one_side_file(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    out = tmp_path / "out.onnx"
    for side in ("out.onnx.data", "out.onnx.1.data", "out.onnx.data"):
        assert save(with_new_weights(load(path)), out) == [tmp_path / side, out]
        assert names(tmp_path) == ["model.onnx", "out.onnx", side, "weights.bin"]


def test_never_takes_all_weights_in(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    out = tmp_path / "out.onnx"
    assert save(load(path), out, external="never") == [out]
    assert onnx.load(out) == with_weights()


def test_always_puts_all_weights_out(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(with_weights(), path)
    out = tmp_path / "out.onnx"
    save(load(path), out, external="always")
    assert names(tmp_path) == ["model.onnx", "out.onnx", "out.onnx.data"]
    assert onnx.load(out, load_external_data=False).graph.initializer[0].data_location == TensorProto.EXTERNAL
    np.testing.assert_array_equal(outputs(out), outputs(path))


def test_more_than_protobuf_holds_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(with_weights(), path)
    monkeypatch.setattr(module(), "_PROTO_LIMIT", 7_999)
    assert [p.name for p in save(load(path), tmp_path / "out.onnx")] == ["out.onnx.data", "out.onnx"]
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(path))
    monkeypatch.setattr(module(), "_PROTO_LIMIT", 9_000)
    assert [p.name for p in save(load(path), tmp_path / "out.onnx")] == ["out.onnx"]


def test_a_proto_in_memory_has_its_data_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_files(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    monkeypatch.chdir(tmp_path)
    before = state(tmp_path / "weights.bin")
    (tmp_path / "sub").mkdir()
    assert save(load(proto), "out.onnx") == [Path("out.onnx")]
    assert len(save(load(proto), "sub/out.onnx")) == 2
    assert state(tmp_path / "weights.bin") == before
    for out in (tmp_path / "out.onnx", tmp_path / "sub" / "out.onnx"):
        np.testing.assert_array_equal(outputs(out), outputs(path))
    with pytest.raises(UsageError, match="weights"):
        save(load(proto), "weights.bin")


TENSORS = {
    "float32": np.arange(3000, dtype=np.float32),
    "bfloat16": np.arange(3000).astype(ml_dtypes.bfloat16),
    "int4": (np.arange(3001) % 16 - 8).astype(ml_dtypes.int4),
    "uint2": (np.arange(5001) % 4).astype(ml_dtypes.uint2),
    "bool": np.arange(3000) % 3 == 0,
    "complex64": np.arange(3000).astype(np.complex64),
    "string": np.array(["ä", "b"] * 1000, dtype=object),
    "scalar": np.float64(3),
    "empty": np.zeros((0, 5), np.int64),
}


@pytest.mark.parametrize("external", ["never", "auto", "always"])
@pytest.mark.parametrize("new", [False, True])
def test_numbers_survive_every_way(tmp_path: Path, external: str, new: bool) -> None:
    """New tensors and tensors read from a file, out to a side file, to another folder, and back in."""
    model = Model.empty(20)
    model.proto.ir_version = 13
    for name, array in TENSORS.items():
        data = Tensor.of(array)
        tensor = data if new else Tensor(data.to_proto(name))
        value = model.graph.add_constant(tensor, name)
        model.graph.add_slot(model.graph.output, model.graph.add_op("Identity", [value]).output)
    (tmp_path / "b").mkdir()
    save(model, tmp_path / "one.onnx", external=external)  # type: ignore[arg-type]
    save(load(tmp_path / "one.onnx"), tmp_path / "b" / "two.onnx")
    save(load(tmp_path / "b" / "two.onnx"), tmp_path / "b" / "three.onnx", external="never")
    assert (tmp_path / "one.onnx.data").exists() == (external == "always")
    for path in (tmp_path / "one.onnx", tmp_path / "b" / "two.onnx", tmp_path / "b" / "three.onnx"):
        written = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        loaded = load(path)
        validate(loaded)
        for name, array in TENSORS.items():
            for found in (written[name], loaded.graph.names[name].tensor.numpy()):
                assert found.dtype == array.dtype
                np.testing.assert_array_equal(found, array)


def test_typed_data_goes_out_as_raw_data(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> g () => (float[N] y) { y = Relu(w) }')
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2000], float_data=W, doc_string="kept"))
    save(load(proto), tmp_path / "out.onnx", external="always")
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[0]
    assert (len(written.float_data), written.doc_string) == (0, "kept")
    np.testing.assert_array_equal(load(tmp_path / "out.onnx").graph.names["w"].tensor.numpy(), W)


# ---- refusals and failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["model.onnx", "./model.onnx", "sub/../model.onnx", "link.onnx", "weights.bin"])
def test_the_input_is_not_overwritten(tmp_path: Path, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_files(tmp_path)
    (tmp_path / "link.onnx").symlink_to(path)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    before = {p: state(p) for p in (path, tmp_path / "weights.bin")}
    with pytest.raises(UsageError) as caught:
        save(load(path), spelling)
    assert (caught.value.code, caught.value.exit_code, caught.value.where) == ("GO011", 2, str(Path(spelling)))
    assert "--in-place" in caught.value.hint
    assert {p: state(p) for p in before} == before


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
def test_in_place_writes_there(tmp_path: Path, name: str) -> None:
    path = in_files(tmp_path)
    expected = outputs(path)
    save(load(path), tmp_path / name, in_place=True)
    if name == "weights.bin":
        path.unlink()
        assert names(tmp_path) == ["weights.bin", "weights.bin.data"]
    np.testing.assert_array_equal(outputs(tmp_path / name), expected)


def no_folder(folder: Path) -> Path:
    return folder / "none" / "out.onnx"


def below_a_file(folder: Path) -> Path:
    return folder / "model.onnx" / "out.onnx"


def a_directory(folder: Path) -> Path:
    (folder / "out.onnx").mkdir()
    return folder / "out.onnx"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "out.onnx")
    return folder / "out.onnx"


@pytest.mark.parametrize("place", [no_folder, below_a_file, a_directory, a_pipe])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    model = load(in_files(tmp_path))
    target = place(tmp_path)
    before = names(tmp_path)
    with pytest.raises(ModelError, match="cannot write") as caught:
        save(model, target)
    assert (caught.value.code, caught.value.exit_code, caught.value.where) == ("GO032", 3, str(target))
    assert names(tmp_path) == before


def test_a_folder_that_may_not_be_written(tmp_path: Path, nobody: Callable[[], AbstractContextManager[None]]) -> None:
    model = load(in_files(tmp_path))
    tmp_path.chmod(0o500)
    with nobody(), pytest.raises(ModelError, match="cannot write: Permission denied") as caught:
        save(model, tmp_path / "out.onnx")
    assert (caught.value.code, caught.value.where) == ("GO032", str(tmp_path / "out.onnx"))
    tmp_path.chmod(0o700)
    assert names(tmp_path) == ["model.onnx", "weights.bin"]


@pytest.mark.parametrize(("function", "calls"), [("fsync", 0), ("fsync", 1), ("link", 0), ("link", 1), ("replace", 0)])
def test_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, calls: int
) -> None:
    """The disk is full: at the side file, at the model, at the name of each, at the last step."""
    (tmp_path / "a").mkdir()
    out = tmp_path / "out.onnx"
    out.write_bytes(b"what was there")
    model = load(in_files(tmp_path / "a"))
    real, left = getattr(os, function), [calls]

    def fail(*args: object, **options: object) -> object:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return real(*args, **options)

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(ModelError, match="No space left"):
        save(model, out)
    assert out.read_bytes() == b"what was there"
    assert names(tmp_path) == ["a", "out.onnx"]


def test_an_interrupt_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(in_files(tmp_path))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    before = names(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        save(model, tmp_path / "out.onnx")
    assert names(tmp_path) == before


def test_too_much_for_one_file(tmp_path: Path) -> None:
    model = Model.empty(20)
    # A broadcast view has the length of 3 GB and the memory of one number.
    huge = Tensor(None, np.broadcast_to(np.zeros((), np.uint8), (3 << 30,)))
    model.graph.add_slot(model.graph.output, model.graph.add_constant(huge, "huge"))
    with pytest.raises(ModelError) as caught:
        save(model, tmp_path / "out.onnx", external="never")
    assert caught.value.code == "GO033"
    assert names(tmp_path) == []


def test_an_op_of_our_own_is_not_written(tmp_path: Path) -> None:
    model = load(with_weights())
    model.graph.set_op(model.graph.names["a"].node, "Attention", "ir", 1)
    with pytest.raises(GraphoptError) as caught:
        save(model, tmp_path / "out.onnx")
    assert (caught.value.code, caught.value.where) == ("GO072", "node 'a' (Attention)")
    assert names(tmp_path) == []


def test_a_file_gets_the_user_s_permissions(tmp_path: Path) -> None:
    save(load(with_weights()), tmp_path / "out.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert onnx.load(tmp_path / "out.onnx") == model_to_proto(load(with_weights())) == with_weights()


def test_a_type_that_nobody_knows_is_not_said(tmp_path: Path) -> None:
    """onnxruntime infers it."""
    save(parse("(x: float32[N, 4]) -> (y) { y = Relu(x) }"), tmp_path / "out.onnx")
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].type == "tensor(float)"
    assert load(tmp_path / "out.onnx").graph.outputs[0].dtype == 0


def test_strings_stay_in_the_model_however_large(tmp_path: Path) -> None:
    words = np.array(["word"] * 50_000, object)
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.STRING, [50_000], [word.encode() for word in words])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, [50_000])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    path = tmp_path / "m.onnx"
    save(load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])), path, external="always")
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]
    (written,) = onnx.load(path).graph.initializer
    assert written == tensor
