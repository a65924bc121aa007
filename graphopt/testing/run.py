"""Running one case: apply the rules, compare the graph, compare the numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.errors import GraphoptError
from graphopt.ir import IR_DOMAIN, Model
from graphopt.ir.infer import infer
from graphopt.ir.text import parse, to_text
from graphopt.ir.versions import raise_opset
from graphopt.passes import remove_dead
from graphopt.rewrite import CompiledRule, Context, Engine, Trace, select
from graphopt.runtime import Runner
from graphopt.targets import target_named
from graphopt.testing.cases import Case
from graphopt.testing.numerics import difference

# Internal operators are run as kernels of this target.
_RUNS = "ort-cpu"


@dataclass(frozen=True)
class Outcome:
    """What came of a case: the problem found (empty: none), whether the numbers were compared, what `[out]` should say.

    The latter is empty unless the rule fired as the case wants.
    """

    problem: str
    compared: bool = False
    text: str = ""


def run_case(case: Case, rules: Sequence[CompiledRule], runner: Runner | None = None) -> Outcome:
    """Applies the rules that the case names to its graph, and checks what the case says.

    `rules` holds those and, for graphs with internal operators, the rules that lower them. The numbers are compared
    if there is a `runner`. Raises: ModelError GO046 for text that is not a graph, UsageError GO010 for unknown rules.
    """
    before = _graph(case)
    after = _graph(case)
    trace = _apply(after, select(rules, only=case.rules), Context(target_named(case.target) if case.target else None))
    problem = _wrong_trace(case, trace)
    if problem:
        return Outcome(problem)
    text = _statements(after, before) if case.expected is not None else ""
    problem = _wrong_graph(case, before, after)
    if problem or runner is None or case.expected is None or case.no_run:
        return Outcome(problem, text=text)
    return Outcome(_wrong_numbers(case, before, after, rules, runner), True, text)


def _graph(case: Case) -> Model:
    model = parse(case.text, opset=case.opset, where=str(case.path), line=case.line)
    infer(model)
    remove_dead(model)
    return model


def _apply(model: Model, rules: Sequence[CompiledRule], context: Context) -> Trace:
    engine = Engine(rules, context)
    engine.run(model)
    remove_dead(model)
    return engine.trace


def _wrong_trace(case: Case, trace: Trace) -> str:
    if trace.failures:
        failure = trace.failures[0]
        return f"{failure.rule} failed: {failure.message}\n  --> {failure.place}"
    main = case.rules[0]
    fired = any(site.rule == main for site in trace.sites)
    refusals = dict.fromkeys((r.node, r.reason) for r in trace.refusals if r.rule == main)
    said = [f"{node}: {reason}" for node, reason in refusals]
    if fired != (case.expected is not None):
        return "\n  ".join([f"{main} {'fired' if fired else 'did not fire'}", *said])
    if not any(case.reason in reason for _, reason in refusals) and case.reason:
        return "\n  ".join([f"{main} does not say '{case.reason}'", *said])
    return ""


def _wrong_graph(case: Case, before: Model, after: Model) -> str:
    wanted = before if case.expected is None else _expected(case, before)
    a, b = (_comparable(model).splitlines() for model in (wanted, after))
    return "\n".join(difflib.unified_diff(a, b, "expected", "found", lineterm="", n=99))


def _expected(case: Case, before: Model) -> Model:
    assert case.expected is not None
    if re.match(r"(\s|#[^\n]*\n)*(\(|opset\b)", case.expected):
        return parse(case.expected, opset=before.opset, where=str(case.path), line=case.expected_line)
    # Statements alone: the signature is that of the case, two lines of text.
    signature, _, _ = to_text(before).partition("{\n")
    return parse(f"{signature}{{\n{case.expected}\n}}", where=str(case.path), line=case.expected_line - 2)


def _comparable(model: Model) -> str:
    return _without_digests(to_text(model, names=False))


def _without_digests(text: str) -> str:
    return re.sub(r"\bdata\(\w*\)", "data()", text)


def _statements(model: Model, before: Model) -> str:
    """What `[out]` should say: statements, or all of it where more than statements changed."""
    text = _without_digests(to_text(model))
    signature, _, body = text.partition("{\n")
    if signature != to_text(before).partition("{\n")[0]:
        return text
    return "\n".join(line.removeprefix("  ") for line in body.rstrip().removesuffix("}").rstrip().splitlines())


def _wrong_numbers(case: Case, before: Model, after: Model, rules: Sequence[CompiledRule], runner: Runner) -> str:
    for model in (before, after):
        lowering = [rule for rule in rules if rule.stage == "lower"]
        if _internal(model):
            _apply(model, lowering, Context(target_named(_RUNS)))
        if _internal(model):
            return f"{_internal(model)} is not lowered: the numbers cannot be compared"
        needed = max((node.version for graph in model.scopes() for node in graph.ops() if not node.domain), default=0)
        raise_opset(model, needed)
    try:
        return difference(before, after, case, runner)
    except GraphoptError as error:
        return f"the graph does not run: {error.message}\n  hint: fix it, bind a dimension, or say `no-run: why`"


def _internal(model: Model) -> str:
    nodes = (node for graph in model.scopes() for node in graph.ops() if node.domain == IR_DOMAIN)
    return next((f"{IR_DOMAIN}.{node.op}" for node in nodes), "")
