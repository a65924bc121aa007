"""Single mistakes in Python source: one expression or statement does something else than it did."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Final

Place = ast.expr | ast.stmt
Change = tuple[Place, str]
"""What stands somewhere, and the text in place of it."""

_SWAPPED: Final = ((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn))
_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = dict([*_SWAPPED, *(pair[::-1] for pair in _SWAPPED)])
_BOTH_WAYS: Final = ((ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv), (ast.LShift, ast.RShift), (ast.BitAnd, ast.BitOr))
_ONE_WAY: Final = ((ast.Div, ast.Mult), (ast.Mod, ast.FloorDiv), (ast.Pow, ast.Mult), (ast.BitXor, ast.BitOr))
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = dict(
    [*_BOTH_WAYS, *(pair[::-1] for pair in _BOTH_WAYS), *_ONE_WAY]
)
_SPEAKING: Final = ("Error", "_fail", "_error", "_log", "warning", "debug", "info")
"""Calls whose words are for people: no test should hold every one of them."""


def comparison(node: ast.AST) -> Iterator[Change]:
    """Another comparison."""
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            ops = [*node.ops[:place], _COMPARISONS[type(op)](), *node.ops[place + 1 :]]
            yield _changed(node, ast.Compare(node.left, ops, node.comparators))


def arithmetic(node: ast.AST) -> Iterator[Change]:
    """Another operator."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield _changed(node, ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))


def number(node: ast.AST) -> Iterator[Change]:
    """One more and one less."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield from (_changed(node, ast.Constant(node.value + step)) for step in (1, -1))


def word(node: ast.AST) -> Iterator[Change]:
    """Another word, or the other truth."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bool)):
        other = not node.value if isinstance(node.value, bool) else f"{node.value}_other"
        yield _changed(node, ast.Constant(other))


def connective(node: ast.AST) -> Iterator[Change]:
    """`or` in place of `and`, and the reverse."""
    if isinstance(node, ast.BoolOp):
        yield _changed(node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))


def clause(node: ast.AST) -> Iterator[Change]:
    """One operand of an `and` or `or` left out."""
    if isinstance(node, ast.BoolOp):
        for place in range(len(node.values)):
            left = [*node.values[:place], *node.values[place + 1 :]]
            yield _changed(node, ast.BoolOp(node.op, left) if len(left) > 1 else left[0])


def negation(node: ast.AST) -> Iterator[Change]:
    """No `not`, or one in a condition that no other change turns round."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _changed(node, node.operand)
    for test in _tests(node):
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield _changed(test, ast.UnaryOp(ast.Not(), test))


def choice(node: ast.AST) -> Iterator[Change]:
    """Always one of two values."""
    if isinstance(node, ast.IfExp):
        yield from (_changed(node, one) for one in (node.body, node.orelse))


def exchanged(node: ast.AST) -> Iterator[Change]:
    """Two arguments in each other's place."""
    if isinstance(node, ast.Call) and not ast.unparse(node.func).endswith(("isinstance", *_SPEAKING)):
        for place in range(len(node.args) - 1):
            a, b = node.args[place : place + 2]
            if ast.dump(a) != ast.dump(b) and not any(isinstance(one, ast.Starred) for one in (a, b)):
                args = [*node.args[:place], b, a, *node.args[place + 2 :]]
                yield _changed(node, ast.Call(node.func, args, node.keywords))


def argument(node: ast.AST) -> Iterator[Change]:
    """A named argument left out."""
    if isinstance(node, ast.Call):
        for place, one in enumerate(node.keywords):
            if one.arg not in (None, "strict"):
                left = [*node.keywords[:place], *node.keywords[place + 1 :]]
                yield _changed(node, ast.Call(node.func, node.args, left))


def returned(node: ast.AST) -> Iterator[Change]:
    """None in place of what is returned."""
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield node, "return None"


def dropped(node: ast.AST) -> Iterator[Change]:
    """A statement that is not executed; names stay bound."""
    if isinstance(node, ast.Raise | ast.AugAssign | ast.Delete | ast.Expr):
        yield node, "pass"
    if isinstance(node, ast.Assign) and not any(isinstance(one, ast.Name | ast.Tuple) for one in node.targets):
        yield node, "pass"


