"""Mistakes that are made in source on purpose: each is one, in what says what a module does."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from source_mutations import CHANGES, source_mutants

SOURCE = '''"""What it does."""
from __future__ import annotations

LIMIT: int = 3


def first(a: list[int], *, far: bool = True) -> int | None:
    """Adds up."""
    total = 0
    assert a != [7]
    for number, _ in zip(a, a, strict=True):
        if number > LIMIT and far or number == 0:
            continue
        total += number * 2
    if not far:
        raise ValueError(f"{number + 1} is too far", "never")
    return min(total, 9, key=abs) if a else None


class Second:
    """Holds."""

    def held(self) -> str:
        """Says."""
        self.ä, self.word = 1, "ö"
        self.word = "ä" + "b"
        return self.word
'''


def told() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mutant in source_mutants(SOURCE):
        added = [line[1:].strip() for line in mutant.diff(SOURCE).splitlines() if line.startswith("+")]
        found.setdefault(mutant.kind, []).extend(added)
    return found


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("comparison", ["if (number >= LIMIT) and far or number == 0:", "if number > LIMIT and far or (number != 0):"]),
        ("arithmetic", ["total += (number // 2)", 'self.word = ("ä" - "b")'.replace('"', "'")]),
        ("negation", ["if (far):"]),
        ("leap", ["break"]),
        ("choice", ["return (min(total, 9, key=abs))", "return (None)"]),
        ("argument", ["return (min(total, 9)) if a else None"]),
        ("exchanged", ["return (min(9, total, key=abs)) if a else None"]),
        ("returned", ["return None", "return None"]),
        ("dropped", ["pass", "pass", "pass"]),
        (
            "connective",
            ["if ((number > LIMIT and far) and number == 0):", "if (number > LIMIT or far) or number == 0:"],
        ),
        (
            "clause",
            [
                "if (number == 0):",
                "if (number > LIMIT and far):",
                "if (far) or number == 0:",
                "if (number > LIMIT) or number == 0:",
            ],
        ),
        ("word", ["def first(a: list[int], *, far: bool = (False)) -> int | None:"]),
    ],
)
def test_each_kind_of_mistake(kind: str, wanted: list[str]) -> None:
    found = told()[kind]
    assert found[: len(wanted)] == wanted if kind == "word" else sorted(found) == sorted(wanted)


def test_every_mutant_is_a_program_and_all_kinds_are_there() -> None:
    mutants = source_mutants(SOURCE)
    assert {mutant.kind for mutant in mutants} == {change.__name__ for change in CHANGES}
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.applied(SOURCE))) != ast.dump(ast.parse(SOURCE)), mutant


def test_what_is_for_people_and_for_type_checkers_stays() -> None:
    changed = {mutant.diff(SOURCE).splitlines()[0][1:].strip() for mutant in source_mutants(SOURCE)}
    for line in ('"""Adds up."""', '"""What it does."""', '"""Says."""', "assert a != [7]", "class Second:"):
        assert line not in changed
    raised = [one for one in source_mutants(SOURCE) if one.diff(SOURCE).startswith("-        raise")]
    assert [one.kind for one in raised] == ["dropped"]


def test_a_mutant_knows_the_function_it_is_in() -> None:
    places = {mutant.diff(SOURCE).splitlines()[0][1:].strip(): mutant.function for mutant in source_mutants(SOURCE)}
    assert places["LIMIT: int = 3"] is None
    assert places["def first(a: list[int], *, far: bool = True) -> int | None:"] is None
    assert places["if not far:"] == ("first", 7)
    assert places["return self.word"] == ("Second.held", 23)
