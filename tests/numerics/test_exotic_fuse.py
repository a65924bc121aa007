"""Exotic models through `fuse`: what comes out says and computes what went in."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt
from graphopt import pipeline
from graphopt.errors import GraphoptError
from graphopt.ir import load, validate
from graphopt.passes import hold_trained, spell_constants
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.runtime import Runner
from graphopt.targets import target_named

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpora.exotic import EXOTICS, Exotic, drawn
from corpora.exotic.kept import differences

# onnxruntime has no kernel for its operators, which nobody can therefore check.
_UNDECIDED = {"metadata/domain_without_schema": 4}
# It says which of the two it takes.
_WARNED = {"interface/import_in_two_versions"}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as running:
        yield running


@pytest.mark.parametrize("exotic", EXOTICS, ids=str)
def test_fuse_preserves(exotic: Exotic, tmp_path: Path, runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    path = exotic.write(tmp_path)
    files = {found: found.read_bytes() for found in tmp_path.rglob("*") if found.is_file()}
    made = exotic.make()
    with caplog.at_level(logging.WARNING):
        result = graphopt.fuse(path, tmp_path / "fused.onnx")
    assert result.exit_code == _UNDECIDED.get(exotic.name, 0), result.errors
    assert not result.rolled_back
    assert bool(caplog.records) == (exotic.name in _WARNED)
    written = {tmp_path / "fused.onnx"} if result.output else set()
    assert {found for found in tmp_path.rglob("*") if found.is_file()} - files.keys() == written
    assert all(found.read_bytes() == content for found, content in files.items())
    if result.output is None:
        return
    fused = onnx.load(result.output, load_external_data=False)
    assert not differences(made.proto, fused)
    for one, other in ((made.proto.graph.input, fused.graph.input), (made.proto.graph.output, fused.graph.output)):
        if made.proto.ir_version == fused.ir_version:
            assert list(one) == list(other)
    if exotic.checked:
        onnx.checker.check_model(str(result.output))
    if exotic.loads:
        feeds = dict(made.feeds) if made.feeds is not None else drawn(made.proto)
        run = exotic.runs and not exotic.random
        for optimized in (False, True):
            with runner.load(result.output, optimize=optimized) as session:
                found = session.run(feeds) if run else {}
            if optimized:
                continue
            with runner.load(path, optimize=False) as session:
                expected = session.run(feeds) if run else {}
            assert list(found) == list(expected)
            assert not [name for name in expected if not same(expected[name], found[name])]


def same(one: Any, other: Any) -> bool:
    """Equal results: floats to their rounding, NaN as NaN, all else exactly."""
    if isinstance(one, list | dict):
        pairs = zip(one, other, strict=True) if isinstance(one, list) else ((one[key], other[key]) for key in one)
        return type(one) is type(other) and len(one) == len(other) and all(same(*pair) for pair in pairs)
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if a.dtype.kind != "f":
        return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
    tolerance = 1e-3 if a.dtype == np.float16 else 1e-5
    return bool(np.allclose(a, b, tolerance, tolerance / 10, equal_nan=True))


@pytest.mark.parametrize("exotic", [one for one in EXOTICS if one.name.startswith("bits/")], ids=str)
def test_what_is_passed_on_keeps_its_bits(exotic: Exotic, tmp_path: Path, runner: Runner) -> None:
    """Constants that go to an output as they are: NaN payloads, signs of zeros, denormals."""
    path, made = exotic.write(tmp_path), exotic.make()
    fused = graphopt.fuse(path, tmp_path / "fused.onnx").output
    assert fused is not None
    passed = {node.output[0] for node in made.proto.graph.node if node.op_type == "Identity"}
    feeds = drawn(made.proto)
    with runner.load(path, optimize=False) as before, runner.load(fused, optimize=False) as after:
        expected, found = before.run(feeds), after.run(feeds)
    for name in passed & expected.keys():
        assert found[name].tobytes() == expected[name].tobytes()


_TRAINED = [one for one in EXOTICS if one.make().proto.training_info]


@pytest.mark.parametrize("exotic", _TRAINED, ids=str)
def test_what_training_updates_is_no_constant(exotic: Exotic) -> None:
    """Every weight that training updates still reaches an output: what is computed from it was not folded."""
    model = load(exotic.make().proto)
    optimize(model, target=target_named("ort-cpu"), rules=built_in_rules())
    for training in model.proto.training_info:
        for binding in training.update_binding:
            value = model.graph.names[binding.key]
            assert value.tensor is not None
            assert value.uses > 0
            assert np.array_equal(
                value.tensor.numpy(), load(exotic.make().proto).graph.names[value.name].tensor.numpy()
            )


def test_outputs_added_meanwhile_stay() -> None:
    """Those that quantization taps, behind what training reads."""
    model = load(next(one for one in _TRAINED if "inner_value" in one.name).make().proto)
    before = [value.name for value in model.graph.outputs]
    with hold_trained(model):
        assert len(model.graph.outputs) > len(before)
        model.graph.add_slot(model.graph.output, model.graph.names["m"])
    assert [value.name for value in model.graph.outputs] == [*before, "m"]
    validate(model)


def test_new_constants_of_an_old_model_are_no_inputs() -> None:
    text = "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { h = Neg(w) k = Abs(h) y = Mul(x, k) }"
    proto = onnx.parser.parse_model(f'<ir_version: 3, opset_import: ["" : 8]> {text}')
    model = load(proto)
    optimize(model, target=target_named("ort-cpu"), rules=built_in_rules())
    ops = [node.op for node in model.graph.ops()]
    assert ops == ["Constant", "Mul"]
    assert [node.output.name for node in model.graph.inputs] == ["x", "w"]
    assert spell_constants(model) == 0


def test_strings_with_zero_bytes_are_told_apart() -> None:
    def model(*strings: bytes) -> onnx.ModelProto:
        text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (string[2] y) { y = Identity(c) }'
        made = onnx.parser.parse_model(text)
        tensor = onnx.TensorProto(name="c", data_type=onnx.TensorProto.STRING, dims=[2], string_data=strings)
        made.graph.initializer.append(tensor)
        return made

    one, other = model(b"a\0b", b"c"), model(b"a", b"b\0c")
    assert pipeline.verify(one, one).verdict == "equal"
    assert pipeline.verify(one, other).verdict != "equal"


def test_a_value_that_never_has_elements_is_equal_by_its_type(tmp_path: Path) -> None:
    exotic = next(one for one in EXOTICS if one.name == "bits/zero_size_tensors")
    result = graphopt.fuse(exotic.write(tmp_path), tmp_path / "fused.onnx", target="onnx", verify="full")
    assert result.verdict == "equal"


@pytest.mark.parametrize("exotic", EXOTICS[::7], ids=str)
def test_fuse_for_other_runtimes_in_full(exotic: Exotic, tmp_path: Path) -> None:
    try:
        result = graphopt.fuse(exotic.write(tmp_path), tmp_path / "fused.onnx", target="onnx", verify="full")
    except GraphoptError as error:
        pytest.fail(str(error))
    assert result.exit_code == _UNDECIDED.get(exotic.name, 0), result.errors
    if result.output is not None:
        after = onnx.load(result.output, load_external_data=False)
        assert not differences(exotic.make().proto, after)
        standard = {"", "ai.onnx"} | {entry.domain for entry in exotic.make().proto.opset_import}
        assert {node.domain for node in after.graph.node} <= standard
