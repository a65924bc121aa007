"""Running models: onnxruntime sessions in a child process, with limits.

    with Runner(timeout=60) as runner, runner.load(model, optimize=False) as session:
        outputs = session.run({"x": x})

This is the only package that runs a model. It knows bytes, paths and arrays, and imports onnxruntime in the child only.
"""

from __future__ import annotations

from graphopt.runtime.protocol import (
    PLACEHOLDER,
    PROVIDERS,
    Clocked,
    Crash,
    External,
    Kernel,
    Memory,
    Port,
    RunError,
    Unavailable,
)
from graphopt.runtime.runner import Runner, Session

__all__ = [
    "PLACEHOLDER",
    "PROVIDERS",
    "Clocked",
    "Crash",
    "External",
    "Kernel",
    "Memory",
    "Port",
    "RunError",
    "Runner",
    "Session",
    "Unavailable",
]
