"""Fused operators: body, reference and parts are one function, in every opset and type; who gets which body."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from graphopt.ir import Model, dtypes, model_from_proto, model_to_proto, save, validate
from graphopt.ir.bodies import oldest_opset, settle_opset
from graphopt.ir.fused import DOMAIN, fused_ops
from graphopt.ir.infer import infer
from graphopt.ir.text import parse, to_text
from graphopt.ir.versions import NEWEST
from graphopt.pipeline.meanings import count_meanings, count_ops
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Builder, Expr, Ops, Rule, Value, built_in_rules
from graphopt.targets import target_named, with_functions
from graphopt.testing import assert_unchanged

Arrays = dict[str, np.ndarray[Any, Any]]

OPSETS = (11, 12, 13, 15, 17, 18, 20, 22, 24, NEWEST)
TOLERANCE = {"float32": 1e-5, "float16": 4e-3}


@dataclass(frozen=True)
class Example:
    """Sizes of the operands of an operator, and the same in standard operators of opset 20."""

    op: str
    operands: dict[str, tuple[int, ...]]
    parts: str
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def call(self) -> str:
        given = [f"{name}={value!r}".replace("'", '"') for name, value in self.attributes.items()]
        return f"{DOMAIN}.{self.op}({', '.join([*self.operands, *given])})"

    def model(self, opset: int, dtype: str, result: str = "") -> Model:
        params = ", ".join(f"{name}: {dtype}{list(shape)}" for name, shape in self.operands.items())
        model = parse(f"opset {opset}\n({params}) -> (y) {{ y = {result or self.call} }}")
        infer(model)
        return model

    def feeds(self, dtype: str) -> Arrays:
        random = np.random.default_rng(0)
        feeds = {name: random.standard_normal(shape).astype(dtype) for name, shape in self.operands.items()}
        for name, array in feeds.items():
            # Far and near, and numbers without a sign; rows whose squares leave float16.
            array.flat[0] = 0.0
            feeds[name] = array * np.array(200 if name == "x" and self.op == "FusedLayerNormMatMul" else 1, dtype)
        return feeds

    def reference(self, feeds: Arrays) -> np.ndarray[Any, Any]:
        exact = [array.astype(np.float64) for array in feeds.values()]
        return np.asarray(fused_ops()[self.op].reference(*exact, **self.attributes))


_GELU = {"x": (2, 3, 8), "w": (8, 5), "b": (5,)}
_NORM = {"x": (2, 3, 8), "g": (8,), "b": (8,), "w": (8, 5)}
EXAMPLES = [
    Example("FusedMatMulAddGelu", _GELU, "Gelu(Add(MatMul(x, w), b))"),
    Example("FusedMatMulAddGelu", {**_GELU, "x": (8,)}, "Gelu(Add(MatMul(x, w), b))"),
    Example(
        "FusedMatMulAddGelu",
        _GELU,
        'Gelu(Add(MatMul(x, w), b), approximate="tanh")',
        {"approximate": "tanh"},
    ),
    Example("FusedLayerNormMatMul", _NORM, "MatMul(LayerNormalization(x, g, b), w)"),
    Example(
        "FusedLayerNormMatMul",
        {**_NORM, "x": (8,)},
        "MatMul(LayerNormalization(x, g, b, epsilon=3.0), w)",
        {"epsilon": 3.0},
    ),
]
LAYER = """(x: float32[N, 8]) -> (y) {
  y = Gelu(Add(MatMul(x, float32[8, 5] random(1)), float32[5] random(2)), approximate="none")
}"""
BLOCK = """(x: float32[N, 8]) -> (y, z) {
  n = LayerNormalization(x, float32[8] random(1), float32[8] random(2))
  h = Gelu(Add(MatMul(n, float32[8, 5] random(3)), float32[5] random(4)))
  y = Gelu(Add(MatMul(h, float32[5, 5] random(5)), float32[5] random(6)), approximate="tanh")
  z = MatMul(LayerNormalization(Abs(y), float32[5] random(7)), float32[5, 3] random(8))
}"""


def run(model: Model, feeds: Arrays, optimized: bool) -> np.ndarray[Any, Any]:
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    data = model_to_proto(model).SerializeToString()
    (found,) = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    return np.asarray(found)


def fused(text: str, opset: int, keep_opset: bool = False, target: str = "ort-cpu") -> Model:
    model = parse(text, opset=opset)
    optimize(model, target=with_functions(target_named(target)), rules=built_in_rules(), keep_opset=keep_opset)
    validate(model)
    return model


def functions(model: Model) -> dict[str, list[str]]:
    """The operators in each function, by its name."""
    return {name: [node.op for node in f.graph.ops()] for (_, name, _), f in model.functions.items()}


# ---- what they compute -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.call}-{len(e.operands['x'])}")
def test_body_reference_and_parts_are_one_function(example: Example, dtype: str) -> None:
    feeds = example.feeds(dtype)
    wanted = example.reference(feeds)
    tolerance = TOLERANCE[dtype] * np.abs(wanted).max()
    parts = example.model(20, dtype, example.parts)
    np.testing.assert_allclose(run(parts, feeds, False), wanted, atol=tolerance, rtol=0)
    oldest = fused_ops()[example.op].oldest(example.attributes, dtype)
    assert oldest is not None
    for opset in (opset for opset in OPSETS if opset >= oldest):
        model = example.model(opset, dtype)
        settle_opset(model)
        assert model.opset == opset
        proto = model_to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        found = [run(model, feeds, False), run(model, feeds, True)]
        # onnx computes float16 in float16, and knows Gelu only where it knows its type.
        plain = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(proto))
        found += [np.asarray(y) for y in ReferenceEvaluator(plain).run(None, feeds)] if dtype == "float32" else []
        for y in found:
            assert y.dtype == dtype
            np.testing.assert_allclose(y, wanted, atol=tolerance, rtol=0, err_msg=f"opset {opset}")


def test_every_operator_has_an_example() -> None:
    assert {example.op for example in EXAMPLES} == fused_ops().keys()


def test_a_newer_body_takes_what_an_older_one_takes() -> None:
    for op in fused_ops().values():
        assert [body.opset for body in op.bodies] == sorted({body.opset for body in op.bodies})
        for older, newer in zip(op.bodies, op.bodies[1:], strict=False):
            assert older.attributes <= newer.attributes
            assert set(older.types) <= set(newer.types)
        assert op.bodies[-1].attributes == op.attributes.keys()


# ---- which body a model gets -----------------------------------------------------------------------------------------


def test_a_model_is_raised_to_the_body_that_runs_best() -> None:
    assert functions(fused(LAYER, opset=17)) == {"FusedMatMulAddGelu": ["MatMul", "Add", "Gelu"]}
    assert fused(LAYER, opset=17).opset == 20
    assert fused(LAYER, opset=23).opset == 23


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_an_opset_that_must_stay_has_its_own_body(opset: int) -> None:
    model = fused(LAYER, opset, keep_opset=True)
    assert model.opset == opset
    assert ("Erf" in functions(model)["FusedMatMulAddGelu"]) == (opset < 20)
    assert model.proto.ir_version >= 8
    onnx.checker.check_model(model_to_proto(model), full_check=True)


def test_functions_are_written_once_each_and_only_those_used() -> None:
    model = fused(BLOCK, opset=17)
    assert sorted(functions(model)) == ["FusedLayerNormMatMul", "FusedMatMulAddGelu"]
    assert count_ops(model)[f"{DOMAIN}.FusedMatMulAddGelu"] == 2
    assert count_meanings(count_ops(model)) == {"Gelu": 2, "LayerNormalization": 2}


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize(("opset", "keep"), [(11, False), (17, False), (20, False), (20, True), (23, True)])
def test_fusing_a_fused_model_changes_nothing(opset: int, keep: bool, target: str) -> None:
    once = model_to_proto(fused(BLOCK, opset, keep, target)).SerializeToString()
    again = model_from_proto(onnx.load_model_from_string(once))
    optimize(again, target=with_functions(target_named(target)), rules=built_in_rules(), keep_opset=keep)
    assert model_to_proto(again).SerializeToString() == once


def test_the_body_follows_the_opset() -> None:
    old = fused(LAYER, opset=13, keep_opset=True)
    again = model_from_proto(model_to_proto(old))
    optimize(again, target=target_named("ort-cpu"), rules=())
    assert again.opset == 20
    assert functions(again) == {"FusedMatMulAddGelu": ["MatMul", "Add", "Gelu"]}


def test_a_function_that_says_something_else_stays_and_is_not_called() -> None:
    foreign = f"\nfunction {DOMAIN}.FusedMatMulAddGelu(x, w, b) -> (y) {{ y = Add(MatMul(x, w), b) }}"
    model = fused(LAYER + foreign, opset=20)
    assert functions(model) == {"FusedMatMulAddGelu": ["MatMul", "Add"]}
    assert count_ops(model)["Gelu"] == 1


def test_a_table_that_lists_the_kernel_is_enough(tmp_path: Path) -> None:
    table = f'{{"name": "t", "opset": 20, "provider": "cpu", "kernels": [{{"domain": "{DOMAIN}", "op": "OP"}}]}}'
    (tmp_path / "t.json").write_text(table.replace("OP", "FusedMatMulAddGelu"))
    model = parse(LAYER, opset=20)
    optimize(model, target=target_named(str(tmp_path / "t.json")), rules=built_in_rules())
    assert sorted(functions(model)) == ["FusedMatMulAddGelu"]
    (tmp_path / "t.json").write_text(table.replace('"OP"', '"FusedMatMulAddGelu", "cost": 2.0'))
    slow = target_named(str(tmp_path / "t.json"))
    assert not with_functions(slow).has(DOMAIN, "FusedMatMulAddGelu")


# ---- what is known of them -------------------------------------------------------------------------------------------


def test_types_and_shapes_follow_from_the_body() -> None:
    text = f"""(x: float16[B, 2*S + 1, 8], w: float16[8, 5], b: float16[5], g: float16[5], k: float16[5, M]) -> (z) {{
      y = {DOMAIN}.FusedMatMulAddGelu(x, w, b)
      z = {DOMAIN}.FusedLayerNormMatMul(y, g, g, k)
    }}"""
    model = parse(text)
    infer(model)
    x, k = model.graph.names["x"].shape, model.graph.names["k"].shape
    assert x is not None
    assert k is not None
    found = [(value.dtype, value.shape) for node in model.graph.ops() for value in node.outputs]
    assert found == [(dtypes.FLOAT16, (*x[:2], 5)), (dtypes.FLOAT16, (*x[:2], k[1]))]


@pytest.mark.parametrize(
    ("call", "oldest"),
    [
        ("FusedMatMulAddGelu(x, w, b)", 11),
        ('FusedMatMulAddGelu(x, w, b, approximate="none")', 11),
        ('FusedMatMulAddGelu(x, w, b, approximate="tanh")', 20),
        ("FusedMatMulAddGelu(x, w, b, other=1)", None),
        ("FusedLayerNormMatMul(x, b, b, w, epsilon=0.1)", 15),
        ("FusedMatMul(x, w, b)", None),
    ],
)
def test_the_oldest_opset_of_a_call(call: str, oldest: int | None) -> None:
    model = parse(f"(x: float16[2, 8], w: float16[8, 5], b: float16[5]) -> (y) {{ y = {DOMAIN}.{call} }}")
    assert [oldest_opset(node) for node in model.graph.ops()] == [oldest]
    settle_opset(model)
    assert bool(model.functions) == (oldest is not None)


class _Wrong(Rule):
    """A rule that writes an operator as it is not."""

    stage = "lower"

    def pattern(self, op: Ops, x: Value, w: Value) -> Expr:
        return op.MatMul(x, w)

    def rewrite(self, op: Builder, x: Value, w: Value) -> Value:
        return op.FusedMatMulAddGelu(x, w, domain=DOMAIN)


class _Misspelled(_Wrong):
    """The same, by a name that no operator has."""

    def rewrite(self, op: Builder, x: Value, w: Value) -> Value:
        return op.FusedMatMulAddGelo(x, w, x, domain=DOMAIN)


class _Float64(_Wrong):
    """The same, in a type without a body."""

    def rewrite(self, op: Builder, x: Value, w: Value) -> Value:
        x, w = op.Cast(x, to=dtypes.DOUBLE), op.Cast(w, to=dtypes.DOUBLE)
        return op.Cast(op.FusedMatMulAddGelu(x, w, op.Cast(op.const([0.5]), to=dtypes.DOUBLE), domain=DOMAIN), to=1)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (_Wrong, "takes 3 operands: x, w, b"),
        (_Misspelled, "no operator is called 'ai.graphopt.FusedMatMulAddGelo'"),
        (_Float64, "takes operands of one type: float32 or float16"),
    ],
)
def test_a_rule_that_writes_one_wrongly_is_named(rule: type[Rule], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        assert_unchanged("(x: float32[2, 8], w: float32[8, 5]) -> (y) { y = MatMul(x, w) }", rule)


def test_the_text_form_has_the_functions(tmp_path: Path) -> None:
    text = to_text(fused(LAYER, opset=20))
    assert to_text(parse(text)) == text
    save(parse(text), tmp_path / "model.onnx")
    ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
