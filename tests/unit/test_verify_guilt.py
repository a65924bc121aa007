"""Which rewrite is wrong: blame by values, then by bisection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
import onnx.parser

from graphopt.ir import Model, load
from graphopt.ir.text import parse
from graphopt.rewrite import CompiledRule, Engine, Expr, Ops, Rule, Site, Trace, Value
from graphopt.rewrite.engine import SiteKey
from graphopt.verify import Blamed, Checker, Search, blame, find_guilty, key_of, rulings

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


def test_a_site_in_a_subgraph_is_blamed_for_the_region_of_its_holder() -> None:
    text = """
    opset 17
    (c: bool[], x: float32[N, 8]) -> (y) {
      y = If(c, then_branch=() -> (a) { a = Log(Exp(x)) }, else_branch=() -> (b) { b = Neg(Neg(x)) })
    }
    """
    model = parse(text)
    engine = Engine([CompiledRule(rule()) for rule in (DoubleNegation, LogOfExp)])
    engine.run(model)
    with Checker(parse(text)) as checker:
        found = checker.check(model)
    assert [region.output for region in found.failing] == ["y"]
    assert "LogOfExp" in [site.rule for site in blame(found.failing, engine.trace)]


def test_a_site_in_a_function_is_blamed_for_the_regions_that_call_it() -> None:
    text = """<ir_version: 10, opset_import: ["" : 17, "my" : 1]>
    g (float[N, 8] x) => (float[N, 8] y) { h = my.Outer(x) y = Relu(h) }
    <domain: "my", opset_import: ["" : 17, "my" : 1]> Outer (a) => (b) { c = my.Inner(a) b = Neg(c) }
    <domain: "my", opset_import: ["" : 17]> Inner (p) => (q) { r = Exp(p) q = Log(r) }
    """

    def loaded() -> Model:
        return load(onnx.parser.parse_model(text))

    model = loaded()
    engine = Engine([CompiledRule(LogOfExp())])
    engine.run(model)
    with Checker(loaded()) as checker:
        found = checker.check(model)
    assert [region.output for region in found.failing] == ["h"]
    assert [site.rule for site in blame(found.failing, engine.trace)] == ["LogOfExp"]


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
        replays: list[frozenset[SiteKey]] = []

        def suspects_without(
            excluded: frozenset[SiteKey], wrong: Site = sites[guilty], seen: list[frozenset[SiteKey]] = replays
        ) -> list[Site] | None:
            seen.append(excluded)
            return None if key_of(wrong) in excluded else sites

        assert find_guilty(sites, suspects_without) is sites[guilty]
        assert len(replays) <= 8


def test_one_that_fires_in_place_of_the_guilty_one_and_is_wrong_as_well_hides_nobody() -> None:
    right, wrong, instead = (Site(name, "c", ("c",), (), (), ()) for name in ("Right", "Wrong", "Instead"))

    def suspects_without(excluded: frozenset[SiteKey]) -> list[Site] | None:
        left = wrong if key_of(wrong) not in excluded else instead
        return None if key_of(left) in excluded else [right, left]

    assert find_guilty([right, wrong], suspects_without) is wrong


def test_nobody_is_guilty_of_what_fails_anyway() -> None:
    _, trace = rewritten()
    assert find_guilty(trace.sites, lambda excluded: trace.sites) is None
    assert find_guilty([], lambda excluded: None) is None


def search(text: str, *rules: type[Rule], known: Sequence[Site] = ()) -> tuple[Search, list[Blamed]]:
    """The search for the guilty ones among `rules`."""

    def again(exclude: frozenset[SiteKey]) -> tuple[Model, Trace]:
        model = parse(text)
        engine = Engine([CompiledRule(rule()) for rule in rules], exclude=exclude)
        engine.run(model)
        return model, engine.trace

    model, trace = again(frozenset(map(key_of, known)))
    with Checker(parse(text)) as checker:
        found = Search(model, trace, checker.check(model), known, again, checker)
        return found, found.guilty()


def test_without_the_guilty_site_the_rest_is_equal() -> None:
    found, (blamed,) = search(TEXT, DoubleNegation, LogOfExp)
    assert key_of(blamed.site) == ("LogOfExp", "c")
    assert blamed.region is not None
    assert blamed.region.output == "c"
    assert "noise floor" in blamed.reason
    assert blamed.replays == 1
    repaired, trace = rewritten(frozenset([key_of(blamed.site)]))
    with Checker(parse(TEXT)) as checker:
        assert checker.check(repaired).verdict == "equal"
    assert {site.rule for site in trace.sites} == {"DoubleNegation"}
    assert not found.cleared


class SinIsCos(Rule):
    """Wrong, too."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sin(x)

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Cos(x)