def leap(node: ast.AST) -> Iterator[Change]:
    """The other way out of a turn of a loop."""
    if isinstance(node, ast.Continue | ast.Break):
        yield node, "break" if isinstance(node, ast.Continue) else "continue"


CHANGES: Final[tuple[Callable[[ast.AST], Iterator[Change]], ...]] = (
    *(comparison, arithmetic, number, word, connective, clause, negation, choice),
    *(exchanged, argument, returned, dropped, leap),
)


def _changed(before: Place, after: ast.expr) -> Change:
    # In brackets: what stands around may bind more tightly.
    return before, f"({ast.unparse(after)})"


def _tests(node: ast.AST) -> list[ast.expr]:
    """The conditions that a statement or comprehension asks."""
    match node:
        case ast.If(test=test) | ast.While(test=test):
            return [test]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            return [test for loop in node.generators for test in loop.ifs]
    return []


@dataclass(frozen=True)
class SourceMutant:
    """A file with one mistake: `text` in place of what stands from `start` to `end`, places in its bytes."""

    kind: str
    line: int
    last: int
    start: int
    end: int
    text: str
    function: tuple[str, int] | None
    """The outermost function it is in: qualified name, first line. None where it runs on import."""

    def applied(self, source: str) -> str:
        whole = source.encode()
        return (whole[: self.start] + self.text.encode() + whole[self.end :]).decode()

    def diff(self, source: str) -> str:
        """The lines that differ."""
        lines = unified_diff(source.splitlines(), self.applied(source).splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def source_mutants(source: str) -> list[SourceMutant]:
    """All mutants of a module, in the order of its lines.

    Left alone: types, docstrings, what only checks (assertions, `strict`), words of errors and logs, and what stands in
    an f-string, whose places Python 3.11 does not tell.
    """
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    tree, found = ast.parse(source), []
    spans = list(_functions(tree.body))
    for node in _meant(tree):
        for change in CHANGES:
            for place, text in change(node):
                last, column = place.end_lineno or place.lineno, place.end_col_offset or 0
                start, end = offsets[place.lineno - 1] + place.col_offset, offsets[last - 1] + column
                found.append(SourceMutant(change.__name__, place.lineno, last, start, end, text, _around(spans, place)))
    return sorted(found, key=lambda one: (one.start, one.end, one.kind, one.text))


def _functions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, int, int]]:
    """Qualified name, first and last line of the functions that are in no other."""
    for node in body:
        match node:
            case ast.ClassDef():
                yield from _functions(node.body, f"{within}{node.name}.")
            case ast.FunctionDef():
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                yield f"{within}{node.name}", first, node.end_lineno or node.lineno


def _around(functions: list[tuple[str, int, int]], place: Place) -> tuple[str, int] | None:
    # Defaults of arguments are not in the code of the function.
    found = (one for one in functions if one[1] < place.lineno <= one[2])
    return next(((name, first) for name, first, _ in found), None)


def _meant(tree: ast.Module) -> Iterator[Place]:
    """The expressions and statements of a module that say what it does."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Place):
            yield node
        pending.extend(_inner(node))


def _inner(node: ast.AST) -> Sequence[ast.AST]:
    match node:
        case ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return []
        case ast.AnnAssign():
            return [node.value] if node.value else []
        case ast.FunctionDef():
            return [*_defaults(node.args), *_body(node.body)]
        case ast.ClassDef():
            return _body(node.body)
        case ast.Module():
            return _body(node.body)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return []
        case ast.Call(func=function) if ast.unparse(function).endswith(_SPEAKING):
            return [one for one in node.args if not _is_word(one)]
        case ast.keyword(arg="strict"):
            return []
        case ast.Call(func=ast.Name(id="cast" | "TypeVar")):
            return node.args[1:]
    return list(ast.iter_child_nodes(node))


def _defaults(args: ast.arguments) -> list[ast.AST]:
    return [*args.defaults, *(one for one in args.kw_defaults if one)]


def _body(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without the strings that tell of them."""
    return [one for one in body if not (isinstance(one, ast.Expr) and _is_word(one.value))]


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
