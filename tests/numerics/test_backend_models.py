"""The models of onnx's backend tests, all operators and most of their forms: rewritten, they compute what they did."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from graphopt import pipeline
from graphopt.ir import load, model_to_proto, save
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.runtime import RunError, Runner
from graphopt.targets import target_named

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import backend

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


def test_what_is_loaded_and_saved_computes_the_same() -> None:
    """One model of 40; tools/backend.py takes all."""
    found = list(backend.sweep(backend.cases(every=40)))
    assert not [one.name for one in found if one.refused]
    verdicts = {name: Counter(one.checks[name].verdict for one in found if one.loads) for name in backend.CHECKS}
    running = sum(one.loads for one in found)
    assert running > 30
    assert verdicts["structure"] == {"equal": running}
    for check, fine in (("made inputs", {"inconclusive"}), ("given inputs", {"inconclusive", "refused"})):
        assert verdicts[check].keys() - fine == {"equal"}
        assert verdicts[check]["equal"] > 0.9 * running
    for one in found:
        if not one.loads:
            assert {one.checks[check].verdict for check in ("made inputs", "given inputs")} <= {
                "inconclusive",
                "refused",
            }


def test_the_command_says_so_too(tmp_path: Path) -> None:
    for number, case in enumerate(backend.cases(every=400)):
        written = save(load(case.model), tmp_path / f"{number}.onnx")[-1]
        assert pipeline.verify(case.model, written).verdict == "equal"


def test_another_model_is_not_taken_for_the_same(tmp_path: Path) -> None:
    """What the sweep says of a writer that puts another operator into the file."""
    (case,) = backend.cases(["test_neg_example"])
    with Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "load", lambda source: load(other(case.model) if isinstance(source, Path) else source))
        found = backend.outcome(case, tmp_path, runner)
    assert {check.verdict for check in found.checks.values()} == {"unequal"}


def other(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.node[0].op_type = "Abs"
    return copy
