"""Which rewrite is wrong: blame by values, then by bisection."""

from __future__ import annotations

from graphopt.ir import Model
from graphopt.ir.text import parse
from graphopt.rewrite import CompiledRule, Engine, Expr, Ops, Rule, Site, Trace, Value
from graphopt.rewrite.engine import SiteKey
from graphopt.verify import Checker, blame, find_guilty, key_of

TEXT = """
opset 17
(x: float32[N, 8]) -> (y, z) {
  a = Neg(Neg(x))
  b = Exp(a)
  c = Log(Exp(b))
  y = Relu(c)
  d = Neg(Neg(Abs(x)))
  z = Sqrt(d)
}
"""


class DoubleNegation(Rule):
    """Right."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.Neg(x))

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Identity(x)


class LogOfExp(Rule):
    """Wrong."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Log(op.Exp(x))

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Abs(op.Neg(op.Tanh(x)))


def rewritten(exclude: frozenset[SiteKey] = frozenset()) -> tuple[Model, Trace]:
    model = parse(TEXT)
    engine = Engine([CompiledRule(rule()) for rule in (DoubleNegation, LogOfExp)], exclude=exclude)
    engine.run(model)
    return model, engine.trace


def test_a_failing_region_is_blamed_on_the_sites_in_it() -> None:
    model, trace = rewritten()
    assert len(trace.sites) == 3
    with Checker(parse(TEXT)) as checker:
        found = checker.check(model)
    assert [region.output for region in found.failing] == ["c"]
    assert [site.rule for site in blame(found.failing, trace)] == ["LogOfExp"]


def test_sites_whose_work_later_sites_replaced_are_blamed_as_well() -> None:
    model, _ = rewritten()
    with Checker(parse(TEXT)) as checker:
        failing = checker.check(model).failing
    first = Site("Early", "c", ("c",), ("e",), ("f",), ("b",))
    last = Site("Late", "c", ("c",), ("f",), ("g", "c"), ("b",))
    other = Site("Other", "z", ("z",), ("d",), ("h",), ("x",))
    assert blame(failing, Trace([first, last, other])) == [first, last]


def test_the_guilty_one_of_many_is_found_in_few_replays() -> None:
    sites = [Site(f"R{i}", f"v{i}", (f"v{i}",), (), (), ()) for i in range(100)]
    for guilty in (0, 1, 42, 99):
        replays = []

        def replay(excluded: frozenset[SiteKey], seen: list[frozenset[SiteKey]] = replays) -> frozenset[SiteKey]:
            seen.append(excluded)
            return excluded

        def passes(excluded: frozenset[SiteKey], wrong: Site = sites[guilty]) -> bool:
            return key_of(wrong) in excluded

        assert find_guilty(sites, replay, passes) is sites[guilty]  # type: ignore[arg-type]
        assert len(replays) <= 8


def test_nobody_is_guilty_of_what_fails_anyway() -> None:
    _, trace = rewritten()
    assert find_guilty(trace.sites, lambda excluded: rewritten(excluded)[0], lambda model: False) is None
    assert find_guilty([], lambda excluded: rewritten(excluded)[0], lambda model: True) is None


def test_without_the_guilty_site_the_rest_is_equal() -> None:
    model, trace = rewritten()
    with Checker(parse(TEXT)) as checker:
        first = checker.check(model)
        guilty = find_guilty(
            blame(first.failing, trace),
            lambda excluded: rewritten(excluded)[0],
            lambda model: not checker.check(model).failing,
        )
        assert guilty is not None
        assert key_of(guilty) == ("LogOfExp", "c")
        repaired, trace = rewritten(frozenset([key_of(guilty)]))
        assert checker.check(repaired).verdict == "equal"
    assert {site.rule for site in trace.sites} == {"DoubleNegation"}
