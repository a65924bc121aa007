"""What the tests about case files ask for; the plug-in `graphopt.testing.plugin` runs the cases themselves."""

from __future__ import annotations

import pytest

from graphopt.rewrite import CompiledRule, built_in_rules


@pytest.fixture(scope="session")
def rules() -> tuple[CompiledRule, ...]:
    return built_in_rules()
