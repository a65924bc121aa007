"""What the case files are run with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphopt.rewrite import CompiledRule, built_in_rules
from graphopt.runtime import Runner


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-cases", action="store_true", help="write what rules make of must-fire cases into their files"
    )


@pytest.fixture(scope="session")
def rules() -> tuple[CompiledRule, ...]:
    return built_in_rules()


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner
