"""Assertions about rules, for a test beside the rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from graphopt import ir
from graphopt.errors import GraphoptError
from graphopt.ir import Model, dtypes, load, model_from_proto, model_to_proto
from graphopt.ir.text import parse, to_text
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import optimize
from graphopt.report.explanation import plain_tree
from graphopt.rewrite import CompiledRule, Context, Rule, Trace, built_in_rules, find_rules
from graphopt.runtime import Runner
from graphopt.targets import target_named
from graphopt.testing.numerics import Ranges
from graphopt.testing.run import apply, changes, compare, failure, prepare, reasons, refused
from graphopt.verify.failures.trial import Rewriting, Trial, alone
from graphopt.verify.pair import CannotRun

Source = ir.Source | Model
"""A model: its text form, the path of its file, a proto, a graph of onnx-graphsurgeon, or the IR; never changed."""
Rules = type[Rule] | Sequence[type[Rule]]
"""The rule that a test is about, and rules that run beside it."""

_TIMEOUT = 60.0
_SHOWN = 40
_NONE: Mapping[str, int] = MappingProxyType({})
_ANY: Ranges = MappingProxyType({})


def assert_fuses(
    model: Source,
    rule: Rules,
    into: Mapping[str, int],
    *,
    target: str = "",
    numbers: bool = True,
    dims: Mapping[str, int] = _NONE,
    feeds: Ranges = _ANY,
) -> None:
    """`rule` fires on `model`, and leaves each op of `into` (`Gelu`, `com.microsoft.BiasGelu`) that many times.

    Without a `target` every kernel is there. Unless `numbers` is False, the model is run before and after on random
    inputs, with two sizes of each symbolic dimension that `dims` leaves open; where `feeds` has no range (least,
    greatest), floats are normal and integers 0 or 1. Raises: AssertionError with the engine's reasons, or what changed.
    """
    __tracebackhide__ = True
    rules = _compiled(rule)
    before, after = _graph(model), _graph(model)
    trace = apply(after, rules, target)
    main = rules[0]
    if trace.failures:
        raise AssertionError(failure(trace))
    if not any(site.rule == main.name for site in trace.sites):
        said = [f"{main.name} did not fire", *reasons(trace, main), *_nearest(trace, rules[:1])]
        raise AssertionError(_message(said, to_text(before)))
    counts = count_ops(after)
    wrong = [f"{op}: {counts[op]}, wanted {wanted}" for op, wanted in into.items() if counts[op] != wanted]
    text = changes(to_text(before), to_text(after), ("before", "after"), context=3)
    if wrong:
        raise AssertionError(
            _message(["the result is another", *wrong, *_refused(trace, rules), *_nearest(trace, rules)], text)
        )
    if numbers:
        _check_numbers(before, after, rules, dims, feeds, text)


def assert_unchanged(model: Source, rule: Rules, because: str = "", *, target: str = "") -> None:
    """`rule` leaves `model` alone, and one of the engine's reasons has `because` in it.

    Raises: AssertionError with what changed, or with the reasons.
    """
    __tracebackhide__ = True
    rules = _compiled(rule)
    before, after = _graph(model), _graph(model)
    trace = apply(after, rules, target)
    if trace.failures:
        raise AssertionError(failure(trace))
    if trace.sites:
        fired = dict.fromkeys(f"{site.rule} fired at {site.root}" for site in trace.sites)
        text = changes(to_text(before), to_text(after), ("before", "after"), context=3)
        raise AssertionError(_message(["the model is not left alone", *fired], text))
    said = reasons(trace, rules[0])
    if because and not any(because in reason for reason in said):
        said = [f"{rules[0].name} does not say '{because}'", *said, *_nearest(trace, rules[:1])]
        raise AssertionError(_message(said, to_text(before)))


def assert_equivalent(a: Source, b: Source, *, dims: Mapping[str, int] = _NONE, feeds: Ranges = _ANY) -> None:
    """Two models have the same inputs and outputs and compute the same on random inputs, as in `assert_fuses`.

    Raises: AssertionError with the output that differs and the difference of the two texts.
    """
    __tracebackhide__ = True
    before, after = _graph(a), _graph(b)
    text = changes(to_text(before), to_text(after), ("a", "b"), context=3)
    for what, one, other in zip(("inputs", "outputs"), _names(before), _names(after), strict=True):
        if one != other:
            raise AssertionError(_message([f"the {what} are {', '.join(one)} and {', '.join(other)}"], text))
    _check_numbers(before, after, (), dims, feeds, text)


def assert_keeps(
    model: Source,
    rule: type[Rule] | str | None,
    inputs: Mapping[str, Any] | Path,
    *,
    rules: Iterable[str] = (),
    assume: Iterable[str] = (),
) -> None:
    """`rule` keeps what `model` computes on `inputs`: it declines, or what it writes is equal within the noise.

    `rule` may be the name of one in `rules`, files or modules; None are all rules and passes. `inputs` are arrays by
    name, or a file of them. Raises: AssertionError with how far it is off and what was rewritten.
    """
    __tracebackhide__ = True
    before = _graph(model)
    promises = frozenset(assume)
    rewrite: Rewriting
    if rule is None:
        rewrite = partial(optimize, target=target_named("ort-cpu"), rules=find_rules(rules).rules, assume=promises)
        name = ""
    else:
        known = find_rules(rules).select([rule]).rules[0] if isinstance(rule, str) else CompiledRule(rule())
        rewrite, name = alone(known, Context(None, promises)), known.name
    lowering = [one for one in built_in_rules() if one.stage == "lower" and one.name != name]
    with Runner(timeout=_TIMEOUT) as runner:
        trial = Trial(rewrite, lowering, runner)
        after = trial.rewritten(before)
        if after is None:
            return
        try:
            found = trial.compared(before, after, _arrays(before, inputs))
        except CannotRun as error:
            raise AssertionError(f"the model does not run: {error}") from None
    if found.verdict == "unequal":
        text = changes(to_text(before), to_text(after), ("before", "after"), context=3)
        raise AssertionError(_message([f"'{found.name}' is another: {found.reason}"], text))


def _arrays(model: Model, inputs: Mapping[str, Any] | Path) -> dict[str, Any]:
    """Inputs in the element types of `model`. A file holds types that numpy lacks as their bits."""
    with np.load(inputs) if isinstance(inputs, Path) else nullcontext(inputs) as given:
        arrays = {name: np.asarray(given[name]) for name in given}
    for node in model.graph.inputs:
        name, kind = node.output.name, dtypes.to_numpy(node.output.dtype)
        array = arrays[name]
        bits = isinstance(inputs, Path) and array.dtype != kind and array.itemsize == kind.itemsize
        arrays[name] = array.view(kind) if bits else array.astype(kind)
    return arrays


def _compiled(rule: Rules) -> tuple[CompiledRule, ...]:
    return tuple(CompiledRule(kind()) for kind in ((rule,) if isinstance(rule, type) else rule))


def _graph(source: Source) -> Model:
    if isinstance(source, Model):
        return prepare(model_from_proto(model_to_proto(source), source.path))
    # Every text has an arrow, which no file is called after.
    return prepare(parse(source) if isinstance(source, str) and "->" in source else load(source))


def _names(model: Model) -> tuple[list[str], list[str]]:
    graph = model.graph
    return [node.output.name for node in graph.inputs if node.data is None], [value.name for value in graph.outputs]


def _refused(trace: Trace, rules: Iterable[CompiledRule]) -> list[str]:
    return list(dict.fromkeys(f"{r.rule} at {r.node}: {r.reason}" for r in refused(trace, rules)))


def _nearest(trace: Trace, rules: Iterable[CompiledRule]) -> list[str]:
    """The pattern of one of `rules` as far as it came, where it came furthest."""
    found = refused(trace, rules)
    return ["", f"{found[0].rule} at {found[0].root}:", *plain_tree(found[0].parts, found[0].root)] if found else []


def _check_numbers(
    before: Model, after: Model, rules: Sequence[CompiledRule], dims: Mapping[str, int], feeds: Ranges, text: str
) -> None:
    __tracebackhide__ = True
    try:
        with Runner(timeout=_TIMEOUT) as runner:
            problem = compare(before, after, [*rules, *built_in_rules()], runner, dims, feeds)
    except GraphoptError as error:
        problem = f"the model does not run: {error.message}\n  hint: bind a dimension, or pass numbers=False"
    if problem:
        raise AssertionError(_message([problem], text))


def _message(lines: Sequence[str], text: str) -> str:
    return f"{_clipped(lines, '  ')}\n\n{_clipped(text.splitlines(), '')}"


def _clipped(lines: Sequence[str], indent: str) -> str:
    more = [f"... and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
    return f"\n{indent}".join([*lines[:_SHOWN], *more])
