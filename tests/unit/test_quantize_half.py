"""Half precision: what becomes float16, what stays, that the result loads, and that no number is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graphopt.ir import Model, Value, dtypes, model_to_proto, validate
from graphopt.ir.infer import infer
from graphopt.ir.tensor import Tensor
from graphopt.ir.text import parse
from graphopt.pipeline.optimize import optimize
from graphopt.quantize.half.convert import HalfReport, needed, to_half
from graphopt.quantize.half.reach import fit
from graphopt.quantize.half.target import native_halves
from graphopt.rewrite import find_rules
from graphopt.targets import target_named

Array = np.ndarray[Any, Any]
LOWEST = float(np.finfo(np.float32).min)

MLP = """
opset 17
(x: float32[B, 64]) -> (y) {
  w = float32[64, 64] random(1)
  h = Relu(MatMul(x, w))
  y = Add(MatMul(h, w), float32[64] random(2))
}
"""


def run(model: Model, *feeds: Array, optimized: bool = True) -> list[Array]:
    """The outputs of `model` as onnxruntime computes them."""
    infer(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model_to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, feeds, strict=True)))  # type: ignore[no-any-return]


def halved(text: str, **options: Any) -> tuple[Model, HalfReport]:
    """The model in half precision: valid, and with no type that inference would not find."""
    model = parse(text)
    report = to_half(model, **options)
    validate(model)
    again = {value.name: value.dtype for value in values(model)}
    model.ledger.forget()
    infer(model)
    assert {value.name: value.dtype for value in values(model)} == again
    return model, report


def values(model: Model) -> list[Value]:
    return [value for graph in model.scopes() for node in graph.ops() for value in node.outputs]


def same(text: str, *feeds: Array, tolerance: float = 2e-3, **options: Any) -> tuple[Model, HalfReport]:
    """`halved`, after a look that it gives the same numbers, without optimizations and with them."""
    expected = run(original := parse(text), *feeds, optimized=False)
    model, report = halved(text, **options)
    for optimized in (False, True):
        for a, b in zip(run(model, *feeds, optimized=optimized), expected, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert np.array_equal(np.isfinite(a), np.isfinite(b))
            known = np.isfinite(b)
            scale = np.linalg.norm(b[known].astype(np.float64))
            assert np.linalg.norm(a[known].astype(np.float64) - b[known]) <= tolerance * scale
    assert [v.name for v in model.graph.outputs] == [v.name for v in original.graph.outputs]
    return model, report


def of_ops(model: Model, op: str) -> list[int]:
    """The element types of the first results of all operations `op`."""
    return [node.output.dtype for graph in model.scopes() for node in graph.ops() if node.op == op]


def numbers(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def constants(model: Model) -> Counter[int]:
    return Counter(node.output.dtype for graph in model.scopes() for node in graph.sources("Constant"))


def test_weights_are_halves_and_the_interface_stays() -> None:
    model, report = same(MLP, numbers(3, 64))
    assert constants(model) == {dtypes.FLOAT16: 2}, "one copy of the weights that two products share"
    assert report.bytes_after * 2 == report.bytes_before
    assert (report.converted, report.casts, report.kept) == (4, 2, ())
    assert model.graph.inputs[0].output.dtype == model.graph.outputs[0].dtype == dtypes.FLOAT


def test_the_interface_is_half_on_demand() -> None:
    model, report = halved(MLP, keep_io=False)
    assert report.casts == 0
    proto = model_to_proto(model)
    kinds = [info.type.tensor_type.elem_type for info in (*proto.graph.input, *proto.graph.output)]
    assert kinds == [dtypes.FLOAT16, dtypes.FLOAT16]
    x = numbers(3, 64)
    (expected,), (y,) = run(parse(MLP), x), run(model, x.astype(np.float16))
    assert y.dtype == np.float16
    assert np.abs(y - expected).max() < 2e-3 * np.abs(expected).max()


def test_an_output_that_stays_float32_is_half_on_demand() -> None:
    model, _ = halved("opset 17 (x: float32[B, 4]) -> (y, x2) { y = Cos(x) x2 = Neg(x) }", keep_io=False)
    (cosine, negative) = run(model, np.array([[0, 1, 2, 3]], np.float16))
    assert cosine.dtype == negative.dtype == np.float16
    assert [value.name for value in model.graph.outputs] == ["y", "x2"]


def test_large_weights_are_computed_when_they_are_read() -> None:
    model = parse("opset 17 (x: float32[B, 512]) -> (y) { y = MatMul(x, float32[512, 512] random(1)) }")
    to_half(model)
    (weights,) = model.graph.sources("Constant")
    assert weights.data is not None
    assert weights.data.is_deferred


def test_what_is_kept_by_name() -> None:
    model, report = same(MLP, numbers(3, 64), keep={"y"})
    assert [(one.name, one.kind) for one in report.kept] == [("y", "asked")]
    assert of_ops(model, "Add") == [dtypes.FLOAT]


LARGE = """
opset 17
(x: float32[B, S, 64]) -> (logits) {
  stream = Mul(x, float32[64] random(9))
  big = Mul(Mul(stream, 300.0), 300.0)
  n = LayerNormalization(big, float32[64] random(1), float32[64] random(2))
  h = MatMul(Relu(MatMul(n, float32[64, 256] random(3))), float32[256, 64] random(4))
  r = Add(big, h)
  m = LayerNormalization(r, float32[64] random(5), float32[64] random(6))
  logits = MatMul(Mul(m, 200.0), Mul(float32[64, 1000] random(7), 60.0))
}
"""


def observed(text: str, feed: Array) -> dict[str, float]:
    """The largest |x| of every value that `needed` asks for."""
    model = parse(text)
    asked = [value for value in needed(model) if value.node.op != "Input"]
    names = [value.name for value in asked]
    for value in asked:
        if not model.graph.is_output(value):
            model.graph.add_slot(model.graph.output, value)
    outputs = [value.name for value in model.graph.outputs]
    seen = dict(zip(outputs, (float(np.abs(y).max()) for y in run(model, feed)), strict=True))
    return {name: seen[name] for name in names}


def test_large_activations_stay_in_float32_and_are_named() -> None:
    x = numbers(2, 8, 64)
    ranges = observed(LARGE, x)
    assert ranges["big"] > 1e5
    assert ranges["logits"] > 7e4
    model, report = same(LARGE, x, ranges=ranges)
    kept = {one.name: one.reason for one in report.overflowing}
    assert "reaches" in kept["r"]
    assert "reaches" in kept["n"]
    assert "logits" in kept
    assert of_ops(model, "LayerNormalization") == [dtypes.FLOAT, dtypes.FLOAT]
    assert of_ops(model, "MatMul").count(dtypes.FLOAT16) == 2, "those between the norms"
    assert report.bytes_after < 0.51 * report.bytes_before, "weights of products in float32 are halves in the file"


def test_without_ranges_values_are_taken_to_fit() -> None:
    _, report = halved(LARGE)
    assert "logits" not in {one.name for one in report.overflowing}


def test_an_observed_nan_keeps_float32() -> None:
    _, report = halved(MLP, ranges={"h": float("nan")})
    assert {(one.op, one.reason) for one in report.kept} == {
        ("Relu", "nothing bounds 'h'"),
        ("MatMul", "nothing bounds 'h'"),
    }


ATTENTION = """
opset 17, com.microsoft 1
(x: float32[2, 9, 64], mask: bool[2, 1, 1, 9]) -> (y) {{
  q = Transpose(Reshape(MatMul(x, float32[64, 64] random(1)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  k = Transpose(Reshape(MatMul(x, float32[64, 64] random(2)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  v = Transpose(Reshape(MatMul(x, float32[64, 64] random(3)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  bias = {bias}
  scores = Add(Mul(MatMul(q, Transpose(k, perm=[0, 1, 3, 2])), 0.25), bias)
  y = Reshape(Transpose(MatMul(Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3]), [0, 0, 64])
}}
"""
FILLS = {
    "lowest": f"Where(mask, 0.0, {LOWEST!r})",
    "of a billion": "Where(mask, 0.0, -1e9)",
    "infinite": "Where(mask, 0.0, -inf)",
    "multiplied": f"Mul(Sub(1.0, Cast(mask, to=float32)), {LOWEST!r})",
    "beside positions": f"Add(float32[1, 4, 9, 9] random(4), Where(mask, 0.0, {LOWEST!r}))",
    "twice": f"Add(Where(mask, 0.0, {LOWEST!r}), Where(mask, 0.0, -1e30))",
}


@pytest.mark.parametrize("fill", FILLS)
def test_masked_rows_stay_what_they_were(fill: str) -> None:
    text = ATTENTION.format(bias=FILLS[fill])
    x = numbers(2, 9, 64)
    mask = np.ones((2, 1, 1, 9), bool)
    mask[0, ..., :4] = False
    mask[1] = False
    (expected,) = run(parse(text), x, mask, optimized=False)
    model = parse(text)
    rules = find_rules().rules
    optimize(model, target=target_named("ort-cpu"), rules=[one for one in rules if one.stage != "lower"])
    assert of_ops(model, "Attention") == [dtypes.FLOAT], "the premise: attention was recovered"
    to_half(model)
    validate(model)
    assert of_ops(model, "Attention") == [dtypes.FLOAT16]
    optimize(model, target=target_named("ort-cpu"), rules=rules)
    for optimized in (False, True):
        (y,) = run(model, x, mask, optimized=optimized)
        assert np.array_equal(np.isnan(y), np.isnan(expected))
        assert np.nanmax(np.abs(y - expected)) < 0.01 * np.nanmax(np.abs(expected))


def test_attention_and_norms_run_in_half_precision(tmp_path: Path) -> None:
    """onnxruntime's profile says of what type the operands of each kernel were."""
    text = ATTENTION.replace("y = Reshape", "a = Reshape").replace(
        "[0, 0, 64])\n}}", "[0, 0, 64])\n  y = LayerNormalization(a, float32[64] random(5))\n}}"
    )
    model = parse(text.format(bias=FILLS["lowest"]))
    target, rules = native_halves(target_named("ort-cpu")), find_rules().rules
    optimize(model, target=target, rules=[one for one in rules if one.stage != "lower"])
    to_half(model)
    optimize(model, target=target, rules=rules)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(model_to_proto(model).SerializeToString(), options)
    session.run(None, {"x": numbers(2, 9, 64), "mask": np.ones((2, 1, 1, 9), bool)})
    events = json.loads(Path(session.end_profiling()).read_text())
    kinds = {event["args"]["op_name"]: event["args"]["input_type_shape"] for event in events if event["cat"] == "Node"}
    for op in ("Attention", "LayerNormalization"):
        assert {kind for operand in kinds[op] for kind in operand} == {"float16"}


def test_slow_native_kernels_stay_slow() -> None:
    before, after = target_named("ort-cpu"), native_halves(target_named("ort-cpu"))
    assert not before.has("", "Attention", dtype="float16", elements=1)
    assert after.has("", "Attention", dtype="float16", elements=1)
    assert not after.has("com.microsoft", "SkipLayerNormalization", dtype="float16", elements=1)
    assert after.has("", "Attention", dtype="float32") == before.has("", "Attention", dtype="float32")


def test_a_given_mask_may_hold_anything() -> None:
    text = ATTENTION.format(bias="Identity(mask)").replace("mask: bool", "mask: float32")
    model = parse(text)
    rules = find_rules().rules
    optimize(model, target=target_named("ort-cpu"), rules=[one for one in rules if one.stage != "lower"])
    to_half(model, ranges={"mask": 0.0})
    optimize(model, target=target_named("ort-cpu"), rules=rules)
    x, mask = numbers(2, 9, 64), np.zeros((2, 1, 1, 9), np.float32)
    mask[0, ..., 3:] = mask[1] = LOWEST
    (expected,), (y,) = run(parse(text), x, mask, optimized=False), run(model, x, mask, optimized=False)
    assert np.abs(y - expected).max() < 0.01 * np.abs(expected).max()


def test_softmax_that_is_no_attention_keeps_its_mask() -> None:
    text = f"""
    opset 17
    (x: float32[2, 8], mask: bool[2, 8]) -> (y) {{ y = Softmax(Add(Mul(x, 2.0), Where(mask, 0.0, {LOWEST!r}))) }}
    """
    mask = np.zeros((2, 8), bool)
    mask[0, 3:] = True
    _, report = same(text, numbers(2, 8), mask)
    assert {one.op for one in report.overflowing} >= {"Add", "Softmax"}


def test_a_number_that_vanishes_keeps_what_divides_by_it() -> None:
    text = """
    opset 17
    (x: float32[2, 8]) -> (y, z) {
      y = Div(x, Sqrt(Add(ReduceMean(Mul(x, x), axes=[-1], keepdims=1), 1e-12)))
      z = Log(Max(x, 1e-30))
    }
    """
    x = np.zeros((2, 8), np.float32)
    x[1] = numbers(8, scale=300)
    _, report = same(text, x)
    assert "Div" in {one.op for one in report.overflowing}


def test_angles_are_exact() -> None:
    text = """
    opset 17
    (x: float32[1, 300, 8], position: int64[1, 300]) -> (y) {
      f = Mul(Unsqueeze(Cast(position, to=float32), [2]), float32[8] {1, 0.7, 0.5, 0.3, 0.1, 0.07, 0.01, 0.001})
      y = Add(Mul(x, Cos(f)), Mul(Neg(x), Sin(f)))
    }
    """
    position = 20_000 + np.arange(300).reshape(1, 300)
    model, report = same(text, numbers(1, 300, 8), position)
    assert {one.kind for one in report.kept} == {"angle"}
    assert of_ops(model, "Add") == [dtypes.FLOAT16]


def test_sums_of_many_numbers() -> None:
    text = """
    opset 18
    (x: float32[1, 3, 64, 64]) -> (a, b, c) {
      a = GlobalAveragePool(x)
      b = Div(ReduceSum(x, [1, 2, 3]), 4096.0)
      c = Neg(ReduceL2(x, [1, 2, 3]))
    }
    """
    same(text, np.abs(numbers(1, 3, 64, 64, scale=255)))


OPERATORS = {
    "resize": 'y = Resize(x, _, float32[4] {1, 1, 2, 2}, mode="nearest")',
    "sums along": "y = Mul(CumSum(x, 2), x)",
    "shapes": "y = Expand(ReduceMax(x, axes=[2], keepdims=1), Cast(Mul(Cast(Shape(x), to=float32), 1.0), to=int64))",
    "casts": "y = Mul(Cast(Cast(x, to=int32), to=float32), x)",
    "filled": "y = Mul(Sub(x, ConstantOfShape([1], value=float32[1] 2.5)), x)",
    "filled with much": "y = Min(Mul(x, 2.0), ConstantOfShape([1], value=float32[1] 1e20))",
    "compared": "y = Where(Greater(x, 0.5), x, Neg(x))",
    "normed": "y = BatchNormalization(x, *)".replace("*", ", ".join(f"float32[3] {n}.5" for n in (1, 2, 0, 3))),
    "of a list": "y = Identity(SequenceAt(SequenceConstruct(x, Neg(x)), 1))",
    "as steps": "y = Mul(x, DequantizeLinear(QuantizeLinear(x, 0.05), 0.05))",
    "scattered": 'y = ScatterND(x, int64[1, 1] {0}, Neg(x), reduction="add")',
    "range": "y = Add(x, Unsqueeze(Range(0.0, 5.0, 1.0), [0]))",
    "texts": 'y = Mul(x, Cast(Reshape(string[1] {"2.5"}, [1]), to=float32))',
    "doubles": "y = Cast(Mul(Cast(x, to=float64), float64 3.0), to=float32)",
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_load_and_agree(operator: str) -> None:
    text = f"opset 16 (x: float32[1, 3, 5, 5]) -> (y: float32[1, 3, 5, 5]) {{ {OPERATORS[operator]} }}"
    same(text, numbers(1, 3, 5, 5))


def test_random_numbers_keep_their_type() -> None:
    text = "opset 17 (x: float32[4, 4]) -> (y) { y = Mul(Neg(x), RandomNormalLike(x, seed=1.0)) }"
    model, _ = halved(text)
    assert of_ops(model, "RandomNormalLike") == [dtypes.FLOAT]
    assert run(model, numbers(4, 4))[0].dtype == np.float32


def test_scopes_agree_with_what_holds_them() -> None:
    text = """
    opset 17
    (x: float32[4, 4], c: bool[], n: int64[]) -> (y, z, all) {
      w = float32[4, 4] random(1)
      h = MatMul(x, w)
      y = If(c, then_branch=() -> (p) { p = Neg(MatMul(h, w)) }, else_branch=() -> (q) { q = Cos(h) })
      z, all = Loop(n, c, h, body=(i: int64[], go: bool[], s: float32[4, 4]) -> (go2, t, u) {
        go2 = Identity(go)
        t = MatMul(Tanh(s), w)
        u = Add(t, h)
      })
    }
    """
    for branch in (True, False):
        model, _ = same(text, numbers(4, 4), np.array(branch), np.array(3))
    assert constants(model)[dtypes.FLOAT16] == 1, "one copy for all scopes"
    assert of_ops(model, "MatMul") == [dtypes.FLOAT16] * 3


def test_a_model_of_halves_stays_as_it_is() -> None:
    text = """
    opset 17
    (x: float16[B, 8]) -> (y) {
      wide = Cast(x, to=float32)
      n = Mul(wide, Div(1.0, Sqrt(Add(ReduceMean(Mul(wide, wide), axes=[-1], keepdims=1), 1e-6))))
      y = MatMul(Cast(n, to=float16), float16[8, 8] random(1))
    }
    """
    _, report = same(text, numbers(3, 8).astype(np.float16))
    assert report.converted == 0
    assert {one.kind for one in report.kept} == {"widened"}


def test_a_cast_that_says_nothing_goes() -> None:
    model, _ = same("opset 17 (x: float32[B, 8]) -> (y) { y = Neg(Cast(Neg(x), to=float32)) }", numbers(3, 8))
    assert of_ops(model, "Cast") == [dtypes.FLOAT16, dtypes.FLOAT], "one at each end"


def test_bfloat16_stays() -> None:
    text = "opset 17 (x: float32[B, 8]) -> (y) { y = Cast(Cast(Neg(x), to=bfloat16), to=float32) }"
    model, _ = same(text, numbers(3, 8), tolerance=1e-2)
    assert dtypes.BFLOAT16 in {value.dtype for value in values(model)}


@pytest.mark.parametrize(
    ("array", "vanished", "fits"),
    [
        ([1.0, -2.0, np.inf], 0, True),
        ([1.0, 1e-9, 0.0], 1, True),
        ([1e-9, 1e-12], 2, False),
        ([1.0, 65504.0], 0, True),
        ([1.0, -7e4], 0, False),
        ([1e-7, 3e-8], 0, False),
        ([], 0, True),
    ],
)
def test_weights_that_do_not_fit(array: list[float], vanished: int, fits: bool) -> None:
    found = fit(Tensor.of(np.array(array, np.float32)))
    assert (found.vanished, not found.reason) == (vanished, fits)


def test_vanished_weights_are_counted() -> None:
    model = parse("opset 17 (x: float32[2]) -> (y) { y = Mul(x, float32[2] {1.0, 1e-9}) }")
    assert to_half(model).vanished == 1


def test_what_calibration_has_to_look_at() -> None:
    text = """
    opset 17
    (x: float32[B, 8], ids: int64[B]) -> (y) {
      h = MatMul(x, float32[8, 8] random(1))
      t = Transpose(h, perm=[1, 0])
      s = Softmax(t)
      y = Exp(Mul(h, Unsqueeze(Cast(ids, to=float32), [1])))
    }
    """
    model = parse(text)
    names = [value.name for value in needed(model)]
    assert names[:2] == ["x", "h"]
    assert "y" in names
    assert {"t", "s"}.isdisjoint(names)


def test_products_of_transposed_halves_load() -> None:
    text = """
    opset 17
    (x: float32[4, 6, 8]) -> (y) {
      n = LayerNormalization(x, float32[8] random(1), float32[8] random(2))
      y = MatMul(Transpose(n, perm=[1, 0, 2]), float32[8, 8] random(3))
    }
    """
    x = numbers(4, 6, 8)
    (expected,) = run(parse(text), x)
    model, _ = halved(text)
    optimize(model, target=target_named("ort-cpu"), rules=find_rules().rules)
    assert np.abs(run(model, x)[0] - expected).max() < 0.01


def test_narrow_numbers_are_rounded_as_numpy_does() -> None:
    model = parse("opset 17 (x: float32[3]) -> (y) { y = Mul(x, float32[3] {0.1, 1e-7, 6e4}) }")
    to_half(model)
    (constant,) = model.graph.sources("Constant")
    assert constant.data is not None
    assert constant.data.numpy().tolist() == np.array([0.1, 1e-7, 6e4], np.float16).tolist()
