"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import onnx
import pytest

from graphopt.runtime import Runner, Session

# Tests run onnxruntime in their own process too; it reports what it runs unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# A shell lets what it runs in the background ignore this signal; programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of third-party models that may lie beside the checkout; it is no part of the project."""
    folder = ROOT.parent / "shared" / "corpus"
    if not folder.is_dir():
        pytest.skip("no corpus of models beside the checkout")
    return folder


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each session that is created from here on, of a model in memory, has for nodes: their operators."""
    created: list[list[str]] = []
    load = Runner.load

    def noted(runner: Runner, model: bytes | Path, **options: Any) -> Session:
        assert isinstance(model, bytes)
        created.append([node.op_type for node in onnx.load_from_string(model).graph.node])
        return load(runner, model, **options)

    monkeypatch.setattr(Runner, "load", noted)
    return created


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The slowest tests build and install packages: started first, they run beside all the others.
    items.sort(key=lambda item: item.path.parent.name != "architecture")
