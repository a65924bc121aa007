"""Every rule has a page of one form, and docs/rules.md is made of all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphopt.pipeline import parts
from graphopt.rewrite import CompiledRule, built_in_rules


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, root / "tools" / "rules_page.py", "--check"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_page_is_what_the_docstrings_say(root: Path) -> None:
    done = check(root)
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_told(root: Path, tmp_path: Path) -> None:
    for folder, name in (("tools", "rules_page.py"), ("docs", "rules.md")):
        (tmp_path / folder).mkdir()
        shutil.copy(root / folder / name, tmp_path / folder)
    page = tmp_path / "docs" / "rules.md"
    page.write_text(page.read_text().replace("GELU, exact form.", "GELU."))
    done = check(tmp_path)
    assert done.returncode == 1
    assert "run python tools/rules_page.py" in done.stderr


@pytest.mark.parametrize("rule", built_in_rules(), ids=lambda rule: rule.name)
def test_a_rule_says_what_why_before_after_and_why_it_is_safe(rule: CompiledRule) -> None:
    said = parts(rule)
    assert list(said)[:5] == ["What", "Why", "Before", "After", "Safety"]
    assert set(said) <= {"What", "Why", "Before", "After", "Safety", "Source"}
    assert all(said.values())
    assert said["What"].endswith(".")
    assert len(said["What"].splitlines()) == 1
