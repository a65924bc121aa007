"""Whether a rule iterates over a set of strings, whose order Python draws anew in each run with their hashes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterator
from types import ModuleType

_ORDER_FREE = frozenset({"any", "all", "frozenset", "len", "max", "min", "set", "sorted"})
_ORDERED = frozenset({"enumerate", "iter", "list", "map", "next", "tuple", "zip"})


def unordered_line(module: ModuleType, kind: type) -> int:
    """The first line of a class that depends on the order of a set of strings; 0 where none is seen to.

    Seen are sets written out as such, in place or under a name in the function, the class or the module.
    """
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, SyntaxError):
        return 0
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    shared = _named_sets([*tree.body, *(statement for found in classes for statement in found.body)], ())
    functions = [node for found in classes for node in ast.walk(found) if isinstance(node, ast.FunctionDef)]
    return min((line for function in functions for line in _lines(function, shared)), default=0)


def _lines(function: ast.FunctionDef, shared: Collection[str]) -> Iterator[int]:
    names = {*shared, *_named_sets(ast.walk(function), shared)}
    free = {
        argument
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _ORDER_FREE
        for argument in call.args
    }
    for node in ast.walk(function):
        match node:
            case ast.For(iter=source) | ast.Starred(value=source):
                sources = [source]
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp() if node not in free:
                sources = [generator.iter for generator in node.generators]
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _ORDERED and node not in free:
                sources = arguments
            case ast.Call(func=ast.Attribute(attr="join"), args=arguments):
                sources = arguments
            case ast.Call(func=ast.Attribute(value=source, attr="pop"), args=[]):
                sources = [source]
            case _:
                continue
        yield from (source.lineno for source in sources if _is_set(source, names))


def _named_sets(statements: Iterator[ast.AST] | Collection[ast.AST], names: Collection[str]) -> set[str]:
    return {
        target.id
        for node in statements
        if isinstance(node, ast.Assign) and _is_set(node.value, names)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _is_set(e: ast.expr, names: Collection[str]) -> bool:
    """Whether an expression is a set that has strings in it."""
    match e:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in names
        case ast.Set(elts=elements):
            return any(isinstance(element, ast.Constant) and isinstance(element.value, str) for element in elements)
        case ast.Call(func=ast.Name(id="set" | "frozenset"), args=[ast.List() | ast.Tuple() as given]):
            return _is_set(ast.Set(given.elts), names)
        case ast.Call(func=ast.Name(id="set" | "frozenset"), args=[given]):
            return _is_set(given, names)
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return _is_set(left, names) or _is_set(right, names)
    return False
