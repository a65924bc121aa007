"""Every operator that folding evaluates gives, bit for bit, what onnxruntime gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from graphopt.ir import dtypes
from graphopt.ir.load import load
from graphopt.passes import evaluate, fold_constants

Case = tuple[str, list[Any], dict[str, Any], int]

ort.set_default_logger_severity(4)
RANDOM = np.random.default_rng(5)
WIDE = (RANDOM.normal(size=64) * 10.0 ** RANDOM.integers(-6, 7, 64)).reshape(8, 8)
SMALL = RANDOM.integers(-9, 10, (8, 8))
SHAPED = np.arange(120).reshape(2, 3, 4, 5)


def arithmetic() -> Iterator[Case]:
    divisors = np.where(SMALL == 0, 3, SMALL)[::-1]
    for op in ("Add", "Sub", "Mul", "Div"):
        for dtype in (np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8):
            a, b = (WIDE, WIDE.T) if np.issubdtype(dtype, np.floating) else (SMALL, divisors)
            yield op, [a.astype(dtype), b.astype(dtype)], {}, 14
            yield op, [a.astype(dtype), b[:1].astype(dtype)], {}, 14
    yield "Add", [np.array([2**31 - 1], np.int32), np.array([1], np.int32)], {}, 14
    for dtype in (np.float32, np.float64):
        yield "Sqrt", [abs(WIDE).astype(dtype)], {}, 13
        yield "Neg", [WIDE.astype(dtype)], {}, 13
        for exponent in (1, 2, 3):
            yield "Pow", [WIDE.astype(dtype), dtype(exponent)], {}, 15
    yield "Pow", [SMALL, np.float32(2)], {}, 15
    yield "Neg", [SMALL], {}, 13


def comparisons() -> Iterator[Case]:
    special = np.array([[0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 2.0]], np.float32)
    for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
        yield op, [special, special.T.copy()], {}, 19
        yield op, [SMALL, SMALL.T.copy()], {}, 19
    for op in ("And", "Or"):
        yield op, [SMALL > 0, SMALL.T > 1], {}, 13
    yield "Not", [SMALL > 0], {}, 13
    for op in ("Max", "Min"):
        yield op, [SMALL, SMALL.T.copy(), SMALL[:1]], {}, 13
        yield op, [WIDE.astype(np.float32), WIDE.T.astype(np.float32)], {}, 13
    yield "Where", [SMALL > 0, WIDE.astype(np.float32), np.float32(-1e9)], {}, 16


def casts() -> Iterator[Case]:
    numeric = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")
    for source, target in itertools.product(numeric, numeric):
        values = SMALL if target != "uint8" and source != "uint8" else abs(SMALL)
        to = dtypes.NUMBERS[target]
        yield "Cast", [values.astype(ml_dtypes.bfloat16 if source == "bfloat16" else source)], {"to": to}, 19
    for source, target in itertools.product(("float32", "float64"), ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")):
        to = onnx.TensorProto.DataType.Value(target)
        yield "Cast", [(WIDE if source == "float32" else WIDE.astype(np.float32)).astype(source)], {"to": to}, 19
    yield "Cast", [np.array([2.9, -2.9, 1e9], np.float32)], {"to": onnx.TensorProto.INT64}, 19
    yield "Cast", [np.array([2**40 + 7, -1])], {"to": onnx.TensorProto.INT32}, 19


def places() -> Iterator[Case]:
    for perm in ([3, 1, 0, 2], [0, 2, 3, 1], None):
        yield "Transpose", [SHAPED], {} if perm is None else {"perm": perm}, 13
    for target in ([0, -1], [4, 0, 10], [-1], [2, 3, 20, 1]):
        yield "Reshape", [SHAPED, np.array(target)], {}, 14
    yield "Reshape", [SHAPED[:, :0], np.array([0, 7])], {"allowzero": 1}, 14
    yield "Squeeze", [SHAPED[:1, :, :1]], {}, 13
    yield "Squeeze", [SHAPED[:1, :, :1], np.array([-2])], {}, 13
    yield "Squeeze", [SHAPED[:1, :, :1]], {"axes": [0]}, 11
    yield "Unsqueeze", [SHAPED, np.array([0, -1, 3])], {}, 13
    yield "Unsqueeze", [SHAPED], {"axes": [1, 5]}, 11
    yield "Concat", [SHAPED, SHAPED[:, :1], SHAPED], {"axis": 1}, 13
    yield "Concat", [SHAPED, SHAPED], {"axis": -1}, 13
    for axis in (0, 2, -1):
        yield "Gather", [SHAPED, np.array([[1, 0], [-1, -2]])], {"axis": axis}, 13
    yield "Gather", [SHAPED, np.array(1)], {}, 13
    huge = np.iinfo(np.int64).max
    for start, end, axis, step in itertools.product(
        (0, 1, -2, 9, -9), (3, -1, huge, -huge, 0), (1, -1), (1, 2, -1, -2)
    ):
        if step > 0 or end != huge:
            yield "Slice", [SHAPED, *map(np.array, ([start], [end], [axis], [step]))], {}, 13
    yield "Slice", [SHAPED, np.array([1, 2]), np.array([2, 4])], {}, 13
    yield "Slice", [SHAPED], {"starts": [1, 0], "ends": [9, -1], "axes": [3, 1]}, 9
    yield "Expand", [SHAPED[:, :1], np.array([3, 1, 1])], {}, 13
    yield "Expand", [SHAPED[:1], np.array([6, 2, 1, 1, 1])], {}, 13
    for start, end in ((0, 4), (1, -1), (-2, 9), (-9, 2)):
        yield "Shape", [SHAPED], {"start": start, "end": end}, 15
    yield "ConstantOfShape", [np.array([2, 0, 3])], {}, 20
    filled = onnx.numpy_helper.from_array(np.array([7], np.int32))
    yield "ConstantOfShape", [np.array([2, 3])], {"value": filled}, 20
    for start, end, step in ((0, 10, 3), (10, 0, -3), (5, 5, 1), (5, 0, 1), (-3, 4, 7)):
        yield "Range", list(map(np.array, (start, end, step))), {}, 11
    for dtype in (np.float32, np.float64):
        for bounds in ((0.5, 8.0, 1.0), (0.0, 2.0, 0.25), (1.0, -1.0, -0.5), (0.0, 1.0, -1.0), (0.0, 0.75, 0.5)):
            yield "Range", [np.array(bound, dtype) for bound in bounds], {}, 11


def rarer() -> Iterator[Case]:
    for dtype in (np.float32, np.float64):
        for op in ("Abs", "Ceil", "Floor"):
            yield op, [WIDE.astype(dtype)], {}, 13
        yield "Relu", [WIDE.astype(dtype)], {}, 14
    yield "Abs", [SMALL], {}, 13
    yield "IsNaN", [np.array([0.0, np.nan, np.inf], np.float32)], {}, 20
    for positive, negative in ((1, 1), (1, 0), (0, 1)):
        detected = {"detect_positive": positive, "detect_negative": negative}
        yield "IsInf", [np.array([0.0, np.nan, np.inf, -np.inf, 1e38], np.float32)], detected, 20
    yield "Xor", [SMALL > 0, SMALL.T > 1], {}, 7
    yield "Mod", [SMALL, np.where(SMALL == 0, 4, SMALL)[::-1].copy()], {}, 13
    yield "Mod", [SMALL.astype(np.int32), np.array([3], np.int32)], {}, 13
    yield "Size", [SHAPED], {}, 13
    for axis in (0, 1, 2, 4, -1):
        yield "Flatten", [SHAPED], {"axis": axis}, 13
    yield "Tile", [SHAPED, np.array([1, 2, 1, 3])], {}, 13
    for offset, upper in ((0, 1), (1, 1), (-1, 0), (2, 0)):
        yield "Trilu", [SMALL, np.array(offset)], {"upper": upper}, 14
    yield "Trilu", [np.ones((4, 6), np.float32)], {}, 14
    yield "CumSum", [SMALL, np.array(1)], {}, 14
    yield "CumSum", [SMALL.astype(np.int32), np.array(-2)], {}, 14
    for op, opset in (("ReduceMax", 20), ("ReduceMin", 20), ("ReduceProd", 18), ("ReduceSum", 13)):
        yield op, [SHAPED % 7 + 1, np.array([1, -1])], {"keepdims": 0}, opset
        yield op, [SHAPED[:1, :1] % 7 + 1], {}, opset
    yield "ReduceSum", [SHAPED], {"axes": [2]}, 11
    halves = (np.arange(64, dtype=np.float32).reshape(8, 8) - 30) * np.float32(0.05)
    for x, kind in itertools.product((WIDE.astype(np.float32), halves), (np.int8, np.uint8)):
        yield "QuantizeLinear", [x, np.float32(0.1), kind(3)], {}, 10
        for axis in (0, 1, -1):
            scales = np.linspace(0.01, 7, 8, dtype=np.float32)
            yield "QuantizeLinear", [x, scales, np.arange(8).astype(kind)], {"axis": axis}, 13
    yield "QuantizeLinear", [halves, np.float32(0.1)], {}, 13


with np.errstate(over="ignore"):
    CASES = [*arithmetic(), *comparisons(), *casts(), *places(), *rarer()]


def model_of(op: str, arrays: list[Any], attrs: dict[str, Any], opset: int) -> onnx.ModelProto:
    names = [f"i{number}" for number in range(len(arrays))]
    nodes = [helper.make_node(op, names, ["out"], **attrs), helper.make_node("Identity", ["out"], ["y"])]
    constants = [onnx.numpy_helper.from_array(np.asarray(a), name) for a, name in zip(arrays, names, strict=True)]
    outputs = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph(nodes, "g", [], outputs, constants)
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    )
    return inferred


def computed(model: onnx.ModelProto) -> ort.OrtValue:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run_with_ort_values(["y"], {})[0]


def test_the_cases_cover_the_table() -> None:
    assert {op for op, *_ in CASES} == set(evaluate.TABLE)


@pytest.mark.parametrize("op", sorted(evaluate.TABLE))
def test_folding_computes_what_the_runtime_computes(op: str) -> None:
    folded = 0
    for case in (case for case in CASES if case[0] == op):
        proto = model_of(*case)
        model = load(proto)
        if fold_constants(model) == 0:
            continue
        folded += 1
        tensor = model.graph.names["out"].tensor
        assert tensor is not None
        expected = computed(proto)
        assert list(tensor.shape) == expected.shape(), case
        assert tensor.dtype == expected.element_type(), case
        found = tensor.numpy()
        if tensor.dtype == onnx.TensorProto.BFLOAT16:
            # NumPy cannot hold what onnxruntime gives; float32 holds every bfloat16.
            proto.graph.node[1].op_type = "Cast"
            proto.graph.node[1].attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
            proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            expected, found = computed(proto), found.astype(np.float32)
        assert found.tobytes() == expected.numpy().tobytes(), case
    declined = sum(case[0] == op for case in CASES) - folded
    assert declined == 0, f"{declined} cases of {op} did not fold"


@pytest.mark.parametrize(
    ("op", "numbers"),
    [("ReduceSum", [2**60, 1 - 2**60]), ("ReduceProd", [2**53 + 1, 1]), ("ReduceMin", [2**53 + 1, 0])],
)
def test_a_reduction_of_more_digits_than_a_float64_has_stays(op: str, numbers: list[int]) -> None:
    model = load(model_of(op, [np.array(numbers)], {}, 13))
    assert fold_constants(model) == 0
