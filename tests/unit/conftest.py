"""What several unit tests ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


@contextmanager
def _nobody() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def nobody() -> Callable[[], AbstractContextManager[None]]:
    """A context in which permissions count: root, who may do everything, is somebody else meanwhile."""
    return _nobody


_FAKE_CUDA = """
import json, os
import onnxruntime as ort

names, create, end, own = (
    ort.get_available_providers(),
    ort.InferenceSession.__init__,
    ort.InferenceSession.end_profiling,
    ort.InferenceSession.get_providers,
)
card = os.environ["FAKE"] == "a card"

def created(self, model, options, providers, **more):
    if card:
        with open(os.environ["FAKE_LOG"], "a") as log:
            print(json.dumps([providers, os.environ.get("NVIDIA_TF32_OVERRIDE")]), file=log)
    self.asked = [name for name, _ in providers]
    create(self, model, options, providers=["CPUExecutionProvider"], **more)

def ended(self):
    path = end(self)
    events = json.load(open(path))
    for event in events:
        args = event.get("args", {})
        if card and "provider" in args and args["op_name"] not in os.environ.get("FAKE_ON_CPU", "").split():
            args["provider"] = self.asked[0]
    with open(path, "w") as file:
        json.dump(events, file)
    return path

ort.get_available_providers = lambda: [*names, "CUDAExecutionProvider"]
ort.InferenceSession.__init__ = created
ort.InferenceSession.end_profiling = ended
if os.environ["FAKE"] != "no driver":
    ort.InferenceSession.get_providers = lambda self: self.asked
"""
"""In the child, an onnxruntime that has CUDA: without a driver, as a liar that runs all on the CPU, or with a card."""


@pytest.fixture
def fake_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Chooses what the onnxruntime of child processes has from then on.

    `no driver`: a build with CUDA that does not start. `a liar`: says that it runs there, and runs all on the CPU. `a
    card`: runs there what is not in `on_cpu`, by the profile; sessions are written to `log` in the test's folder.
    """
    (tmp_path / "sitecustomize.py").write_text(_FAKE_CUDA)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))

    def choose(kind: str, on_cpu: str = "") -> None:
        monkeypatch.setenv("FAKE", kind)
        monkeypatch.setenv("FAKE_ON_CPU", on_cpu)

    return choose
