"""What it means that onnxruntime does not load or run a model: whose fault it is, and what may help."""

from __future__ import annotations

import re

from graphopt.errors import ModelError, RuntimeCrash
from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.pair import CannotRun

_INVALID = frozenset({"INVALID_GRAPH", "INVALID_PROTOBUF"})
_MISTYPED = "Type Error: "
_UNKNOWN = "is not a registered function/op"
_SOURCE = re.compile(r"/\S+\.(?:h|cc):\d+ .*?\)(?: const)?(?: \[with .*?\])? (?=\S)")
_RUNNING = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'([^']*)' Status Message: ")
_UNRELEASED = "released onnx opset versions"
_MOST = 300
"""Characters of a message that are shown."""


def of_reference(error: RunError, name: str = "the reference") -> tuple[str, str]:
    """Why nothing can be said where the reference, called `name`, is refused, and what may help.

    Raises: RuntimeCrash where a limit was passed.
    """
    within_limits(error)
    return f"onnxruntime does not run {name}: {shortened(error.message)}", help_for(error.message)


def is_invalid(error: RunError) -> bool:
    """Whether what is refused is no valid model, rather than one that onnxruntime has no kernels for."""
    return error.status in _INVALID or error.message.startswith(_MISTYPED)


def is_excused(problem: CannotRun, feed: Feed) -> bool:
    """Whether a candidate that does not run on a feed may be right all the same."""
    return feed.may_be_refused and problem.side == "candidate" and problem.crash is None


def invalid(error: RunError, reference: Model) -> ModelError:
    """The error for a reference that is no valid model."""
    message = f"onnxruntime does not load the reference: {shortened(error.message)}"
    return ModelError(error.code, message, str(reference.path or "model"))


def help_for(message: str) -> str:
    """What may help against a refusal."""
    if _UNRELEASED in message:
        return "write the model in an opset that this onnxruntime supports, or upgrade onnxruntime"
    return "give the library with its kernels: --custom-ops LIB" if _UNKNOWN in message else ""


def shortened(message: str) -> str:
    """onnxruntime's message without the place in its own source, and not too long: what it says comes first."""
    said = _RUNNING.sub(lambda found: f"{_node(found[2], found[1])}: ", _SOURCE.sub("", message))
    return said if len(said) <= _MOST else f"{said[:_MOST].rstrip()} ..."


def within_limits(problem: RunError | CannotRun) -> None:
    """Raises RuntimeCrash where it was no refusal, but that onnxruntime died, ran out of time, or of memory."""
    if isinstance(problem, CannotRun) and problem.crash is not None:
        raise problem.crash
    error = problem.__cause__ if isinstance(problem, CannotRun) else problem
    if isinstance(error, RunError) and isinstance(error.__cause__, RuntimeCrash):
        raise error.__cause__
    if isinstance(error, RunError) and error.status == "MEMORY":
        said = f"onnxruntime ran out of memory: {shortened(error.message)}"
        raise RuntimeCrash("GO056", said, error.where, error.hint)


def bad_data(reason: str, reference: Model) -> ModelError:
    """The error for arrays that were given, on which the reference itself fails."""
    where = str(reference.path or "model")
    node = _RUNNING.search(reason)
    if node is not None:
        where = f"{where}: {_node(node[2], node[1])}"
    said = shortened(_RUNNING.sub("", reason))
    return ModelError("GO035", f"the model does not run on the inputs given: {said}", where)


def _node(name: str, op: str) -> str:
    return f"node '{name}' ({op})" if name else f"a node without a name ({op})"
