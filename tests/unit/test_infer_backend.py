"""Inference against onnx's own backend node tests: never another type, rank or size than the test declares."""

from __future__ import annotations

import warnings

import onnx
import pytest

from graphopt.ir import load
from graphopt.ir.dims import Unknowns
from graphopt.ir.infer import infer
from graphopt.ir.load import type_of


def _models() -> list[tuple[str, onnx.ModelProto]]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [(case.name, case.model) for case in collect_testcases(None) if case.model is not None]


def _wrong(model: onnx.ModelProto) -> list[str]:
    """The outputs whose inferred type contradicts what `model` declares; inference does not see the declarations."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for info in bare.graph.output:
        info.ClearField("type")
    del bare.graph.value_info[:]
    inferred = load(bare)
    infer(inferred)
    wrong = []
    for info in model.graph.output:
        value = inferred.graph.names[info.name]
        dtype, shape = type_of(info.type, Unknowns())
        if dtype and value.dtype not in (0, dtype):
            wrong.append(f"{value}: {value.dtype}, not {dtype}")
        if shape is None or value.shape is None:
            continue
        agree = (a == b for a, b in zip(value.shape, shape, strict=False) if isinstance(a, int) and isinstance(b, int))
        if len(value.shape) != len(shape) or not all(agree):
            wrong.append(f"{value}: {value.shape}, not {shape}")
    return wrong


@pytest.mark.xdist_group("backend")
def test_no_backend_test_is_contradicted() -> None:
    models = _models()
    assert len(models) > 1500
    assert {name: wrong for name, model in models if (wrong := _wrong(model))} == {}
