"""The loop: instances must be found and stay equal, mutants must stay equal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import seed as seeded_by
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from graphopt.errors import near
from graphopt.ir import IR_DOMAIN, Model, Shape
from graphopt.ir.text import parse, to_text
from graphopt.rewrite import CompiledRule, Rule, Trace, built_in_rules
from graphopt.rewrite.pattern import Check
from graphopt.testing.check.choices import (
    GENERATORS,
    Choose,
    Rejected,
    drawn,
    plainest,
    randomly,
    recording,
    replaying,
    varied,
    varying,
)
from graphopt.testing.check.grow import Given, grow, walk
from graphopt.testing.check.mutate import Mutation, mutations
from graphopt.testing.check.numbers import Pair, compare_alone, first_difference
from graphopt.testing.check.report import Report, Wrong, case
from graphopt.testing.check.spell import spell
from graphopt.testing.check.terms import Base, Unsupported
from graphopt.testing.numerics import STUCK
from graphopt.testing.run import apply, failure, prepare, reasons

_SEEDS = 10
_TRIES = 4000
_DECLINED = 400
_DECLINED_WITHOUT_SEED = 2000
_KERNEL_HINT = 'hint: where some types have no kernel: `x: Annotated[Value, like(dtype=("float16", "float32"))]`'


def check_rule(
    rule: type[Rule],
    *,
    beside: Sequence[type[Rule]] = (),
    given: Mapping[str, str | float] = MappingProxyType({}),
    examples: int = 50,
    seed: int | None = None,
) -> Report:
    """Generates graphs from the pattern of `rule`, in all their spellings, and graphs one step away from it.

    Every spelling of an instance that the rule rewrites must be rewritten; what it refuses, its `where`, its `rewrite`
    or the engine must have a reason for; a mutant may be rewritten if it stays equal. All that is rewritten is run
    before and after. About `examples` instances are made, all mutants of one of them, and as many of others; the same
    in every run unless a `seed` is given. Rules in `beside` run with the rule. Without a target every kernel is there.
    Where an operator wants shapes that no generator knows, `given={"x": "float32[1, 3, 8, 8]"}` types variables; where
    a condition wants numbers that are seldom drawn, `given={"k": 0.7071}` is the value of one.

    A rule may leave out one generator: `exempt = ("ranks", "why")`.
    Raises: AssertionError with what is wrong and the smallest graph that shows it, as a case to paste.
    """
    __tracebackhide__ = True
    start = time.perf_counter()
    compiled, others = CompiledRule(rule()), [CompiledRule(kind()) for kind in beside]
    known = {name: _given(compiled, name, what) for name, what in given.items()}
    checker = _Checker(compiled, others, known, examples, seed, _exemption(rule))
    try:
        # What a rule computes of the numbers of a mutant may overflow; a mutant need not be sensible.
        with np.errstate(all="ignore"):
            checker.find_seeds()
            checker.explore(checker.instances)
            checker.explore(checker.mutants)
    except Unsupported as error:
        raise AssertionError(f"{rule.__name__} cannot be checked: {error}") from None
    except Wrong as error:
        raise AssertionError(str(error)) from None
    checker.report.seconds = time.perf_counter() - start
    return checker.report


def _given(rule: CompiledRule, name: str, what: str | float) -> Given:
    """The type that the text form writes so, or a number. Raises: ModelError GO046."""
    variable = rule.pattern.variables.get(name)
    if variable is None:
        raise AssertionError(f"{rule.name} has no variable '{name}': {near(name, rule.pattern.variables)}")
    if variable.kind != ("value" if isinstance(what, str) else "number"):
        hint = 'a type, as "float32[1, 3]", is for a Value; a number for a Number'
        raise AssertionError(f"{rule.name}: '{name}' cannot be {what!r}: {hint}")
    if not isinstance(what, str):
        return float(what)
    value = parse(f"({name}: {what}) -> ({name}) {{}}").graph.inputs[0].output
    assert value.shape is not None, f"{name}: {what} has no shape"
    return value.dtype, value.shape


def _exemption(rule: type[Rule]) -> tuple[str, str] | None:
    exempt = getattr(rule, "exempt", None)
    if exempt is None:
        return None
    known = "".join(f"\n  {name:14}{what}" for name, what in sorted(GENERATORS.items()))
    if not (isinstance(exempt, tuple) and len(exempt) == 2 and all(isinstance(part, str) for part in exempt)):
        raise AssertionError(f'{rule.__name__} may leave out one generator, exempt = ("NAME", "why"), of these:{known}')
    if exempt[0] not in GENERATORS:
        hint = near(exempt[0], GENERATORS)
        raise AssertionError(f"{rule.__name__} leaves out '{exempt[0]}', which is no generator: {hint}{known}")
    return exempt


class _Waiting(NamedTuple):
    """A pair whose numbers are not compared yet, and what to say where they differ."""

    pair: Pair
    wrong: Callable[[str], Wrong]
    mutant: bool


class _Checker:
    """What is known so far of one rule. Pairs are compared together at the end; what is wrong is then looked for again
    from simpler seeds, comparing each pair at once, so that Hypothesis can shrink it."""

    def __init__(
        self,
        rule: CompiledRule,
        beside: Sequence[CompiledRule],
        given: Mapping[str, Given],
        examples: int,
        seed: int | None,
        exempt: tuple[str, str] | None,
    ) -> None:
        self.rule = rule
        self.rules = [rule, *beside]
        self.report = Report(rule.name, exempt=exempt)
        self.seeds: list[list[int]] = []
        self._given = given
        self._examples = examples
        self._seed = seed
        self._lowering = [*self.rules, *built_in_rules()]
        self._exempt = exempt[0] if exempt else None
        self._has_checks = any(isinstance(e, Check) for root in rule.pattern.roots for e in walk(root))
        self._at_once = False
        self._pairs: list[_Waiting] = []
        self._seen: set[str] = set()
        self._plain: dict[str, str] = {}

    def find_seeds(self) -> None:
        """Choices that make instances which the rule rewrites, plainer ones first. Raises: Wrong if there are none."""
        source = Random(self._seed or 0)
        found: dict[str, list[int]] = {}
        for _ in range(_TRIES):
            taken: list[int] = []
            try:
                base = self._grow(recording(randomly(source, self._exempt), taken))
                found.setdefault(self._plainly(base), taken)
            except Rejected:
                pass
            except Wrong as error:
                smallest = self._simplified(taken, lambda base: self._wrong(base) is not None)
                raise self._wrong(self._grow(replaying(smallest))) or error from None
            if len(found) == _SEEDS or self.report.declined.total() >= (_DECLINED if found else _DECLINED_WITHOUT_SEED):
                break
        if not found:
            raise Wrong(self._never_fires())
        seeds = [found[text] for text in sorted(found, key=len)]
        self.seeds = [self._simplified(seeds[0], self._fires), *seeds]

    def explore(self, run: Callable[..., None]) -> None:
        """Runs `instances` or `mutants`, then compares numbers. Raises: Wrong, for a small graph."""
        try:
            run(Phase.generate)
            self._compare()
        except Wrong as found:
            self._at_once = True
            simplified = [self._simplified(taken, self._fires) for taken in self.seeds]
            for seeds in (sorted(simplified, key=sum), self.seeds):
                self.seeds = seeds
                self._seen.clear()
                self._plain.clear()
                run(Phase.generate, Phase.shrink)
            raise found from None

    def _compare(self) -> None:
        """Compares what is waiting for it. Raises: Wrong."""
        at, problem, unknown = first_difference([waiting.pair for waiting in self._pairs], self._lowering)
        if at >= 0:
            raise self._pairs[at].wrong(problem)
        self.report.compared += len(self._pairs) - len(unknown)
        if not self.report.compared:
            raise Wrong(f"no instance of the pattern of {self.rule.name} runs in onnxruntime: nothing was compared")
        mutants = sum(self._pairs[at].mutant for at in unknown)
        self.report.not_run += mutants
        self.report.unproven += len(unknown) - mutants
        self._pairs.clear()

    def _grow(self, choose: Choose) -> Base:
        return grow(self.rule.pattern, choose, self._given)

    def _simplified(self, taken: list[int], holds: Callable[[Base], bool]) -> list[int]:
        """The choices with as many of them the plainest as may be where `holds` of the instance they make."""
        # What comes later may have to be plain before what comes first can be.
        for at in [*range(len(taken)), *range(len(taken))]:
            simpler: list[int] = []
            source = drawn(varied([*taken[:at], 0, *taken[at + 1 :]]), self._exempt)
            try:
                if taken[at : at + 1] not in ([], [0]) and holds(self._grow(recording(source, simpler))):
                    taken = simpler
            except Rejected:
                continue
        return taken

    def _fires(self, base: Base) -> bool:
        return self._fired(self._apply(prepare(spell(base, plainest)), base, ""))

    def _wrong(self, base: Base) -> Wrong | None:
        """What is wrong with the plainest spelling."""
        try:
            self._plainly(base)
        except Wrong as error:
            return error
        return None

    def _run(self, test: Callable[[Choose], None], *phases: Phase) -> None:
        def example(data: st.DataObject) -> None:
            try:
                test(drawn(lambda count: int(data.draw(_below(count))), self._exempt))
            except Rejected:
                reject()

        run = settings(
            max_examples=self._examples,
            derandomize=self._seed is None,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )(given(st.data())(example))
        try:
            (run if self._seed is None else seeded_by(self._seed)(run))()
        except Unsatisfiable:
            return

    # ---- one instance ------------------------------------------------------------------------------------------

    def _base(self, choose: Choose) -> Base:
        """An instance: one that the rule is known to rewrite, with some choices made anew, or any."""
        start = choose("", [*self.seeds, None, None, None])
        return self._grow(choose if start is None else varying(start, choose))

    def instances(self, *phases: Phase) -> None:
        """Instances that the rule is known to rewrite and others, each in one spelling."""
        self._run(self.instance, *phases)

    def instance(self, choose: Choose) -> None:
        """One instance and one spelling of it. Raises: Rejected where the rule has a reason to decline it."""
        base = self._base(choose)
        out = self._plainly(base)
        taken: list[int] = []
        model = prepare(spell(base, recording(choose, taken)))
        text = _case(model, base)
        if text in self._seen:
            return
        trace = self._apply(model, base, text)
        if not self._fired(trace):
            problem = [f"{self.rule.name} does not find this spelling of its pattern", *reasons(trace, self.rule)]
            raise Wrong(_message(problem, "missed_spelling", text, f"[out]\n{out}"))
        self._rewritten(prepare(spell(base, replaying(taken))), model, base, text)

    def _plainly(self, base: Base) -> str:
        """What becomes of the plainest spelling. Raises: Rejected where the rule declines it."""
        model = prepare(spell(base, plainest))
        text = _case(model, base)
        if text not in self._plain:
            trace = self._apply(model, base, text)
            out = to_text(model) if self._fired(trace) else ""
            if out:
                self._rewritten(prepare(spell(base, plainest)), model, base, text)
            else:
                self._declined(trace, base, text)
            self._plain[text] = out
        if not self._plain[text]:
            raise Rejected
        return self._plain[text]

    def _declined(self, trace: Trace, base: Base, text: str) -> None:
        count = trace.count(self.rule.name)
        if count.matched or self._has_checks:
            self.report.declined[next(reversed(count.reasons), "the rule's condition")] += 1
        elif self._runs(lambda: prepare(spell(base, plainest))):
            problem = [f"{self.rule.name} does not find an instance of its pattern", *reasons(trace, self.rule)]
            raise Wrong(_message(problem, "missed_instance", text, "[out]"))

    def _runs(self, make: Callable[[], Model]) -> bool:
        return compare_alone(Pair(make(), make()), self._lowering) is not None

    # ---- one mutant --------------------------------------------------------------------------------------------

    def mutants(self, *phases: Phase) -> None:
        """Every mutant of the plainest instance, and some of others."""
        base = self._grow(replaying(self.seeds[0]))
        for at in range(len(self._mutations(prepare(spell(base, plainest))))):
            with suppress(Rejected):
                self.mutant(plainest, at)
        self._run(self.mutant, *phases)

    def mutant(self, choose: Choose, at: int | None = None) -> None:
        """One mutant of an instance that the rule rewrites: the one that is asked for, or any."""
        base = self._grow(replaying(choose("", self.seeds)))
        taken: list[int] = []
        model = prepare(spell(base, recording(choose, taken)))
        found = self._mutations(model)
        if at is None:
            kind = choose("", list(dict.fromkeys(mutation.generator for mutation in found)))
            at = choose("", [at for at, mutation in enumerate(found) if mutation.generator == kind])
        what = found[at].what

        def again() -> Model:
            model = prepare(spell(base, replaying(taken)))
            return _mutated(model, self._mutations(model)[at])

        model = _mutated(model, found[at])
        text = _case(model, base)
        if text in self._seen:
            return
        trace = self._apply(model, base, text, what, again)
        if self._fired(trace):
            self._rewritten(again(), model, base, text, what)
        self._seen.add(text)
        self.report.mutants += 1

    def _mutations(self, model: Model) -> list[Mutation]:
        return [mutation for mutation in mutations(model) if mutation.generator != self._exempt]

    # ---- what holds of everything ------------------------------------------------------------------------------

    def _apply(
        self, model: Model, base: Base, text: str, mutant: str = "", again: Callable[[], Model] | None = None
    ) -> Trace:
        """Runs the rules. A mutant that onnxruntime does not take may make them fail."""
        trace = apply(model, self.rules, "", base.keep_opset)
        if trace.failures:
            if again is not None and not self._runs(again):
                raise Rejected
            raise Wrong(_message([failure(trace), mutant], "failing", text, "[unchanged]"))
        return trace

    def _fired(self, trace: Trace) -> bool:
        return any(site.rule == self.rule.name for site in trace.sites)

    def _rewritten(self, before: Model, after: Model, base: Base, text: str, mutant: str = "") -> None:
        """Checks what the rule made of `before`; the numbers at once, or with all others at the end."""
        out = to_text(after)
        if not self.rule.rule.once and self._fired(apply(after, [self.rule], "", base.keep_opset)):
            problem = [f"{self.rule.name} fires again on what it made", mutant]
            raise Wrong(_message(problem, "fires_again", text, f"[out]\n{out}"))

        def wrong(problem: str) -> Wrong:
            stuck = problem.startswith(STUCK)
            lines = [f"{self.rule.name}{': ' if stuck else ' changes the numbers: '}{problem}", mutant]
            lines += [_KERNEL_HINT] if stuck and "implementation" in problem else []
            name = "does_not_run" if stuck else "wrong_numbers"
            return Wrong(_message(lines, name, text, f"[unchanged]\n\nIt became\n\n{out}"))

        pair = Pair(before, after)
        different = compare_alone(pair, self._lowering) if self._at_once else None
        if different:
            raise wrong(different)
        if not self._at_once:
            self._pairs.append(_Waiting(pair, wrong, bool(mutant)))
        self._seen.add(text)
        self.report.equal += bool(mutant)
        self.report.fired += not mutant

    def _never_fires(self) -> str:
        reason = next((reason for reason, _ in self.report.declined.most_common(1)), "")
        if reason:
            variables = self.rule.pattern.variables.values()
            numbers = [v.name for v in variables if v.kind == "number" and v.name not in self._given]
            hints = [f"hint: a number may be given: `given={{'{name}': NUMBER}}`" for name in numbers[:1]]
            problem = f"{self.rule.name} fires on no instance of its pattern; most often it says: {reason}"
            return "\n  ".join([problem, *hints])
        return f"no instance of the pattern of {self.rule.name} can be made"


def _mutated(model: Model, mutation: Mutation) -> Model:
    """The model with the mutation, and the types that then are right. Raises: Rejected where there are none."""
    untyped, shapes = _untyped(model), _internal_shapes(model)
    mutation.apply()
    for graph in model.scopes():
        for node in graph.ops():
            for value in node.outputs:
                graph.set_type(value, 0, None)
    prepare(model)
    if _untyped(model) > untyped or _internal_shapes(model) != shapes:
        raise Rejected
    return model


def _untyped(model: Model) -> int:
    """How many values have no type: those of operators that inference does not know, or that are malformed."""
    return sum(not value.dtype or value.shape is None for node in model.graph.ops() for value in node.outputs)


def _internal_shapes(model: Model) -> list[Shape | None]:
    """The shapes of what internal operators read, which their definition ties to each other."""
    nodes = [node for node in model.graph.ops() if node.domain == IR_DOMAIN]
    return [value.shape for node in nodes for value in node.inputs if value is not None]


def _case(model: Model, base: Base) -> str:
    """The settings and the graph of a case."""
    kept = ["keep-opset: yes"] if base.keep_opset else []
    return "\n".join([*kept, to_text(model).rstrip()])


def _message(problem: Sequence[str], name: str, text: str, ending: str) -> str:
    return "\n  ".join(filter(None, problem)) + f"\n\n{case(name, text, ending)}"


@cache
def _below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)
