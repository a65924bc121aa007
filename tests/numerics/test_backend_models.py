"""The models of onnx's backend tests, all operators and most of their forms: rewritten, they compute what they did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from graphopt.ir import load, model_to_proto
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.runtime import RunError, Runner
from graphopt.targets import target_named

# onnx's own makers of expected values divide by zero on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

NEWEST_IR = 13
"""What onnxruntime loads."""


def rewritten(target: str) -> Iterator[tuple[str, onnx.ModelProto, onnx.ModelProto, dict[str, Any]]]:
    """(name, model, rewritten model, inputs) of the tests in which a rule fires; every model is rewritten."""
    rules, chosen = built_in_rules(), target_named(target)
    for case in sorted(collect_testcases(None), key=lambda case: case.name):
        case.model.ir_version = min(case.model.ir_version, NEWEST_IR)
        model = load(case.model)
        trace = optimize(model, target=chosen, rules=rules)
        assert not trace.failures, case.name
        if trace.sites and case.data_sets:
            inputs = case.data_sets[0][0]
            names = [value.name for value in case.model.graph.input]
            yield case.name, case.model, model_to_proto(model), dict(zip(names, inputs, strict=False))


def outputs(runner: Runner, model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any] | None:
    """None where onnxruntime does not run the model."""
    try:
        with runner.load(model.SerializeToString(), optimize=False) as session:
            return session.run(feeds)
    except RunError:
        return None


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
def test_no_rewrite_changes_an_operator(target: str) -> None:
    compared = 0
    with Runner() as runner:
        for name, before, after, feeds in rewritten(target):
            expected = outputs(runner, before, feeds)
            if expected is None:
                continue
            found = outputs(runner, after, feeds)
            assert found is not None, f"{name}: onnxruntime runs it before, not after"
            for key, value in expected.items():
                if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                    tolerance = 2e-3 if value.dtype == np.float16 else 1e-5
                    np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=tolerance, err_msg=name)
                elif isinstance(value, np.ndarray):
                    np.testing.assert_array_equal(found[key], value, err_msg=name)
            compared += 1
    assert compared > 100
