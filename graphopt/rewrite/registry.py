"""Finding rules: our own package of patterns, installed plug-ins, and files or modules a user names.

Rules are foreign code. One that cannot be imported or read is set aside with its place and the reason; the others stay.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from graphopt.errors import RuleError, UsageError, near
from graphopt.rewrite.blame import line_of, raised_in, raised_on_import, said
from graphopt.rewrite.hash_order import unordered_line
from graphopt.rewrite.rule import STAGES, CompiledRule, Rule
from graphopt.rewrite.trace import RuleFailure

# The built-in rules are found as a plug-in's are; the name of the package is all that is known of them.
BUILT_IN = "graphopt.patterns"
_GROUP = "graphopt.rules"

_Found = CompiledRule | RuleFailure


@dataclass(frozen=True)
class RuleSet:
    """The rules that there are, by stage, then name, and those that were set aside before they were tried."""

    rules: tuple[CompiledRule, ...]
    failures: tuple[RuleFailure, ...] = ()

    def select(self, only: Iterable[str] = (), disable: Iterable[str] = ()) -> RuleSet:
        """What `--only` and `--disable` leave; a rule that was set aside may be disabled, too.

        Raises: UsageError GO010 for an unknown name, and for one that stands in both.
        """
        only, disable = frozenset(only), frozenset(disable)
        known = {*(rule.name for rule in self.rules), *(failure.rule for failure in self.failures)}
        aside = "".join(f"; set aside: {failure.rule} ({failure.place})" for failure in self.failures)
        for name in sorted((only | disable) - known):
            raise UsageError("GO010", f"no rule is called '{name}'", "", near(name, known) + aside)
        for name in sorted(only & disable):
            raise UsageError("GO010", f"'{name}' is asked for and disabled", "", "leave out --only or --disable")

        def left(name: str) -> bool:
            return (not only or name in only) and name not in disable

        rules = tuple(rule for rule in self.rules if left(rule.name))
        return RuleSet(rules, tuple(failure for failure in self.failures if left(failure.rule)))


def find_rules(sources: Iterable[str] = ()) -> RuleSet:
    """Every built-in and installed rule, and those in `sources` (Python files or modules).

    The first of several rules of one name counts; the built-in ones come first, then the installed ones.
    Raises: UsageError GO062 for a source that is not there, or has no rule.
    """
    return _together([*_built_in(), *_installed(), *(found for source in sources for found in _in_source(source))])


def built_in_rules() -> tuple[CompiledRule, ...]:
    """The rules that ship with graphopt, by stage, then name."""
    return _together(_built_in()).rules


def _together(found: Iterable[_Found]) -> RuleSet:
    rules: dict[str, CompiledRule] = {}
    failures: list[RuleFailure] = []
    for one in found:
        if isinstance(one, RuleFailure):
            failures.append(one)
            continue
        other = rules.setdefault(one.name, one)
        # One file may be read under two names: as a module, and because its path is given.
        if type(other.rule) is not type(one.rule) and other.place != one.place:
            message = f"another rule has its name ({other.place})"
            hint = "give its class another name, or leave the other out"
            failures.append(RuleFailure(one.name, one.place, message, hint))
    ordered = sorted(rules.values(), key=lambda rule: (STAGES.index(rule.stage), rule.name))
    return RuleSet(tuple(ordered), tuple(dict.fromkeys(failures)))


# ---- sources ---------------------------------------------------------------------------------------------------------


@cache
def _built_in() -> tuple[_Found, ...]:
    return tuple(_in_module(BUILT_IN))


@cache
def _installed() -> tuple[_Found, ...]:
    entries = sorted(entry_points(group=_GROUP), key=lambda entry: entry.name)
    return tuple(found for entry in entries for found in _in_package(entry))


def _in_package(entry: EntryPoint) -> Iterator[_Found]:
    """The rules of an installed package; what it names may be gone."""
    try:
        yield from _in_module(entry.value)
    except _NotThere:
        package = entry.dist.name if entry.dist is not None else "a package"
        place, message = f"entry point {entry.name} of {package}", "it cannot be imported: there is no such module"
        yield RuleFailure(entry.value, place, message, f"install {package} anew, or remove it")


def _in_source(source: str) -> list[_Found]:
    """What is in a Python file or a module. Raises: UsageError GO062 where it is not there, or has no rule."""
    hint = "give a Python file, or the name of a module that can be imported"
    try:
        found = list(_in_file(Path(source).resolve()) if source.endswith(".py") else _in_module(source))
    except _NotThere:
        message = f"the rules in '{source}' cannot be imported: there is no such file or module"
        raise UsageError("GO062", message, source, hint) from None
    if not found:
        raise UsageError("GO062", f"there is no rule in '{source}'", source, "a rule is a subclass of graphopt.Rule")
    return found


class _NotThere(Exception):
    """There is no such file or module."""


def _in_file(path: Path) -> Iterator[_Found]:
    spec = importlib.util.spec_from_file_location(f"graphopt rules {path}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise _NotThere
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        yield _unimportable(str(path), error)
    else:
        yield from _in_namespace(module)


def _in_module(name: str) -> Iterator[_Found]:
    """The rules of a module and of those below it."""
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if not all(part.isidentifier() for part in name.split(".")) or _is_absent(name, error):
            raise _NotThere from error
        yield _unimportable(name, error)
        return
    yield from _in_namespace(module)
    for below in sorted(info.name for info in pkgutil.iter_modules(getattr(module, "__path__", ()))):
        yield from _in_module(f"{name}.{below}")


def _is_absent(name: str, error: BaseException) -> bool:
    return isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")


def _in_namespace(module: ModuleType) -> Iterator[_Found]:
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, Rule) and kind.__module__ == module.__name__ and hasattr(kind, "stage"):
            yield _compiled(module, kind)


def _compiled(module: ModuleType, kind: type[Rule]) -> _Found:
    name = kind.__name__
    line = 0 if module.__name__.startswith(BUILT_IN) else unordered_line(module, kind)
    if line:
        message = "it iterates over a set, in another order in each run"
        return RuleFailure(name, f"{module.__file__}:{line}", message, "iterate over sorted(...)")
    try:
        return CompiledRule(kind())
    except RuleError as error:
        return RuleFailure(name, error.where, error.message, error.hint)
    except (Exception, SystemExit) as error:
        place = raised_in(error, kind) or line_of(kind)
        return RuleFailure(name, place, f"it cannot be made: {said(error)}", "it is made without arguments")


def _unimportable(source: str, error: BaseException) -> RuleFailure:
    hint = "install what is missing, or repair the file" if isinstance(error, ImportError) else "repair the file"
    message = f"it cannot be imported: {said(error)}"
    return RuleFailure(source, raised_on_import(error, __file__) or source, message, hint)
