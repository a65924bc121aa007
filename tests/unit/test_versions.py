"""Raising the opset changes how a model is written and nothing that it computes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.defs import OpSchema

from graphopt.errors import ModelError
from graphopt.ir.infer import infer
from graphopt.ir.load import load, model_from_proto
from graphopt.ir.model import Model
from graphopt.ir.save import model_to_proto
from graphopt.ir.text import parse
from graphopt.ir.versions import CHANGES, NEWEST, OLDEST, can_raise, raise_opset


def random_of(session: ort.InferenceSession, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Numbers for every input, symbolic sizes 3."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else 3 for size in node.shape]
        values = generator.normal(size=shape)
        feeds[node.name] = np.asarray(values).astype(bool if "bool" in node.type else np.float32)
    return feeds


def session_of(model: Model) -> ort.InferenceSession:
    infer(model)
    proto = model_to_proto(model)
    onnx.checker.check_model(proto)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_raised(before: Model, after: Model, version: int) -> None:
    assert after.opset == version
    assert {node.version for g in after.scopes() for node in g.ops() if not node.domain} == {version}
    old, new = session_of(before), session_of(after)
    feeds = random_of(old)
    for expected, found in zip(old.run(None, feeds), new.run(None, feeds), strict=True):
        assert expected.dtype == found.dtype
        assert expected.shape == found.shape
        assert expected.tobytes() == found.tobytes()


X = "(x: float32[B, 4, 6]) -> (y)"
MODELS = {
    "squeeze": "(x: float32[3, 1, 6, 1]) -> (y, z) { y = Squeeze(x, axes=[-1])  z = Squeeze(x) }",
    "unsqueeze": f"{X} {{ y = Unsqueeze(x, axes=[0, -1]) }}",
    "reduce": f"""{X} {{
      a = ReduceSum(x, axes=[1], keepdims=0)
      b = ReduceMean(x, axes=[-2], keepdims=0)
      c = ReduceMax(x)
      d = ReduceL2(x, axes=[0, 1])
      e = ReduceLogSumExp(x, axes=[2], keepdims=1)
      f = ReduceSum(x, keepdims=0)
      y = Add(Add(Add(a, b), Add(c, d)), Add(ReduceMax(e), f)) }}""",
    "reductions": f"""{X} {{
      a = Add(ReduceL1(x, axes=[1]), ReduceMin(x, axes=[1]))
      b = Add(ReduceProd(x, axes=[1]), ReduceSumSquare(x, axes=[1]))
      y = Add(Add(a, b), ReduceLogSum(Abs(x), axes=[1])) }}""",
    "softmax": f"{X} {{ y = Add(Softmax(x), Add(Softmax(x, axis=2), Softmax(x, axis=0))) }}",
    "softmax-negative": f"{X} {{ y = Add(Softmax(x, axis=-1), Add(LogSoftmax(x, axis=-2), Hardmax(x, axis=-3))) }}",
    "softmax-last": "(x: float32[B, 6]) -> (y) { y = Add(Softmax(x), LogSoftmax(x)) }",
    "softmax-output": f"{X} {{ y = Softmax(x) }}",
    "split": """(x: float32[B, 4, 6]) -> (y, z) {
      a, b = Split(x, axis=1, split=[1, 3])
      c, d = Split(x, axis=2)
      y = Concat(a, b, a, axis=1)
      z = Sub(c, d) }""",
    "dropout": f"{X} {{ y = Add(Dropout(x, ratio=0.3), Dropout(x)) }}",
    "normalization": f"""{X} {{
      v = float32[4] {{0.5, 1.5, 2.5, 3.5}}
      y = BatchNormalization(x, v, v, v, v, epsilon=0.01) }}""",
    "resize": """(x: float32[1, 2, 5, 4]) -> (y) {
      r = float32[0] {}
      a = Resize(x, r, float32[4] {1, 1, 2, 1.5}, mode="linear", coordinate_transformation_mode="align_corners")
      b = Resize(x, r, r, [1, 2, 10, 6], mode="nearest", nearest_mode="floor")
      y = Sub(a, b) }""",
    "pad-clip-topk": """(x: float32[B, 4, 6]) -> (y, i) {
      p = Pad(x, [0, 1, 0, 0, 0, 2], 0.5)
      y, i = TopK(Clip(p, -0.5, 0.5), [2], axis=-1) }""",
    "pools": """(x: float32[1, 2, 7, 7]) -> (y) {
      m = MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
      y = Sub(m, LpPool(x, kernel_shape=[3, 3], strides=[2, 2])) }""",
    "subgraph": """(c: bool[], x: float32[B, 4, 6]) -> (y) {
      h = Neg(x)
      y = If(c, then_branch=() -> (p) { p = ReduceMean(h, axes=[1]) },
                else_branch=() -> (q) { q = Unsqueeze(ReduceSum(h, axes=[1], keepdims=0), axes=[1]) }) }""",
    "function": """opset 11, my 1
      (x: float32[B, 4, 6]) -> (y: float32[B, 6]) { y = my.Mean(x) }
      function my.Mean (a) -> (b) { b = Softmax(ReduceMean(a, axes=[1], keepdims=0), axis=1) }""",
    "plain": f"{X} {{ y = Erf(Div(MatMul(x, Transpose(x, perm=[0, 2, 1])), 2.0)) }}",
}  # fmt: skip
LATER = {
    "dft-17": "opset 17 (x: float32[2, 8, 1]) -> (y) { y = DFT(x, axis=1) }",
    "dft-default-17": "opset 17 (x: float32[2, 8, 5, 1]) -> (y) { y = DFT(x, 4, onesided=0) }",
    "grid-16": """opset 16 (x: float32[1, 2, 5, 5], g: float32[1, 3, 3, 2]) -> (y) {
      y = Add(GridSample(x, g), Add(GridSample(x, g, mode="bicubic"), GridSample(x, g, mode="nearest"))) }""",
    "split-13": "opset 13 (x: float32[B, 6]) -> (y) { a, b = Split(x, axis=1)  y = Sub(a, b) }",
    "split-15": "opset 15 (x: float32[B, 6]) -> (y) { a, b = Split(x, [2, 4], axis=1)  y = Concat(b, a, axis=1) }",
    "reduce-17": "opset 17 (x: float32[B, 6]) -> (y) { y = Add(ReduceMean(x, axes=[1]), ReduceSum(x, [1])) }",
    "squeeze-14": "opset 14 (x: float32[B, 1, 6]) -> (y) { y = Unsqueeze(Squeeze(x, [1]), [0]) }",
    "norm-17": """opset 17 (x: float32[B, 6]) -> (y) {
      y = LayerNormalization(x, float32[6] random(1), float32[6] random(2)) }""",
}  # fmt: skip


@pytest.mark.parametrize("version", [13, 18, 24, 26])
@pytest.mark.parametrize("name", MODELS)
def test_raising_from_11_changes_no_number(name: str, version: int) -> None:
    text = MODELS[name]
    before, after = parse(text, opset=11), parse(text, opset=11)
    infer(after)
    assert can_raise(after, version) is None
    raise_opset(after, version)
    check_raised(before, after, version)


@pytest.mark.parametrize("name", LATER)
def test_raising_from_later_opsets_changes_no_number(name: str) -> None:
    before, after = parse(LATER[name]), parse(LATER[name])
    infer(after)
    raise_opset(after, 24)
    check_raised(before, after, 24)


def test_group_normalization_gets_a_scale_per_channel() -> None:
    text = """opset 18 (x: float32[B, 6, 4]) -> (y) {
      y = GroupNormalization(x, float32[3] {1, 2, 3}, float32[3] {4, 5, 6}, num_groups=3) }"""
    before, after = parse(text), parse(text)
    raise_opset(after, 21)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)}
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = []
    for model in (before, after):
        infer(model)
        # The checker refuses GroupNormalization-18, which opset 21 deprecated in hindsight; onnxruntime runs it.
        data = model_to_proto(model).SerializeToString()
        found.append(ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0])
    assert found[0].tobytes() == found[1].tobytes()


def test_roi_align_says_what_leaving_out_the_mode_meant() -> None:
    text = """(x: float32[1, 2, 5, 5]) -> (y) {
      y = RoiAlign(x, float32[1, 4] {0, 0, 3, 4}, [0], output_height=2, output_width=2) }"""
    before, after = parse(text, opset=11), parse(text, opset=11)
    raise_opset(after, 17)
    check_raised(before, after, 17)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("opset 10 (x: float32[4]) -> (y) { y = Neg(x) }", "opset 10 is older than 11"),
        ("opset 10, com.microsoft 1 (x: float32[2, 4], b: float32[4]) -> (y) { y = com.microsoft.BiasGelu(x, b) }",
         "opset 10 is older than 11"),
        ("opset 11 (x: float32[4]) -> (y, m) { y, m = Dropout(x) }", "mask"),
        ("opset 11 (x: float32[1, 1, 4, 4]) -> (y) { y = Resize(x, float32[0] {}, float32[4] 2.0, "
         "coordinate_transformation_mode=\"tf_half_pixel_for_nn\") }", "tf_half_pixel_for_nn"),
        ("opset 11 (x: float32[1, 4]) -> (y) { v = float32[4] 1.0  "
         "y, _, _ = BatchNormalization(x, v, v, v, v) }", None),
        ("opset 11 (x: float32[1, 4]) -> (y, m, n) { v = float32[4] 1.0  "
         "y, m, n = BatchNormalization(x, v, v, v, v) }", "training"),
        ("opset 11 (x: float32[4]) -> (y) { y = RandomNormalLike(x) }", "no kernel"),
        ("opset 18 (x: float32[B, C, 4]) -> (y) "
         "{ y = GroupNormalization(x, float32[2] 1.0, float32[2] 1.0, num_groups=2) }", "channels"),
        ("""opset 11, my 1 (x: float32[4]) -> (y) { y = my.F(x, axes=[0]) }
         function my.F (a, axes = @) -> (b) { b = ReduceSum(a, axes=@axes) }""", "'axes'"),
        ("""opset 11 (c: bool[], x: float32[4]) -> (y) {
         y = If(c, then_branch=() -> (p) { p, m = Dropout(x)  n = Not(m) }, else_branch=() -> (q) { q = Neg(x) }) }""",
         "mask"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_a_reason(text: str, reason: str | None) -> None:
    model = parse(text)
    before = model_to_proto(model)
    found = can_raise(model, 24)
    if reason is None:
        assert found is None
        return
    assert found is not None
    assert reason in found
    with pytest.raises(ModelError, match="GO047"):
        raise_opset(model, 24)
    assert model_to_proto(model) == before


def test_a_reason_names_the_node() -> None:
    model = parse("opset 11 (x: float32[4]) -> (y, m) { y, m = Dropout(x) }")
    assert str(can_raise(model, 24)).startswith("node 'y' (Dropout): ")
    model.graph.names["y"].node.name = "drop"
    assert str(can_raise(model, 24)).startswith("node 'drop' (Dropout): ")


def test_the_import_of_a_function_is_raised_with_the_model() -> None:
    model = load(model_to_proto(parse(MODELS["function"])))
    raise_opset(model, 24)
    (function,) = model_to_proto(model).functions
    assert {entry.domain: entry.version for entry in function.opset_import} == {"": 24, "my": 1}


def test_an_unknown_version_is_a_reason() -> None:
    assert can_raise(parse("(x: float32[4]) -> (y) { y = Neg(x) }"), NEWEST + 1) is not None


def test_nodes_and_models_that_are_newer_stay() -> None:
    model = parse("opset 11 (x: float32[B, 4]) -> (y) { y = Neg(x) }")
    graph = model.graph
    newer = graph.add_op("Gelu", [graph.outputs[0]], version=26)
    graph.set_input(graph.output, 0, newer.output)
    raise_opset(model, 20)
    assert [node.version for node in graph.ops()] == [20, 26]
    raise_opset(model, 13)
    assert model.opset == 20


def test_a_node_that_was_written_newer_is_raised_from_there() -> None:
    model = parse("opset 11 (x: float32[B, 4, 4]) -> (y) { y = Neg(x) }")
    graph = model.graph
    softmax = graph.add_op("Softmax", [graph.outputs[0]], {"axis": 1}, version=13)
    graph.set_input(graph.output, 0, softmax.output)
    raise_opset(model, 24)
    assert softmax.attrs == {"axis": 1}
    assert [node.op for node in graph.ops()] == ["Neg", "Softmax"]


@pytest.mark.parametrize("name", MODELS)
def test_raising_can_be_taken_back(name: str) -> None:
    model = parse(MODELS[name], opset=11)
    before = model_to_proto(model)
    with model.ledger.transaction() as transaction:
        raise_opset(model, 24)
        assert model_to_proto(model) != before
        transaction.rollback()
    assert model_to_proto(model) == before
    assert model.opset == 11


def test_names_survive() -> None:
    model = parse(f"{X} {{ h = Softmax(x)  y = Exp(h) }}", opset=11)
    raise_opset(model, 24)
    (reader,) = (node for node in model.graph.ops() if node.op == "Exp")
    assert reader.inputs[0] is not None
    assert (reader.inputs[0].name, reader.inputs[0].node.op) == ("h", "Reshape")


@pytest.mark.parametrize(("version", "ir_version"), [(13, 7), (20, 9), (24, 12), (26, 13)])
def test_the_ir_version_carries_the_opset(version: int, ir_version: int) -> None:
    model = parse("opset 11 (x: float32[B, 4]) -> (y) { y = Neg(x) }")
    model.proto.ir_version = 6
    raise_opset(model, version)
    assert model.proto.ir_version == ir_version
    model = parse("opset 11 (x: float32[B, 4]) -> (y) { y = Neg(x) }")
    model.proto.ir_version = 13
    raise_opset(model, version)
    assert model.proto.ir_version == 13


def test_constants_that_old_files_list_as_inputs_stay_constants() -> None:
    proto = model_to_proto(parse("opset 11 (x: float32[4]) -> (y) { w = float32[4] 2.0  y = Mul(x, w) }"))
    proto.ir_version = 3
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4]))
    model = load(proto)
    raise_opset(model, 24)
    written = model_to_proto(model)
    assert [info.name for info in written.graph.input] == ["x"]
    assert [tensor.name for tensor in written.graph.initializer] == ["w"]


def test_every_change_of_form_is_known() -> None:
    """Whatever takes an attribute, an operand or a default away between the oldest and the newest opset."""
    history: dict[str, list[OpSchema]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and schema.since_version <= NEWEST:
            history[schema.name].append(schema)
    for op, schemas in history.items():
        schemas.sort(key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(schemas):
            if new.since_version > OLDEST and not new.deprecated and not _carries_over(old, new):
                assert new.since_version in dict(CHANGES.get(op, ())), f"{op}-{new.since_version}"


def _carries_over(old: OpSchema, new: OpSchema) -> bool:
    """Whether every node in the form `old` means the same in the form `new`, as far as the schemas tell."""
    added = [operand.option for operand in new.inputs[len(old.inputs) :]]
    fewer = len(new.inputs) < len(old.inputs) or len(new.outputs) < len(old.outputs)
    same_defaults = all(
        name in new.attributes and new.attributes[name].default_value == attribute.default_value
        for name, attribute in old.attributes.items()
    )
    return same_defaults and not fewer and OpSchema.FormalParameterOption.Single not in added


def test_a_model_without_standard_operators_imports_them() -> None:
    """And does not when that is taken back."""
    model = parse("opset 20, own 1\n(x: float32[N]) -> (y) { y = own.Any(x) }")
    del model.opsets[""]
    with model.ledger.transaction() as transaction:
        raise_opset(model, 24)
        assert model.opsets == {"": 24, "own": 1}
        transaction.rollback()
    assert model.opsets == {"own": 1}


def test_constants_that_were_inputs_are_inputs_again_when_that_is_taken_back() -> None:
    model = parse("opset 11 (x: float32[2], w = float32[2] {1.0, 2.0}, y: float32[2]) -> (z) { z = Sum(x, w, y) }")
    proto = model_to_proto(model)
    proto.ir_version = 3
    model = model_from_proto(proto)
    before = list(model.graph.inputs)
    assert [node.op for node in before] == ["Input", "Constant", "Input"]
    with model.ledger.transaction() as transaction:
        raise_opset(model, 24)
        assert [node.op for node in model.graph.inputs] == ["Input", "Input"]
        transaction.rollback()
    assert model.graph.inputs == before
