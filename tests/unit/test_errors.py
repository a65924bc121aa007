"""Every error code has one meaning, one class and a line in docs/errors.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphopt import errors, runtime
from graphopt.errors import GraphoptError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text()
ROWS = re.findall(r"^\| (GO\d{3}) \| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)
KINDS = {
    name: kind
    for home in (errors, runtime)
    for name, kind in vars(home).items()
    if isinstance(kind, type) and issubclass(kind, GraphoptError)
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "graphopt").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def codes_in(node: ast.AST) -> set[str]:
    found = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return {value for value in found if isinstance(value, str) and re.fullmatch(r"GO\d{3}", value)}


def uses() -> Iterator[tuple[str, str, str]]:
    """(place, class, code): where an error is made, and where a docstring says that one is raised."""
    for path, module in sources():
        for node in ast.walk(module):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in KINDS:
                    yield from ((f"{path}:{node.lineno}", name, code) for code in codes_in(first))
                case ast.Constant(value=str() as text):
                    for name, code in re.findall(r"(\w+) (GO\d{3})", text):
                        if name in KINDS:
                            yield f"{path}:{node.lineno}", name, code


def test_the_page_lists_each_code_once_in_order() -> None:
    codes = [code for code, _, _ in ROWS]
    assert codes == sorted(set(codes))
    meanings = [meaning for _, _, meaning in ROWS]
    assert len(set(meanings)) == len(meanings)


def test_the_page_lists_what_the_code_raises_and_nothing_else() -> None:
    raised = {code for _, module in sources() for code in codes_in(module)}
    assert raised == {code for code, _, _ in ROWS}


def test_a_code_is_of_one_class() -> None:
    listed = {code: int(exit_code) for code, exit_code, _ in ROWS}
    found = list(uses())
    assert len({code for _, _, code in found}) > len(listed) * 0.8
    assert [f"{place}: {name} {code}" for place, name, code in found if KINDS[name].exit_code != listed[code]] == []


@pytest.mark.parametrize("kind", sorted(KINDS.values(), key=lambda kind: kind.__name__))
def test_the_page_lists_the_exit_code_of_each_class(kind: type[GraphoptError]) -> None:
    listed = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert listed[str(kind.exit_code)] in [base.__name__ for base in kind.__mro__]
