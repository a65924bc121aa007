"""Comparing many pairs of small graphs: as one model, so that they cost one session."""

from __future__ import annotations

import atexit
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from graphopt.errors import GraphoptError
from graphopt.ir import Model, model_from_proto, model_to_proto
from graphopt.ir.bodies import settle_opset
from graphopt.ir.versions import raise_opset
from graphopt.rewrite import CompiledRule
from graphopt.runtime import Runner
from graphopt.testing.numerics import NOTHING, STUCK, differences
from graphopt.testing.run import lowered

_TIMEOUT = 60.0
_TOGETHER = 64
# Of thousands of random graphs some cancel badly; what is wrong is wrong by more.
_SLACK = 4.0


@dataclass(frozen=True)
class Pair:
    """A graph before and after."""

    before: Model
    after: Model


@functools.cache
def runner() -> Runner:
    """The one child of this process that runs instances."""
    runner = Runner(timeout=_TIMEOUT)
    atexit.register(runner.close)
    return runner.__enter__()


def compare_alone(pair: Pair, rules: Sequence[CompiledRule]) -> str | None:
    """How the numbers of a pair differ: empty where they do not, None where it cannot be said."""
    _, problem, unknown = first_difference([pair], rules)
    return None if unknown else problem


def first_difference(pairs: Sequence[Pair], rules: Sequence[CompiledRule]) -> tuple[int, str, set[int]]:
    """The first pair found whose numbers differ (-1: none), how, and the pairs of which it cannot be said."""
    ready = {at: pair for at, pair in enumerate(pairs) if _make_runnable(pair, rules)}
    unknown = set(range(len(pairs))) - ready.keys()
    groups: dict[int, list[int]] = {}
    for at, pair in ready.items():
        groups.setdefault(pair.before.opset, []).append(at)
    stack = [group[at : at + _TOGETHER] for group in groups.values() for at in range(0, len(group), _TOGETHER)][::-1]
    while stack:
        group = stack.pop()
        try:
            problems = _compared([ready[at] for at in group])
        except GraphoptError as error:
            # One of them does not run, before or after.
            if len(group) > 1:
                stack += [group[len(group) // 2 :], group[: len(group) // 2]]
            elif _runs(ready[group[0]].before):
                return group[0], f"{STUCK}: {error.message}", unknown
            else:
                unknown.add(group[0])
            continue
        for at, problem in problems.items():
            if NOTHING not in problem:
                return group[at], problem, unknown
            unknown.add(group[at])
    return -1, "", unknown


def _make_runnable(pair: Pair, rules: Sequence[CompiledRule]) -> bool:
    """Brings a pair to one opset without internal operators, and makes inputs of what a caller may give."""
    try:
        for model in (pair.before, pair.after):
            if lowered(model, rules):
                return False
            for node in model.graph.inputs:
                node.data = None
        opset = max(pair.before.opset, pair.after.opset)
        raise_opset(pair.before, opset)
        raise_opset(pair.after, opset)
    except GraphoptError:
        return False
    return True


def _compared(pairs: Sequence[Pair]) -> dict[int, str]:
    """How pairs differ, by their place. Raises: GraphoptError where one does not run."""
    before, after = _merged([pair.before for pair in pairs]), _merged([pair.after for pair in pairs])
    found: dict[int, str] = {}
    for name, problem in differences(before, after, runner(), _SLACK).items():
        found.setdefault(int(name.partition("_")[0][1:]), re.sub(r"\b(i\d+_)+", "", problem))
    return found


def _runs(model: Model) -> bool:
    try:
        differences(model, model, runner())
    except GraphoptError:
        return False
    return True


def _merged(models: Sequence[Model]) -> Model:
    """The models side by side in one; names are told apart by a prefix, except of dimensions."""
    whole = onnx.ModelProto()
    for at, model in enumerate(models):
        for name, value in list(model.graph.names.items()):
            model.graph.rename(value, f"i{at}_{name}")
        proto = model_to_proto(model)
        whole.ir_version = max(whole.ir_version, proto.ir_version)
        for field in ("node", "input", "output", "initializer"):
            getattr(whole.graph, field).extend(getattr(proto.graph, field))
        known = {entry.domain for entry in whole.opset_import}
        whole.opset_import.extend(entry for entry in proto.opset_import if entry.domain not in known)
    merged = model_from_proto(whole)
    # The bodies of fused ops are those of one opset.
    settle_opset(merged)
    return merged
