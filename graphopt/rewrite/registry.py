"""Finding rules: our own package of patterns, installed plug-ins, and files or modules a user names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from graphopt.errors import UsageError, near
from graphopt.rewrite.rule import STAGES, CompiledRule, Rule

# The built-in rules are found as a plug-in's are; the name of the package is all that is known of them.
BUILT_IN = "graphopt.patterns"
_GROUP = "graphopt.rules"


@cache
def built_in_rules() -> tuple[CompiledRule, ...]:
    """The rules that ship with graphopt and those of installed packages, by stage, then name."""
    packages = [importlib.import_module(BUILT_IN)]
    packages.extend(entry.load() for entry in sorted(entry_points(group=_GROUP), key=lambda e: e.name))
    return _unique(CompiledRule(kind()) for package in packages for kind in _rules_of(package))


def all_rules(sources: Iterable[str] = ()) -> tuple[CompiledRule, ...]:
    """Every built-in and installed rule, and those in `sources` (Python files or modules), by stage, then name.

    Raises: UsageError GO062 for a source that cannot be imported, GO063 for a rule whose name is taken.
    """
    return _unique([*built_in_rules(), *(rule for source in sources for rule in rules_from(source))])


def rules_from(source: str) -> tuple[CompiledRule, ...]:
    """The rules in a Python file or an importable module. Raises: UsageError GO062 when there are none."""
    try:
        if source.endswith(".py"):
            path = Path(source).resolve()
            spec = importlib.util.spec_from_file_location(f"graphopt rules {path}", path)
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
    except (Exception, SystemExit) as error:
        hint = "give a Python file, or the name of a module that can be imported"
        raise UsageError("GO062", f"the rules in '{source}' cannot be imported: {error}", source, hint) from error
    rules = _unique(CompiledRule(kind()) for kind in _rules_of(module))
    if not rules:
        raise UsageError("GO062", f"there is no rule in '{source}'", source, "a rule is a subclass of graphopt.Rule")
    return rules


def select(
    rules: Iterable[CompiledRule], only: Iterable[str] = (), disable: Iterable[str] = ()
) -> tuple[CompiledRule, ...]:
    """The rules that `--only` and `--disable` leave. Raises: UsageError GO010 for an unknown name."""
    rules, only, disable = tuple(rules), set(only), set(disable)
    known = {rule.name for rule in rules}
    for name in sorted((only | disable) - known):
        raise UsageError("GO010", f"no rule is called '{name}'", "", near(name, known))
    return tuple(r for r in rules if (not only or r.name in only) and r.name not in disable)


def _unique(rules: Iterable[CompiledRule]) -> tuple[CompiledRule, ...]:
    found: dict[str, CompiledRule] = {}
    for rule in rules:
        other = found.setdefault(rule.name, rule)
        if type(other.rule) is not type(rule.rule):
            raise UsageError("GO063", f"two rules are called '{rule.name}'", f"{rule.place}, {other.place}")
    return tuple(sorted(found.values(), key=lambda rule: (STAGES.index(rule.stage), rule.name)))


def _rules_of(package: ModuleType) -> Iterator[type[Rule]]:
    modules = [package]
    if hasattr(package, "__path__"):
        names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
        modules.extend(importlib.import_module(name) for name in sorted(names))
    for module in modules:
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Rule) and kind.__module__ == module.__name__ and hasattr(kind, "stage"):
                yield kind
