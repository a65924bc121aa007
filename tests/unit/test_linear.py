"""The work that load, optimize and save do grows with the graph, whatever its shape: calls are counted, not seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
import pytest

from graphopt.ir import load, save
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.targets import target_named

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from scale_models import LINEAR, Shape

FEW = {"BERT": 220, "blocks": 120, "branches": 16, "captures": 40, "concat": 40, "gelus": 16, "outputs": 40}
"""How large the smaller of the two graphs is; 250 where nothing is said."""
MOST = 4.4
RULES = built_in_rules()


def calls(work: Callable[[], Any]) -> tuple[int, Any]:
    """How many functions a piece of work calls, Python's and C's, and what it returns."""
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        made = work()
    finally:
        sys.setprofile(None)
    return count, made


def work_on(path: Path) -> dict[str, int]:
    """Calls of each step."""
    loading, model = calls(lambda: load(path))
    optimizing, _ = calls(lambda: optimize(model, target=target_named("ort-cpu"), rules=RULES))
    saving, _ = calls(lambda: save(model, path.with_suffix(".saved.onnx")))
    return {"load": loading, "optimize": optimizing, "save": saving}


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is made once is made before: rules are compiled, schemas read."""
    for name, shape in LINEAR.items():
        path = tmp_path_factory.mktemp("warm") / f"{name}.onnx"
        onnx.save(shape(8), path)
        work_on(path)


@pytest.mark.parametrize(("name", "shape"), LINEAR.items(), ids=LINEAR.keys())
def test_four_times_the_graph_is_four_times_the_work(name: str, shape: Shape, tmp_path: Path) -> None:
    few = FEW.get(name, 250)
    found = []
    for size in (few, 4 * few):
        path = tmp_path / f"{size}.onnx"
        onnx.save(shape(size), path)
        found.append(work_on(path))
    once, again = found
    assert min(once.values()) > few
    assert {step: again[step] / once[step] for step in once if again[step] > MOST * once[step]} == {}
