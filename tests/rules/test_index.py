"""What the index of rules leaves out is what would not have matched: every case, with it and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.rewrite import Context, Engine, Limits, Site, Trace, built_in_rules
from graphopt.rewrite.rule import STAGES
from graphopt.targets import target_named
from graphopt.testing import Case, parse_cases

FILES = sorted(Path(__file__).parent.rglob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_index_leaves_out_nothing_that_matches(path: Path) -> None:
    for case in parse_cases(path):
        assert _sites(case, explain=False) == _sites(case, explain=True), case.name


def _sites(case: Case, explain: bool) -> list[Site]:
    model = parse(case.text, opset=case.opset)
    infer(model)
    target = target_named(case.target) if case.target else None
    context = Context(target, case.assume, case.keep_opset)
    engine = Engine(built_in_rules(), context, Limits(sites_per_root=10), frozenset(), Trace(), explain)
    # What one stage recovers another lowers: together they would not come to an end.
    for stage in STAGES:
        engine.run(model, ("clean", stage))
    return engine.trace.sites
