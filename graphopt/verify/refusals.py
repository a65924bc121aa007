"""What it means that onnxruntime does not load or run a model: whose fault it is, and what may help."""

from __future__ import annotations

import re

from graphopt.errors import ModelError, RuntimeCrash
from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.pair import CannotRun

_INVALID = frozenset({"INVALID_GRAPH", "INVALID_PROTOBUF"})
_MISTYPED = "Type Error: "
_UNKNOWN = "is not a registered function/op"
_NODE = re.compile(r"while running (\S+) node\. Name:'([^']*)'")

_SOURCE = re.compile(r"/\S+\.(?:h|cc):\d+ .*?\)(?: const)?(?: \[with .*?\])? (?=\S)")


def of_reference(error: RunError, name: str = "the reference") -> tuple[str, str]:
    """Why nothing can be said where the reference, called `name`, is refused, and what may help.

    Raises: ModelError GO054 where it is no valid model, RuntimeCrash where a limit was passed.
    """
    within_limits(error)
    if error.status in _INVALID or error.message.startswith(_MISTYPED):
        raise error
    return f"onnxruntime does not run {name}: {shortened(error.message)}", help_for(error.message)


def help_for(message: str) -> str:
    """What may help against a refusal."""
    return "give the library with its kernels: --custom-ops LIB" if _UNKNOWN in message else ""


def shortened(message: str) -> str:
    """onnxruntime's message without the place in its own source."""
    return _SOURCE.sub("", message)


def within_limits(problem: RunError | CannotRun) -> None:
    """Raises RuntimeCrash where it was no refusal, but that onnxruntime died, ran out of time, or of memory."""
    if isinstance(problem, CannotRun) and problem.crash is not None:
        raise problem.crash
    error = problem.__cause__ if isinstance(problem, CannotRun) else problem
    if isinstance(error, RunError) and isinstance(error.__cause__, RuntimeCrash):
        raise error.__cause__
    if isinstance(error, RunError) and error.status == "MEMORY":
        raise RuntimeCrash("GO056", f"onnxruntime ran out of memory: {error.message}", error.where, error.hint)


def bad_data(reason: str, reference: Model) -> ModelError:
    """The error for arrays that were given, on which the reference itself fails."""
    where = str(reference.path or "model")
    node = _NODE.search(reason)
    if node is not None:
        where = f"{where}: node '{node[2]}' ({node[1]})"
    return ModelError("GO035", f"the model does not run on the inputs given: {reason}", where)
