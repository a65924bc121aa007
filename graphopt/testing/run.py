"""Running one case: apply the rules, compare the graph, compare the numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from graphopt.errors import GraphoptError
from graphopt.ir import IR_DOMAIN, Model
from graphopt.ir.bodies import settle_opset
from graphopt.ir.infer import infer
from graphopt.ir.node import qualified
from graphopt.ir.text import parse, to_text
from graphopt.passes import remove_dead
from graphopt.rewrite import CompiledRule, Context, Engine, Plan, Refusal, RuleSet, Trace
from graphopt.runtime import Runner
from graphopt.targets import Target, target_named
from graphopt.testing.cases import Case
from graphopt.testing.numerics import Ranges, difference
from graphopt.testing.plans import MadePlan, made_plan

# A target without fused kernels: internal operators are run as their parts, so a rule never is its own reference.
_PLAIN = Target("plain", 24, "cpu")


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
    chosen = RuleSet(tuple(rules)).select(only=case.rules).rules
    trace = apply(after, chosen, case.target, case.keep_opset, case.assume, _plan(case))
    problem = _wrong_trace(case, rules, trace)
    if problem:
        return Outcome(problem)
    text = _statements(after, before) if case.expected is not None else ""
    problem = _wrong_graph(case, before, after)
    if problem or runner is None or case.expected is None or case.no_run:
        return Outcome(problem, text=text)
    return Outcome(_wrong_numbers(case, before, after, rules, runner), True, text)


# ---- what assertions do as well ------------------------------------------------------------------------------------


def prepare(model: Model) -> Model:
    """`model` as rules see it: types inferred, no dead code."""
    infer(model)
    remove_dead(model)
    return model


def apply(
    model: Model,
    rules: Sequence[CompiledRule],
    target: str | Target = "",
    keep_opset: bool = False,
    assume: frozenset[str] = frozenset(),
    plan: Plan | None = None,
) -> Trace:
    """Applies `rules` in place until none fires; without a target every kernel is there."""
    known = target_named(target) if isinstance(target, str) and target else target or None
    engine = Engine(rules, Context(known, assume, keep_opset, plan), explain=True)
    engine.run(model)
    remove_dead(model)
    return engine.trace


def failure(trace: Trace) -> str:
    """The first rule that raised, cycled or wrote an invalid graph; empty where none did."""
    return "".join(f"{f.rule} failed: {f.message}\n  --> {f.place}" for f in trace.failures[:1])


def reasons(trace: Trace, rule: CompiledRule) -> list[str]:
    """Why `rule` did not fire, each reason once, what came nearest first: where, and in words."""
    refusals = dict.fromkeys(f"{r.node}: {r.reason}" for r in refused(trace, [rule]))
    count = trace.count(rule.name)
    roots = " or ".join(qualified(*root) for root in rule.roots)
    if refusals or count.reasons:
        return list(refusals or count.reasons)
    if count.tried:
        return [f"tried {count.tried} times: nothing below a {roots} looks like {rule.pattern.roots[0]}"]
    return [f"never tried: there is no {roots} to begin at"]


def refused(trace: Trace, rules: Iterable[CompiledRule]) -> list[Refusal]:
    """What `rules` refused, what came nearest to a match first."""
    names = {rule.name for rule in rules}
    return sorted((r for r in trace.refusals if r.rule in names), key=lambda r: -r.nearness)


def changes(before: str, after: str, labels: tuple[str, str], context: int = 99) -> str:
    """Two texts as a unified difference; empty where they are equal."""
    a, b = before.splitlines(), after.splitlines()
    return "\n".join(difflib.unified_diff(a, b, *labels, lineterm="", n=context))


def compare(
    before: Model,
    after: Model,
    rules: Sequence[CompiledRule],
    runner: Runner,
    dims: Mapping[str, int] = MappingProxyType({}),
    ranges: Ranges = MappingProxyType({}),
    rounding: float = 0.0,
) -> str:
    """How the numbers of two models differ; empty where they do not.

    Changes both: internal operators are lowered by those of `rules` that lower, and the opset is raised as they need.
    `rounding` is how far integers may be from floats: root mean squares, one relative to the other. Raises:
    GraphoptError where onnxruntime does not run `before`.
    """
    problem = lowered(before, rules) or lowered(after, rules)
    return problem or difference(before, after, dims, ranges, runner, rounding)


def lowered(model: Model, rules: Sequence[CompiledRule]) -> str:
    """Makes `model` one that onnxruntime runs: internal operators are lowered by those of `rules` that lower, and the
    opset is raised as its nodes need. Why it cannot be; empty where it can. Raises: ModelError GO047."""
    if _internal(model):
        apply(model, [rule for rule in rules if rule.stage == "lower"], _PLAIN)
    if _internal(model):
        return f"{_internal(model)} is not lowered: the numbers cannot be compared"
    settle_opset(model)
    return ""


def _internal(model: Model) -> str:
    nodes = (node for graph in model.scopes() for node in graph.ops() if node.domain == IR_DOMAIN)
    return next((f"{IR_DOMAIN}.{node.op}" for node in nodes), "")


# ---- what cases say ------------------------------------------------------------------------------------------------


def _plan(case: Case) -> MadePlan | None:
    return made_plan(case.plan) if case.plan else None


def _graph(case: Case) -> Model:
    return prepare(parse(case.text, opset=case.opset, where=str(case.path), line=case.line))


def _wrong_trace(case: Case, rules: Sequence[CompiledRule], trace: Trace) -> str:
    if trace.failures:
        return failure(trace)
    main = next(rule for rule in rules if rule.name == case.rules[0])
    fired = any(site.rule == main.name for site in trace.sites)
    said = reasons(trace, main)
    if fired and case.expected is None:
        return f"{main.name} fired"
    if not fired and case.expected is not None:
        return "\n  ".join([f"{main.name} did not fire", *said])
    if not any(case.reason in reason for reason in said) and case.reason:
        return "\n  ".join([f"{main.name} does not say '{case.reason}'", *said])
    return ""


def _wrong_graph(case: Case, before: Model, after: Model) -> str:
    wanted = before if case.expected is None else _expected(case, before)
    return changes(_comparable(wanted), _comparable(after), ("expected", "found"))


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
    plan = _plan(case)
    try:
        return compare(before, after, rules, runner, case.dims, case.feeds, plan.tolerance if plan is not None else 0.0)
    except GraphoptError as error:
        return f"the graph does not run: {error.message}\n  hint: fix it, bind a dimension, or say `no-run: why`"
