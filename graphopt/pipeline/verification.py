"""Checking two models against each other, and what an outcome means to whoever asked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graphopt.errors import GraphoptError, InconclusiveError, RuntimeCrash, UnequalError, UsageError
from graphopt.ir import Source, load
from graphopt.verify import Crashed, Options, Verification, check, compare
from graphopt.verify.endtoend import is_large
from graphopt.verify.failures.cases import folder_for_cases
from graphopt.verify.results import WHOLE

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
    keep: str | os.PathLike[str] | None = None,
    custom_ops: Iterable[str | os.PathLike[str]] = (),
) -> Verification:
    """Whether two models compute the same, wherever they come from.

    `dims` binds symbolic dimensions, `timeout` (seconds) and `memory` (bytes) limit the process that runs them,
    `keep` is the folder for what failed, `custom_ops` are libraries of kernels.
    Raises: ModelError for a model or data that is bad, UsageError for options that do not fit, InconclusiveError where
    no inputs can be made or nothing can be run, RuntimeCrash when onnxruntime dies or hangs.
    """
    kept = folder_for_cases(Path(keep)) if keep is not None else None
    kernels = libraries(custom_ops)
    options = Options(dims or {}, arrays(inputs), tuple(providers), timeout, memory, keep=kept, custom_ops=kernels)
    models = load(reference), load(candidate)
    if any(map(is_large, models)):
        # Regions that are equal prove it; that those between values of one name differ proves nothing for such models.
        found = check(*models, options)
        if found.decided_by != "regions" or found.verdict == "equal":
            return found
    return compare(*models, options)


def libraries(paths: Iterable[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Libraries of kernels. Raises: UsageError GO029 for one that is not there."""
    found = tuple(map(Path, paths))
    for path in found:
        if not path.is_file():
            raise UsageError("GO029", "no such library of custom ops", str(path))
    return found


def refuse_to_overwrite(output: str | os.PathLike[str], *read: object) -> None:
    """Raises UsageError GO011 where `output` is one of the files, or in one of the folders, that are read besides the
    model; what is no path is none of them."""
    place = os.path.realpath(output)
    for path in read:
        if isinstance(path, str | os.PathLike) and os.path.exists(path):
            held = os.path.isdir(path) and os.path.exists(place) and os.path.dirname(place) == os.path.realpath(path)
            if held or os.path.realpath(path) == place:
                raise UsageError("GO011", "the output would overwrite what is read", str(path), "choose another output")


def arrays(inputs: Inputs | None) -> Path | Mapping[str, Any] | None:
    """`inputs` as a verifier takes them."""
    return Path(inputs) if isinstance(inputs, (str, os.PathLike)) else inputs


def error_of(verification: Verification, hint: str = "") -> GraphoptError | None:
    """The error that an outcome is to someone who wants `equal`; None when it is that."""
    compared = (*verification.regions, *verification.outputs)
    place = next((f"value '{one.name}'" for one in compared if one.verdict == verification.verdict), "")
    crash = _fatal(verification)
    if crash is not None:
        kept = f"the case is kept in {crash.kept}" if crash.kept else ""
        hint = "; ".join(filter(None, [kept, "allow more with --timeout" if crash.code == "GO052" else ""]))
        where = crash.name if crash.name == WHOLE else f"value '{crash.name}'"
        return RuntimeCrash(crash.code, f"{crash.message} the {crash.side}", where, hint)
    hint = "; ".join(filter(None, [verification.hint, hint]))
    match verification.verdict:
        case "equal":
            return None
        case "unequal":
            return UnequalError("GO080", f"not equal: {verification.reason}", place, verification.hint)
        case "inconclusive":
            return InconclusiveError("GO081", f"the check could not decide: {verification.reason}", place, hint)
    return InconclusiveError("GO082", f"not checked: {verification.reason}", place, hint)


def undecided(error: GraphoptError) -> Verification:
    """The outcome where a check ends with an error that says nothing of the models."""
    return Verification("inconclusive", "end-to-end", error.message, level="full", hint=error.hint)


def _fatal(verification: Verification) -> Crashed | None:
    """The crash that an outcome is due to, if it is: nothing that ran was found unequal."""
    crashed = {one.name for one in verification.crashes}
    compared = (*verification.regions, *verification.outputs)
    wrong = any(one.verdict == "unequal" and one.name not in crashed for one in compared)
    return None if wrong or verification.verdict == "equal" else next(iter(verification.crashes), None)
