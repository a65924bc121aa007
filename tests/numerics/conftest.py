"""What grids and mutants share: text through the whole pipeline, and its numbers before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graphopt.ir import Model, dtypes, model_to_proto, validate
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Trace, built_in_rules
from graphopt.targets import target_named

Arrays = dict[str, np.ndarray[Any, Any]]

_SIZES = {"B": 2, "S": 3, "T": 5, "One": 1}
_TOLERANCE = {np.dtype(np.float16): 4e-3, np.dtype(np.float64): 1e-12}


class Laboratory:
    """Optimizes graphs with every rule and runs them with onnxruntime's own optimizer off."""

    def optimized(self, text: str, opset: int = 20, target: str = "ort-cpu") -> tuple[Model, Trace]:
        model = parse(text, opset=opset)
        trace = optimize(model, target=target_named(target), rules=built_in_rules())
        validate(model)
        assert not trace.failures
        return model, trace

    def results(self, model: Model, seeds: int = 3) -> list[Arrays]:
        """Outputs on random inputs, those of `model`; the same for models of one signature."""
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_mem_reuse = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        data = model_to_proto(model).SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(names, _feeds(model, seed)), strict=True)) for seed in range(seeds)]

    def results_of(self, text: str, opset: int = 20) -> list[Arrays]:
        model = parse(text, opset=opset)
        infer(model)
        return self.results(model)

    def difference(self, before: list[Arrays], after: list[Arrays]) -> str:
        """How two results of one signature differ; empty where they do not."""
        for wanted, found in zip(before, after, strict=True):
            if list(wanted) != list(found):
                return f"outputs {list(found)}, wanted {list(wanted)}"
            for name, x in wanted.items():
                y = found[name]
                if (x.dtype, x.shape) != (y.dtype, y.shape):
                    return f"{name} is {y.dtype}{list(y.shape)}, wanted {x.dtype}{list(x.shape)}"
                tolerance = _TOLERANCE.get(x.dtype, 2e-5)
                if not np.allclose(y, x, tolerance, tolerance * _scale(x), equal_nan=True):
                    return f"{name} differs by {np.nanmax(np.abs(y - x)):.3g}"
        return ""

    def assert_same_numbers(self, text: str, after: Model, opset: int = 20) -> None:
        assert not self.difference(self.results_of(text, opset), self.results(after))

    def are_equal(self, a: list[Arrays], b: list[Arrays]) -> bool:
        """Whether two results are one function of the same inputs: float32, and equal to its rounding."""
        pairs = [(one[name], other[name]) for one, other in zip(a, b, strict=True) for name in one]
        return all(
            x.dtype == np.float32 and x.shape == y.shape and np.allclose(y, x, 1e-6, 1e-6 * _scale(x), equal_nan=True)
            for x, y in pairs
        )


def _scale(x: np.ndarray[Any, Any]) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=1e-3))


def _feeds(model: Model, seed: int) -> Arrays:
    """Random inputs; what may be overridden is overridden in every second run."""
    random = np.random.default_rng(seed)
    made: Arrays = {}
    for node in model.graph.inputs:
        value = node.output
        if node.data is not None and seed % 2 == 0:
            continue
        assert value.shape is not None
        shape = [size if isinstance(size, int) else _SIZES[str(size)] for size in value.shape]
        array = random.standard_normal(shape) if value.dtype in dtypes.FLOATS else random.integers(0, 2, shape)
        if value.dtype == dtypes.BOOL and len(shape) > 1:
            array[..., 0, :] = 0  # A row in which nothing is allowed.
        made[value.name] = array.astype(dtypes.to_numpy(value.dtype))
    return made


@pytest.fixture(scope="session")
def laboratory() -> Laboratory:
    return Laboratory()
