"""Checking two models against each other, and what an outcome means to whoever asked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graphopt.errors import GraphoptError, InconclusiveError, UnequalError
from graphopt.ir import Source, load
from graphopt.verify import Options, Verification, compare

Inputs = str | os.PathLike[str] | Mapping[str, Any]
"""Real inputs: an .npz file, or arrays by the names of the model's inputs."""


def verify(
    reference: Source,
    candidate: Source,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: Inputs | None = None,
    providers: Iterable[str] = ("cpu",),
    timeout: float | None = 300.0,
    memory: int | None = None,
) -> Verification:
    """Whether two models compute the same, wherever they come from.

    `dims` binds symbolic dimensions, `timeout` (seconds) and `memory` (bytes) limit the process that runs them.
    Raises: ModelError for a model or data that is bad, UsageError for options that do not fit, InconclusiveError where
    no inputs can be made or nothing can be run, RuntimeCrash when onnxruntime dies or hangs.
    """
    options = Options(dims or {}, arrays(inputs), tuple(providers), timeout, memory)
    return compare(load(reference), load(candidate), options)


def arrays(inputs: Inputs | None) -> Path | Mapping[str, Any] | None:
    """`inputs` as a verifier takes them."""
    return Path(inputs) if isinstance(inputs, (str, os.PathLike)) else inputs


def error_of(verification: Verification, hint: str = "") -> GraphoptError | None:
    """The error that an outcome is to someone who wants `equal`; None when it is that."""
    compared = (*verification.regions, *verification.outputs)
    place = next((f"value '{one.name}'" for one in compared if one.verdict == verification.verdict), "")
    match verification.verdict:
        case "equal":
            return None
        case "unequal":
            return UnequalError("GO080", f"not equal: {verification.reason}", place)
        case "inconclusive":
            return InconclusiveError("GO081", f"the check could not decide: {verification.reason}", place, hint)
    return InconclusiveError("GO082", f"not checked: {verification.reason}", place, hint)
