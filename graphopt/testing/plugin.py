"""The pytest plug-in: case files are collected, each case is a test.

`rules.graphopt.txt` is a case file (its form: `graphopt.testing`); the option `graphopt_cases` of pytest's own settings
gives other patterns. Cases may name built-in rules, those of installed packages and those that the project's settings
list. `pytest --update-cases` writes what must-fire cases make of their graphs into the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# pytest loads this module in every project: the rest is imported where the first case is.
if TYPE_CHECKING:
    from graphopt.rewrite import RuleSet
    from graphopt.runtime import Runner
    from graphopt.testing.cases import Case

_PATTERN = "*.graphopt.txt"
_TIMEOUT = 60.0
_RULES: pytest.StashKey[RuleSet] = pytest.StashKey()
_RUNNER: pytest.StashKey[Runner] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("graphopt", "rules of graphopt")
    group.addoption("--update-cases", action="store_true", help="write what must-fire cases make into their files")
    parser.addini("graphopt_cases", f"patterns of graphopt's case files ({_PATTERN})", "args", default=[_PATTERN])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> CaseFile | None:
    """Case files as collectors."""
    if any(file_path.match(pattern) for pattern in parent.config.getini("graphopt_cases")):
        found: CaseFile = CaseFile.from_parent(parent, path=file_path)
        return found
    return None


@pytest.fixture(scope="session")
def graphopt_runner(pytestconfig: pytest.Config) -> Runner:
    """The child process in which models of this session are run."""
    return _runner(pytestconfig)


class CaseFile(pytest.File):
    """A file of cases."""

    def collect(self) -> Iterator[CaseItem]:
        """One item for each case. Raises: CollectError where the file is not of the form."""
        from graphopt.errors import GraphoptError
        from graphopt.testing.cases import parse_cases

        try:
            cases = parse_cases(self.path)
        except GraphoptError as error:
            raise self.CollectError(str(error)) from error
        for case in cases:
            yield CaseItem.from_parent(self, name=case.name, case=case)


class CaseItem(pytest.Item):
    """One case: the graph is rewritten, compared with what is expected, and run before and after."""

    def __init__(self, case: Case, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.case = case

    def runtest(self) -> None:
        """Raises: pytest's failure with the rule's reasons or what differs."""
        from graphopt.errors import GraphoptError
        from graphopt.testing.cases import parse_cases, update_cases
        from graphopt.testing.run import run_case

        case, updates = self.case, self.config.getoption("--update-cases")
        if updates:
            # Cases before this one may have been written anew, which this one may borrow from.
            case = next(one for one in parse_cases(self.path) if one.name == case.name)
        try:
            known = _rules(self.config)
            for failure in known.select(only=case.rules).failures:
                raise failure.error
            outcome = run_case(case, known.rules, _runner(self.config))
        except GraphoptError as error:
            pytest.fail(str(error), pytrace=False)
        if outcome.problem and outcome.text and updates and not case.borrowed:
            update_cases(self.path, {case.name: outcome.text})
            pytest.skip("the file says now what the rule does")
        if outcome.problem:
            pytest.fail(f"{self.path}:{case.line}\n{outcome.problem}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the case stands."""
        return self.path, self.case.line - 1, self.name


def _rules(config: pytest.Config) -> RuleSet:
    from graphopt.rewrite import find_rules
    from graphopt.settings import find_settings

    if _RULES not in config.stash:
        config.stash[_RULES] = find_rules(find_settings(config.rootpath).rules)
    return config.stash[_RULES]


def _runner(config: pytest.Config) -> Runner:
    from graphopt.runtime import Runner

    if _RUNNER not in config.stash:
        config.stash[_RUNNER] = Runner(timeout=_TIMEOUT).__enter__()
        config.add_cleanup(config.stash[_RUNNER].close)
    return config.stash[_RUNNER]