MANY = f"""
opset 17
(x: float32[N, 8]) -> ({", ".join(f"y{i}" for i in range(200))}) {{
  {" ".join(f"y{i} = Log(Exp(Mul(x, {i + 1.0})))" for i in range(200))}
}}
"""


def test_a_rule_that_was_found_guilty_once_is_sought_no_more() -> None:
    _, blamed = search(MANY, LogOfExp)
    assert len(blamed) == 200
    assert [one.replays for one in blamed] == [1] + [0] * 199


def test_several_rules_are_found_after_one_check() -> None:
    _, blamed = search("(x: float32[N, 8]) -> (y, z) { y = Log(Exp(x)) z = Sin(x) }", LogOfExp, SinIsCos)
    assert {one.site.rule for one in blamed} == {"LogOfExp", "SinIsCos"}


def test_wholesale_all_that_touched_what_fails_goes_without_a_search() -> None:
    found, _ = search(TEXT, DoubleNegation, LogOfExp)
    with Checker(parse(TEXT)) as checker:
        again = Search(found.model, found.trace, found.verification, (), found.rewritten, checker)
        assert [(one.site.rule, one.replays) for one in again.guilty(wholesale=True)] == [("LogOfExp", 0)]


def test_where_no_region_could_decide_the_guilty_one_is_sought_in_the_whole() -> None:
    model, trace = rewritten()
    with Checker(parse(TEXT)) as checker:
        found = checker.check(model)
        undecided = tuple(replace(region, verdict="inconclusive") for region in found.regions)
        found = replace(found, regions=undecided, decided_by="end-to-end")
        (blamed,) = Search(model, trace, found, (), rewritten, checker).guilty()
    assert blamed.site.rule == "LogOfExp"
    assert blamed.layer == "end-to-end"


def test_what_no_site_is_guilty_of_clears_them_all() -> None:
    def again(exclude: frozenset[SiteKey]) -> tuple[Model, Trace]:
        model, trace = rewritten(exclude)
        sqrt = model.graph.names["z"].node
        model.graph.set_op(sqrt, "Exp", "", 13)
        return model, trace

    model, trace = again(frozenset([("LogOfExp", "c")]))
    with Checker(parse(TEXT)) as checker:
        known = [Site("LogOfExp", "c", ("c",), (), (), ())]
        found = Search(model, trace, checker.check(model), known, again, checker)
        assert found.guilty() == []
    assert found.cleared


def test_each_site_has_the_verdict_of_its_own_regions() -> None:
    model, trace = rewritten()
    with Checker(parse(TEXT)) as checker:
        found = checker.check(model)
    said = {site.root: ruling for site, ruling in zip(trace.sites, rulings(found, trace), strict=True)}
    assert found.verdict == "unequal"
    assert said["c"] == ("unequal", "regions")
    assert {ruling for root, ruling in said.items() if root != "c"} == {("equal", "regions")}


def test_a_site_that_left_what_is_equal_by_structure_says_so() -> None:
    def unused(exclude: frozenset[SiteKey] = frozenset()) -> tuple[Model, Trace]:
        model, trace = rewritten(exclude)
        return model, Trace([*trace.sites, Site("Elsewhere", "nowhere", ("nowhere",), ("n",), ("m",), ())])

    model, trace = unused()
    with Checker(parse(TEXT)) as checker:
        assert rulings(checker.check(model), trace)[-1] == ("equal", "structure")
